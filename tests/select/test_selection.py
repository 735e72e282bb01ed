"""Selections of folders of completions: rows, and counts that add up."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest

from rlframe.cli import select
from rlframe.rows.files import read_rows
from rlframe.rows.types import Comparison, Demonstration
from rlframe.select import selection
from rlframe.select.heldout import HeldOut
from rlframe.select.items import inputs_of
from tests.tiny.drawn import drawn, write_part

Selected = Callable[..., tuple[list[dict], dict]]


def test_every_line_has_one_reason(selected: Selected) -> None:
    rows, counts = selected()
    assert counts["dropped"] == {"duplicate": 1, "cut off": 1, "empty": 1}
    assert (counts["read"], counts["kept"]) == (7, 4)
    assert [row["answer"] for row in rows] == ["It is 5.", "Well, it is 5.", "It is 6.", "It is 8."]
    assert rows[0]["source"].endswith("part_000000.jsonl.gz:1")


def test_exact_duplicates_differ_in_white_space(selected: Selected) -> None:
    assert selected("duplicates=exact")[1]["dropped"] == {"cut off": 1, "empty": 1}


def test_a_right_answer_is_no_duplicate_of_a_wrong_one(selected: Selected, folder: Path) -> None:
    wrong = [drawn("Q?", f"<answer>{text}</answer>", reward=0.0, tokens=5) for text in ("1 2", "102", "x\n y")]
    right = [drawn("Q?", f"<answer>{text}</answer>", reward=1.0, tokens=9) for text in ("12", "10\u00b2", "x y")]
    write_part(folder / "part_000000.jsonl.gz", wrong + right)
    (folder / "part_000001.jsonl.gz").unlink()
    rows, counts = selected("select=best", "select.per_prompt=3", "duplicates=normalised")
    assert [row["answer"][8:-9] for row in rows] == ["12", "10\u00b2", "x y"]
    assert counts["dropped"] == {"not chosen": 3}


def test_best_takes_nothing_that_has_no_verdict(selected: Selected, folder: Path) -> None:
    lines = [drawn(f"Q{n}?", str(reward), reward=reward, tokens=3) for n, reward in ((1, None), (2, None), (2, -1.0))]
    write_part(folder / "part_000000.jsonl.gz", lines)
    (folder / "part_000001.jsonl.gz").unlink()
    rows, counts = selected("select=best", "select.per_prompt=2")
    assert [row["answer"] for row in rows] == ["-1.0"] and counts["dropped"] == {"no verdict": 2}
    assert selected("select=all")[1]["kept"] == 3


def test_a_file_that_appears_between_the_passes_shifts_no_row(folder: Path, tmp_path: Path) -> None:
    (tmp_path / "other").mkdir()
    for number, source in enumerate((folder, tmp_path / "other")):
        write_part(source / "part_000000.jsonl.gz", [drawn(f"Q{number}?", "12", reward=float(number), tokens=3)] * 2)
    (folder / "part_000001.jsonl.gz").unlink()
    config = select._config([str(folder), str(tmp_path / "other"), "out=rows.jsonl", "keep.reward=[1.0,null]"])
    assert config is not None
    inputs = inputs_of(config.sources)
    decisions = selection.decide(config, inputs, HeldOut([], 10, values=False))
    write_part(folder / "part_000001.jsonl.gz", [drawn("Q2?", "5", reward=0.0, tokens=3)])
    [row] = selection.rows(config, inputs, decisions, lambda _: None)
    assert row.messages[0]["content"] == "Q1?"
    write_part(folder / "part_000000.jsonl.gz", [drawn("Q2?", "5", reward=0.0, tokens=3)])
    with pytest.raises(
        ValueError, match=r"part_000000\.jsonl\.gz has changed while it was read; select once its writer"
    ):
        list(selection.rows(config, inputs, decisions, lambda _: None))


def test_a_held_out_question_of_an_earlier_turn_drops_a_row(selected: Selected, folder: Path) -> None:
    turns = ["What is 12 + 16?", "28", "Sure?", "Yes, 28."]
    messages = [{"role": ("user", "assistant")[n % 2], "content": text} for n, text in enumerate(turns)]
    (folder.parent / "written.jsonl").write_text(json.dumps({"messages": messages}) + "\n")
    (folder.parent / "held.jsonl").write_text('{"question": "What is 12 + 16?"}\n')
    line = drawn("Sure?", "Yes.", reward=1.0, tokens=3)  # behind a worked example
    write_part(folder / "part_000000.jsonl.gz", [line | {"messages": messages[:2] + line["messages"]}])
    (folder / "part_000001.jsonl.gz").unlink()
    sources = [folder, folder.parent / "written.jsonl"]
    rows, counts = selected(f"heldout.files=[{folder.parent / 'held.jsonl'}]", sources=sources)
    assert counts["dropped"] == {"held out": 1} and [row["answer"] for row in rows] == ["Yes."]


def test_right_completions_by_reward_or_by_verdict(selected: Selected) -> None:
    by_reward, counts = selected("keep.reward=[1.0,null]")
    assert counts["dropped"] == {"reward": 1, "duplicate": 1, "cut off": 1, "no verdict": 1}
    by_verdict, counts = selected("+keep.verdicts.math={score: [1.0, null]}")
    assert by_verdict == by_reward
    assert counts["dropped"]["verdict math"] == 1
    _, counts = selected("+keep.verdicts.math={status: [scored]}")
    assert counts["dropped"]["verdict math"] == 1


def test_lengths_are_counted_in_tokens(selected: Selected) -> None:
    rows, counts = selected("keep.tokens=[11,29]")
    assert [row["answer"] for row in rows] == ["It is 5.", "It is 8."]
    assert (counts["dropped"]["too short"], counts["dropped"]["too long"]) == (1, 1)


def test_a_reward_is_no_verdict_on_completions_of_other_tasks(selected: Selected, folder: Path) -> None:
    code = [drawn("Add.", f"{n}", reward=1.0, tokens=n, grades={"code": 1.0}) | {"task": "code"} for n in (1, 2)]
    write_part(folder / "part_000000.jsonl.gz", [*code, drawn("What is 1 + 1?", "2", reward=1.0, tokens=3)])
    (folder / "part_000001.jsonl.gz").unlink()
    assert selected("right.verdict=math")[1]["kept"] == 3  # all: right decides nothing
    assert selected("right.verdict=math", "select=shortest")[1]["dropped"] == {"not right": 2}
    assert selected("right.verdict=math", "keep.pass_rate=[1.0,1.0]")[1]["dropped"] == {"pass rate": 2}
    assert selected("+keep.verdicts.math={score: [1.0, null]}")[1]["dropped"] == {"no verdict": 2}
    assert selected("+keep.verdicts.math={status: [scored]}")[1]["dropped"] == {"no verdict": 2}
    rows, counts = selected("+keep.verdicts.math={score: [1.0, null]}", "right.verdict=math", "keep.tasks=[math]")
    assert [row["answer"] for row in rows] == ["2"] and counts["dropped"] == {"other task": 2}


def test_grades_of_other_tasks_make_no_pair(selected: Selected, folder: Path) -> None:
    lines = [drawn("Hi.", str(n), reward=n, tokens=9, grades={"judge": float(n)}) for n in (1, 5)]
    other = [drawn("Add.", str(n), reward=n, tokens=9, grades={"code": float(n)}) | {"task": "code"} for n in (1, 5)]
    write_part(folder / "part_000000.jsonl.gz", [*other, *lines])
    (folder / "part_000001.jsonl.gz").unlink()
    rows, counts = selected("select=grades", "select.verdicts=[judge]")
    assert [row["chosen"] for row in rows] == ["5"] and counts["dropped"] == {"no partner": 2}


def test_pass_rates_count_a_prompts_completions_of_all_parts(selected: Selected, folder: Path) -> None:
    write_part(folder / "part_000002.jsonl.gz", [drawn("What is 2 + 3?", "4", reward=0.0, tokens=1)])
    rows, counts = selected("keep.pass_rate=[0.5,0.5]")  # 2 of 4 and 2 of 3 are right
    assert {row["messages"][0]["content"] for row in rows} == {"What is 2 + 3?"}
    assert (counts["kept"], counts["dropped"]["pass rate"]) == (4, 1)


def test_a_prompt_is_one_across_files(selected: Selected) -> None:
    rows, counts = selected("select=shortest", "duplicates=none")
    assert [row["answer"] for row in rows] == ["It is 5.", "it is  8."]  # of 12 and 11 tokens
    assert counts["dropped"] == {"not chosen": 2, "not right": 1, "cut off": 1, "empty": 1}


def test_pairs_read_as_comparisons(selected: Selected, folder: Path) -> None:
    rows, counts = selected("select=pairs", "select.per_prompt=null")
    assert [(row["chosen"], row["rejected"]) for row in rows] == [
        ("It is 5.", "Well, it is 5."),
        ("It is 5.", "It is 6."),
    ]
    assert counts["dropped"] == {"no partner": 1, "duplicate": 1, "cut off": 1, "empty": 1}
    assert all(isinstance(row, Comparison) for row in read_rows(folder.parent / "rows.jsonl"))


def test_halves_of_a_pair_may_be_in_different_files(selected: Selected, folder: Path) -> None:
    wrong = [drawn("What is 4 + 4?", str(number), reward=0.0, tokens=3) for number in range(3)]
    write_part(folder / "part_000002.jsonl.gz", [*wrong, drawn("What is 4 + 4?", "9", reward=None, tokens=3)])
    rows, counts = selected("select=pairs", "select.per_prompt=2", "duplicates=none")
    pairs = [(row["chosen"], row["rejected"]) for row in rows if "4 + 4" in row["messages"][0]["content"]]
    assert pairs == [("it is  8.", "0"), ("it is  8.", "1")]
    assert len({row["id"] for row in rows}) == len(rows) == 4
    assert counts["dropped"] == {"no partner": 3, "cut off": 1, "empty": 1}


def test_graded_pairs_have_their_margin(selected: Selected, folder: Path) -> None:
    texts = [("Fine.", 4.0, 3.5), ("Good.", 9.0, 8.0), ("Bad.", 2.0, 9.0), ("Hm.", None, 1.0)]
    lines = [
        drawn("Say hello.", text, reward=grade, tokens=10, grades={"judge": grade, "swapped": other})
        for text, grade, other in texts
    ]
    write_part(folder / "part_000000.jsonl.gz", lines)
    (folder / "part_000001.jsonl.gz").unlink()
    rows, counts = selected("select=grades", "select.verdicts=[judge,swapped]", "select.delta=2.0")
    assert [(row["chosen"], row["rejected"], row["margin"]) for row in rows] == [("Good.", "Fine.", 4.75)]
    assert counts["dropped"] == {"no partner": 2}


def test_held_out_questions_are_dropped_and_named(selected: Selected, folder: Path) -> None:
    held = folder.parent / "held.jsonl"
    held.write_text('{"question": "What is 2 + 3?"}\n')
    rows, counts = selected(f"heldout.files=[{held}]")
    assert {row["messages"][0]["content"] for row in rows} == {"What is 4 + 4?"}
    assert counts["dropped"]["held out"] == 3
    assert counts["held_out"][0].endswith("part_000000.jsonl.gz:1")


def test_held_out_problems_of_prompts_are_dropped_by_value(selected: Selected, folder: Path) -> None:
    lines = [drawn(f"Combien font {n} + 1 ?", str(n + 1), reward=1.0, tokens=3) for n in range(100)]
    write_part(folder / "part_000002.jsonl.gz", lines)
    _, wording = selected("prompts=arithmetic")
    _, values = selected("prompts=arithmetic", "heldout.values=true")
    assert "held out" not in wording["dropped"]
    assert values["dropped"]["held out"] > 0


def test_held_out_problems_are_found_in_the_words_of_the_template(selected: Selected, folder: Path) -> None:
    held = folder.parent / "held.jsonl"
    held.write_text("".join(f'{{"question": "What is {n} + 3?", "answer": "#### {n + 3}"}}\n' for n in (2, 7)))
    words = "{} Answer with a number, and with nothing else before or behind it."
    lines = [drawn(words.format(f"What is {n} + 3?"), "5", reward=1.0, tokens=3) for n in (2, 9, 7)]
    write_part(folder / "part_000000.jsonl.gz", lines)
    user = f"prompts.template.user='{words.format('{question}')}'"
    rows, counts = selected("prompts=jsonl", f"prompts.heldout.path={held}", user)
    assert [row["messages"][0]["content"][:11] for row in rows] == ["What is 9 +", "What is 4 +"]
    assert counts["dropped"]["held out"] == 2


def test_thoughts_in_another_language_are_dropped(selected: Selected, folder: Path) -> None:
    texts = ["<think>Three plus four is seven.</think>7", "<think>Trois plus quatre font sept.</think>7"]
    lines = [drawn("Combien font 3 + 4 ?", text, reward=1.0, tokens=9) for text in texts]
    write_part(folder / "part_000000.jsonl.gz", lines)
    rows, _ = selected("keep.language=prompt", "keep.reward=[1.0,null]")
    assert [row["answer"] for row in rows if "Combien" in row["messages"][0]["content"]] == texts[1:]


def test_written_rows_stay_beside_completions(selected: Selected, folder: Path) -> None:
    general = folder.parent / "general.jsonl"
    general.write_text(
        '{"prompt": "Say hello.", "completion": "Hello!", "id": "g1", "task": "general"}\n'
        '{"prompt": "Say hello.", "completion": "hello!", "id": "g2"}\n'
    )
    rows, counts = selected("keep.reward=[1.0,null]", "select=best", sources=[folder, general])
    assert [row["id"] for row in rows if row["task"] == "general"] == ["g1"]
    assert counts["sources"][str(general)] == {"kept": 1, "duplicate": 1}
    assert counts["sources"][str(folder)]["kept"] == 2


def test_a_written_row_may_say_its_turns(selected: Selected, folder: Path) -> None:
    general = folder.parent / "general.jsonl"
    texts = [{"role": "user", "content": "Say hello."}, {"role": "assistant", "content": "Hello!"}]
    general.write_text("".join(json.dumps({"messages": texts, "turns": turns}) + "\n" for turns in (1, texts)))
    rows, _ = selected("duplicates=none", sources=[general])
    assert [row["answer"] for row in rows] == ["Hello!"] * 2


def test_drawn_tokens_are_kept_with_their_tokenizer(selected: Selected, folder: Path, tiny_model: Path) -> None:
    rows, _ = selected(f"tokenizer={tiny_model}", "select=shortest")
    assert rows[0]["token_ids"] == list(range(100, 120))
    assert len(rows[0]["tokenizer"]) == 16
    (folder / "config.yaml").write_text(f"model: {{path: {tiny_model}}}\n")
    assert selected("select=shortest")[0] == rows
    (folder / "config.yaml").unlink()
    assert "token_ids" not in selected("select=shortest")[0][0]


def test_a_reward_that_is_no_number_is_no_verdict(selected: Selected, folder: Path) -> None:
    write_part(folder / "part_000003.jsonl.gz", [drawn("Say it.", "It.", reward=float("nan"), tokens=2)])
    rows, counts = selected("select=best", "keep.reward=[0.0,null]")
    assert len(rows) == 2
    assert counts["dropped"]["no verdict"] == 2


def test_a_lone_surrogate_survives(selected: Selected, folder: Path) -> None:
    write_part(folder / "part_000003.jsonl.gz", [drawn("Say it.", "„\ud800“", reward=1.0, tokens=2)])
    assert selected()[0][-1]["answer"] == "„\ud800“"


def test_a_row_can_have_the_question_alone(selected: Selected, folder: Path) -> None:
    line = drawn("What is 1 + 1?", "2", reward=1.0, tokens=2)
    line["messages"] = [{"role": "system", "content": "Add."}, *line["messages"]]
    write_part(folder / "part_000003.jsonl.gz", [line])
    assert len(selected()[0][-1]["messages"]) == 2
    assert selected("question_only=true")[0][-1]["messages"] == [{"role": "user", "content": "What is 1 + 1?"}]


def test_equal_inputs_give_equal_bytes(selected: Selected, folder: Path) -> None:
    files = []
    for _ in range(2):
        selected("select=random", "select.seed=3")
        files.append([(folder.parent / name).read_bytes() for name in ("rows.jsonl", "rows.counts.json")])
    assert files[0] == files[1]


def test_what_is_written_is_read_as_demonstrations(selected: Selected, folder: Path) -> None:
    selected()
    rows = list(read_rows(folder.parent / "rows.jsonl"))
    assert [type(row) for row in rows] == [Demonstration] * 4


def test_the_counts_hold_the_settings(selected: Selected) -> None:
    assert json.loads(json.dumps(selected("select=best")[1]))["settings"]["select"] == {"name": "best", "per_prompt": 1}
