"""Rows on their way into steps: taken once, counted, refused before the start."""

import json
import os
import signal
from pathlib import Path
from tempfile import TemporaryDirectory
from types import SimpleNamespace
from typing import Any

import pytest

from rlframe.algorithm import SFT, rate
from rlframe.batch.samples import to_samples
from rlframe.batch.sequences import to_train_sample
from rlframe.config.tune import TuneConfig
from rlframe.errors import ConfigError, RunFailed
from rlframe.train import written
from rlframe.train.row_feed import row_digest
from rlframe.train.signals import Stop, StopSignals
from rlframe.train.tune import take_step
from rlframe.train.written import open_rows
from tests.conftest import compose_unchecked
from tests.tiny.models import byte_tokenizer


def write(path: Path, count: int, answer: str = "{}", first: int = 0) -> str:
    lines = [{"prompt": f"say {n}", "completion": answer.format(n)} for n in range(first, first + count)]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))
    return str(path)


def tune_config(tiny_model: Path, *overrides: str) -> TuneConfig:
    from rlframe.config.compose import load

    settings = [f"model.path={tiny_model}", "rows.max_tokens=64", "rows.per_step=4", "learner.micro_batch_tokens=256"]
    return load(compose_unchecked([*settings, *overrides], "tune"), TuneConfig)


def open_feed(run: TuneConfig, warnings: list[str] | None = None, folder: Path | None = None):
    lines: list[str] = [] if warnings is None else warnings
    with TemporaryDirectory() as passing:
        total_file = (folder or Path(passing)) / "rows.json"
        return open_rows(run, byte_tokenizer(), Path(run.model.path), total_file, lines.append)


def test_two_epochs_of_10_rows_are_5_steps_of_4(tiny_model: Path, tmp_path: Path) -> None:
    opened = open_feed(tune_config(tiny_model, f"rows.path={write(tmp_path / 'a.jsonl', 10)}"))
    ids = [[record.prompt_id for record in opened.feed.take()] for _ in range(opened.steps)]
    assert opened.steps == 5
    assert [len(step) for step in ids] == [4, 4, 4, 4, 4]
    assert sorted(name.partition("@")[0] for step in ids for name in step) == sorted(
        2 * [f"a.jsonl:{line}" for line in range(1, 11)]
    )
    assert opened.feed.metrics() == {"rows/epoch": 2.0, "rows/dropped": 0.0}


def test_the_last_step_of_an_epoch_has_the_rows_that_are_left(tiny_model: Path, tmp_path: Path) -> None:
    opened = open_feed(tune_config(tiny_model, f"rows.path={write(tmp_path / 'a.jsonl', 10)}", "epochs=1.0"))
    assert [len(opened.feed.take()) for _ in range(opened.steps)] == [4, 4, 2]


def test_a_restored_feed_takes_what_an_uninterrupted_one_takes(tiny_model: Path, tmp_path: Path) -> None:
    run = tune_config(tiny_model, f"rows.path={write(tmp_path / 'a.jsonl', 10)}", "steps=9", "epochs=null")
    feed = open_feed(run).feed
    feed.take()
    state = json.loads(json.dumps(feed.state()))
    expected = [[record.prompt_id for record in feed.take()] for _ in range(3)]
    again = open_feed(run).feed
    again.restore(state)
    assert [[record.prompt_id for record in again.take()] for _ in range(3)] == expected


def test_a_resumed_run_of_epochs_keeps_its_rows_per_step(tiny_model: Path, tmp_path: Path) -> None:
    rows = f"rows.path={write(tmp_path / 'a.jsonl', 10)}"
    feed = open_feed(tune_config(tiny_model, rows)).feed
    feed.take()
    with pytest.raises(ConfigError, match=r"rows\.per_step: 2, but the run to resume took 4"):
        open_feed(tune_config(tiny_model, rows, "rows.per_step=2")).feed.restore(feed.state())
    by_steps = open_feed(tune_config(tiny_model, rows, "rows.per_step=2", "steps=9", "epochs=null")).feed
    by_steps.restore(feed.state())
    assert by_steps.position == 4


def test_rows_that_have_changed_are_refused_at_resume(tiny_model: Path, tmp_path: Path) -> None:
    by_steps = [f"rows.path={write(tmp_path / 'a.jsonl', 10)}", "steps=9", "epochs=null"]
    feed = open_feed(tune_config(tiny_model, *by_steps)).feed
    feed.take()
    with pytest.raises(ConfigError, match=r"rows: their number, order \(seed\) or weights have changed"):
        open_feed(tune_config(tiny_model, *by_steps, "seed=1")).feed.restore(feed.state())
    write(tmp_path / "a.jsonl", 11)
    with pytest.raises(ConfigError, match=r"restore them, or start a new run"):
        open_feed(tune_config(tiny_model, *by_steps)).feed.restore(feed.state())


def test_a_resumed_run_keeps_the_steps_that_its_first_start_counted(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A start that sees one row, which is too long, estimates that all are; one that sees all counts the long one."""
    file = tmp_path / "a.jsonl"
    write(file, 9)
    file.write_text(json.dumps({"prompt": "say", "completion": "x" * 100}) + "\n" + file.read_text())
    changes = [f"rows.path={file}", "epochs=2.0", "rows.max_dropped_share=0.99"]
    first = open_feed(tune_config(tiny_model, *changes), folder=tmp_path)
    assert first.steps == 5  # 18 rows
    monkeypatch.setattr(written, "in_order", lambda rows: list(rows)[1:3])
    assert open_feed(tune_config(tiny_model, *changes)).steps == 5  # 20 rows are expected where none is long
    resumed = open_feed(tune_config(tiny_model, *changes), folder=tmp_path)
    assert (resumed.steps, resumed.feed.total) == (5, 18)
    longer = open_feed(tune_config(tiny_model, *changes, "epochs=4.0"), folder=tmp_path)
    assert longer.feed.total == 40


def test_a_signal_while_rows_are_taken_skips_none(tiny_model: Path, tmp_path: Path, signals: StopSignals) -> None:
    run = tune_config(tiny_model, f"rows.path={write(tmp_path / 'a.jsonl', 10)}", "steps=9", "epochs=null")
    feed = open_feed(run).feed
    at, reached = feed.stream.at, []

    def interrupted(position: int) -> Any:
        if position == 2:
            os.kill(os.getpid(), signal.SIGTERM)
        return at(position)

    def step(*_: object) -> SimpleNamespace:
        return SimpleNamespace(policy_version=1)

    feed.stream.at = interrupted
    learner = SimpleNamespace(step=step, objective=SimpleNamespace(algorithm=run.algorithm, skips_zero_advantage=False))
    ctx: Any = SimpleNamespace(
        rows=feed,
        ask=lambda rows: rows,
        signals=signals,
        learner=learner,
        record=lambda step, *_: reached.append(step),
    )
    with pytest.raises(Stop):
        take_step(run, ctx, 0)
    assert (reached, feed.position) == ([1], 4)  # the rows that a checkpoint skips are those of a step that was taken


def test_a_row_becomes_a_sample_whose_answer_alone_counts(tiny_model: Path, tmp_path: Path) -> None:
    opened = open_feed(tune_config(tiny_model, f"rows.path={write(tmp_path / 'a.jsonl', 1)}", "rows.per_step=1"))
    (planned,) = to_samples(rate(opened.feed.take(), SFT(name="sft")), SFT(name="sft"))
    sample = to_train_sample(planned, planned.body)
    counted = sample.token_ids[sample.loss_weights != 0].tolist()
    assert byte_tokenizer().decode(counted) == "0<|end|>"
    assert sample.loss_weights.sum() == pytest.approx(1.0)
    assert byte_tokenizer().decode(sample.token_ids.tolist()) == "<|user|>say 0<|end|><|assistant|>0<|end|>"


def test_rows_with_the_same_prompt_share_it(tiny_model: Path, tmp_path: Path) -> None:
    lines = [{"prompt": "say", "completion": text} for text in ("one", "two")]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    opened = open_feed(tune_config(tiny_model, f"rows.path={tmp_path / 'a.jsonl'}", "rows.per_step=2"))
    first, second = opened.feed.take()
    sizes = [record.trajectories[0].sequences[0] for record in (first, second)]
    assert sizes[0].prompt_id == sizes[1].prompt_id
    assert sizes[0].prefix_tokens == sizes[1].prefix_tokens


def test_long_rows_are_dropped_and_counted(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 9)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "say", "completion": "x" * 80}) + "\n")
    warnings: list[str] = []
    run = tune_config(tiny_model, f"rows.path={tmp_path / 'a.jsonl'}", "rows.max_dropped_share=0.1", "epochs=1.0")
    opened = open_feed(run, warnings)
    assert warnings == ["rows: 1 of 10 rows are longer than rows.max_tokens, and are dropped"]
    assert sum(len(opened.feed.take()) for _ in range(opened.steps)) == 9
    with pytest.raises(ConfigError, match=r"1 of 10 rows are longer than rows\.max_tokens=64"):
        open_feed(tune_config(tiny_model, f"rows.path={tmp_path / 'a.jsonl'}"))


def test_long_rows_that_the_start_did_not_see_end_the_run(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlframe.train.written.CHECK_S", -1.0)  # one row is looked at
    write(tmp_path / "a.jsonl", 1)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.writelines(json.dumps({"prompt": "say", "completion": "x" * 80}) + "\n" for _ in range(199))
    feed = open_feed(tune_config(tiny_model, f"rows.path={tmp_path / 'a.jsonl'}")).feed
    with pytest.raises(RunFailed, match=r"rows\.max_dropped_share: "):
        for _ in range(50):
            feed.take()


def test_long_rows_that_come_early_by_chance_do_not_end_the_run(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 990)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.writelines(json.dumps({"prompt": "say", "completion": "x" * 80}) + "\n" for _ in range(10))
    for seed in range(5):
        opened = open_feed(tune_config(tiny_model, f"rows.path={tmp_path / 'a.jsonl'}", f"seed={seed}", "epochs=1.0"))
        assert sum(len(opened.feed.take()) for _ in range(opened.steps)) == 990


def test_an_epoch_of_a_mixture_takes_each_part_by_its_weight(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 10)
    write(tmp_path / "b.jsonl", 10, "x" * 80)
    parts = [
        f"+rows.parts.a={{path:{tmp_path / 'a.jsonl'}}}",
        f"+rows.parts.b={{path:{tmp_path / 'b.jsonl'},weight:0.1}}",
    ]
    opened = open_feed(tune_config(tiny_model, *parts, "rows.max_dropped_share=0.5", "epochs=1.0"))
    assert sum(len(opened.feed.take()) for _ in range(opened.steps)) == 10


def test_held_out_rows_that_the_start_did_not_see_are_refused(
    tiny_model: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("rlframe.train.written.CHECK_S", -1.0)  # one row is looked at
    rows, heldout = write(tmp_path / "a.jsonl", 10), write(tmp_path / "b.jsonl", 1, first=5)
    feed = open_feed(tune_config(tiny_model, f"rows.path={rows}", f"rows.heldout.path={heldout}")).feed
    with pytest.raises(ConfigError, match=r"1 of 1 rows have the conversation .*: a\.jsonl:6 is b\.jsonl:1;"):
        for _ in range(3):
            feed.take()


def test_a_held_out_row_in_an_earlier_turn_that_is_trained_on_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    turns = [("user", "say 1"), ("assistant", "1"), ("user", "and?"), ("assistant", "2")]
    messages = [{"role": role, "content": content} for role, content in turns]
    (tmp_path / "a.jsonl").write_text(json.dumps({"messages": messages}))
    settings = [f"rows.path={tmp_path / 'a.jsonl'}", f"rows.heldout.path={write(tmp_path / 'b.jsonl', 3)}"]
    open_feed(tune_config(tiny_model, *settings))
    with pytest.raises(
        ConfigError, match=r"1 of 1 rows have the conversation of a held-out row: a\.jsonl:1 is b\.jsonl:2"
    ):
        open_feed(tune_config(tiny_model, *settings, "rows.turns=all"))


def test_held_out_rows_among_the_rows_are_refused_and_three_named(tiny_model: Path, tmp_path: Path) -> None:
    rows, heldout = write(tmp_path / "a.jsonl", 10), write(tmp_path / "b.jsonl", 6, first=5)
    with pytest.raises(ConfigError) as refused:
        open_feed(tune_config(tiny_model, f"rows.path={rows}", f"rows.heldout.path={heldout}"))
    assert str(refused.value) == (
        "rows: heldout: 5 of 10 rows have the conversation of a held-out row: a.jsonl:6 is b.jsonl:1, a.jsonl:7 is "
        "b.jsonl:2, a.jsonl:8 is b.jsonl:3; take them out of one of the two"
    )


def test_without_evaluations_held_out_rows_are_kept_apart_all_the_same(tiny_model: Path, tmp_path: Path) -> None:
    rows, heldout = write(tmp_path / "a.jsonl", 10), write(tmp_path / "b.jsonl", 3, first=8)
    changes = [f"rows.path={rows}", f"rows.heldout.path={heldout}", "evaluate.every=0"]
    with pytest.raises(ConfigError, match=r"^rows: heldout: 2 of 10 rows have the conversation of a held-out row: "):
        open_feed(tune_config(tiny_model, *changes))
    apart = write(tmp_path / "c.jsonl", 3, first=10)
    assert open_feed(tune_config(tiny_model, *changes, f"rows.heldout.path={apart}")).heldout == []


def test_a_weight_of_held_out_rows_is_refused(tiny_model: Path, tmp_path: Path) -> None:
    rows, heldout = write(tmp_path / "a.jsonl", 10), write(tmp_path / "b.jsonl", 3, first=10)
    part = f"+rows.heldout.parts.some={{path:{heldout},weight:0.5}}"
    with pytest.raises(ConfigError, match=r"^rows: heldout\.parts\.some\.weight: every held-out row is evaluated once"):
        open_feed(tune_config(tiny_model, f"rows.path={rows}", part))


def test_half_of_a_character_is_refused_by_its_row(tiny_model: Path, tmp_path: Path) -> None:
    file = tmp_path / "a.jsonl"
    file.write_text('{"prompt": "say", "completion": "cut \\ud83d"}\n')
    with pytest.raises(ConfigError, match=r"^rows: row a\.jsonl:1: the text has half of a character, '\\ud83d', at 4"):
        open_feed(tune_config(tiny_model, f"rows.path={file}"))


@pytest.mark.parametrize(
    ("line", "problem"),
    [
        ({"prompt": "say"}, "a.jsonl, line 1: has no answer"),
        ({"prompt": "say", "chosen": "a", "rejected": "b"}, "row a.jsonl:1 compares two answers, and algorithm=sft"),
        ({"prompt": "say", "completion": "<think></think>a"}, "row a.jsonl:1: the answer begins with an empty block"),
    ],
)
def test_a_row_that_cannot_be_imitated_is_refused(tiny_model: Path, tmp_path: Path, line: dict, problem: str) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    with pytest.raises(ConfigError) as refused:
        open_feed(tune_config(tiny_model, f"rows.path={tmp_path / 'a.jsonl'}"))
    assert problem in str(refused.value)


PAIR = {"prompt": "say", "chosen": "a", "rejected": "b"}
LABELLED = {"prompt": "say", "answer": "a", "label": 1}


@pytest.mark.parametrize(
    ("algorithm", "line", "problem"),
    [
        ("dpo", {"prompt": "say", "completion": "a"}, "shows one answer, and algorithm=dpo learns from comparisons"),
        ("dpo", LABELLED, "labels an answer, and algorithm=dpo learns from comparisons; give rows with chosen and"),
        ("bradley_terry", {"prompt": "say", "completion": "a"}, "algorithm=bradley_terry learns from comparisons"),
        ("pointwise", PAIR, "compares two answers, and algorithm=pointwise learns from assessments; give rows with an"),
    ],
)
def test_rows_of_another_lesson_are_refused(
    tiny_model: Path, tmp_path: Path, algorithm: str, line: dict, problem: str
) -> None:
    (tmp_path / "a.jsonl").write_text(json.dumps(line))
    with pytest.raises(ConfigError) as refused:
        open_feed(tune_config(tiny_model, f"rows.path={tmp_path / 'a.jsonl'}", f"algorithm={algorithm}"))
    assert problem in str(refused.value)


def test_answers_of_the_same_tokens_are_refused(tiny_model: Path, tmp_path: Path) -> None:
    opening = "{% if add_generation_prompt %}<think>\n{% endif %}"
    (tmp_path / "t.jinja").write_text("{% for message in messages %}{{ message['content'] }}{% endfor %}" + opening)
    answers = {"chosen": "x</think>a", "rejected": "<think>\nx</think>a"}
    (tmp_path / "a.jsonl").write_text(json.dumps({"prompt": "say", **answers}))
    settings = [f"rows.path={tmp_path / 'a.jsonl'}", f"rows.template.chat_template={tmp_path / 't.jinja'}"]
    with pytest.raises(ConfigError, match=r"row a\.jsonl:1: chosen and rejected have the same tokens"):
        open_feed(tune_config(tiny_model, *settings, "algorithm=dpo"))


def test_a_reference_sees_each_row_once_whatever_the_epochs(tiny_model: Path, tmp_path: Path) -> None:
    write(tmp_path / "a.jsonl", 9)
    with (tmp_path / "a.jsonl").open("a") as file:
        file.write(json.dumps({"prompt": "say", "completion": "x" * 80}) + "\n")
    settings = [f"rows.path={tmp_path / 'a.jsonl'}", "rows.max_dropped_share=0.1"]
    feed = open_feed(tune_config(tiny_model, *settings, "epochs=3.0")).feed
    names = [row.body.group.prompt.messages[0]["content"] for row in feed.every_row()]
    assert sorted(names) == [f"say {n}" for n in range(9)]
    assert feed.position == 0
    few = open_feed(tune_config(tiny_model, *settings, "epochs=null", "steps=1")).feed
    assert [row.prompt_id for row in few.every_row()] == [row.prompt_id for row in few.take()]


def test_rows_of_equal_tokens_have_equal_digests(tiny_model: Path, tmp_path: Path) -> None:
    pairs = [("a", "b"), ("a", "b"), ("b", "a")]
    lines = [{"prompt": "say", "chosen": chosen, "rejected": rejected} for chosen, rejected in pairs]
    (tmp_path / "a.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    feed = open_feed(tune_config(tiny_model, f"rows.path={tmp_path / 'a.jsonl'}", "algorithm=dpo", "epochs=1.0")).feed
    assert len({row_digest(row) for row in feed.every_row()}) == 2


def test_a_resumed_run_of_comparisons_keeps_its_rows_per_step(tiny_model: Path, tmp_path: Path) -> None:
    rows = tmp_path / "pairs.jsonl"
    pairs = [{"prompt": f"say {n}", "chosen": f"{n}", "rejected": "no"} for n in range(9)]
    rows.write_text("".join(json.dumps(pair) + "\n" for pair in pairs))
    settings = [f"rows.path={rows}", "algorithm=dpo", "steps=2", "epochs=null"]
    feed = open_feed(tune_config(tiny_model, *settings)).feed
    feed.take()
    with pytest.raises(ConfigError, match=r"rows\.per_step: 2, but the run to resume took 4, by which the reference"):
        open_feed(tune_config(tiny_model, *settings, "rows.per_step=2")).feed.restore(feed.state())
    with pytest.raises(
        ConfigError, match=r"rows\.max_tokens: 65, but the run to resume took 64, by which the reference"
    ):
        open_feed(tune_config(tiny_model, *settings, "rows.max_tokens=65")).feed.restore(feed.state())


def test_held_out_rows_with_equal_ids_keep_their_own_prompts(tiny_model: Path, tmp_path: Path) -> None:
    for folder, first in (("one", 50), ("two", 60)):
        (tmp_path / folder).mkdir()
        write(tmp_path / folder / "heldout.jsonl", 2, first=first)
    parts = [f"+rows.heldout.parts.{name}={{path: {tmp_path / name / 'heldout.jsonl'}}}" for name in ("one", "two")]
    opened = open_feed(tune_config(tiny_model, f"rows.path={write(tmp_path / 'a.jsonl', 4)}", *parts))
    assert len({record.prompt_id for record in opened.heldout}) == len(opened.heldout) == 4
