"""Draws that cannot work, and what a draw takes over from the config of a training run."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

from rlframe.cli.draw import load
from rlframe.config.draw import EndpointRun
from rlframe.errors import ConfigError
from rlframe.reward import BUILTIN
from rlframe.train.evaluate import sampling_of
from rlframe.types import Sampling
from tests.conftest import compose_unchecked

ENDPOINT = ["draw.endpoint.base_url=http://127.0.0.1:9/v1", "draw.endpoint.model=big"]


def drawn(*overrides: str):
    return load(compose_unchecked(["draw.dir=draws/first", *overrides], "draw"))


def test_a_draw_samples_by_its_own_keys_and_ignores_training(model_folder: Path):
    training = ["learner.micro_batch_tokens=1", "rollout.temperature=0.0", "rollout.stop=['</answer>']"]
    run = drawn(f"model.path={model_folder}", *training, "draw.max_tokens=512", "draw.top_p=0.9")
    assert sampling_of(run.draw, run) == Sampling(
        completions=8, max_tokens=512, temperature=1.0, seed=0, top_p=0.9, stop=["</answer>"]
    )
    assert (run.run_dir, run.max_model_len, run.deciding_reward) == ("draws/first", 128 + 512, "math")


def test_prompts_without_held_out_ones_hold_nothing_out(model_folder: Path):
    run = drawn(f"model.path={model_folder}", "prompts=jsonl", "prompts.train.path=train.jsonl")
    assert run.prompts.heldout == run.prompts.train


def test_a_held_out_set_without_a_key_is_not_replaced(model_folder: Path):
    """prompts=mixture with the path of one held-out part, and prompts=jsonl with the size of its held-out problems."""
    train = ["prompts=mixture", "prompts.train.parts.math.path=math.jsonl", "prompts.train.parts.code.path=code.jsonl"]
    with pytest.raises(ConfigError, match=r"^prompts\.heldout\.parts\.code\.path: has no value"):
        drawn(f"model.path={model_folder}", *train, "prompts.heldout.parts.math.path=heldout.jsonl")
    with pytest.raises(ConfigError, match=r"^prompts\.heldout\.path: has no value"):
        drawn(f"model.path={model_folder}", "prompts=jsonl", "prompts.train.path=a.jsonl", "prompts.heldout.size=9")
    run = drawn(f"model.path={model_folder}", *train)
    assert run.prompts.heldout == run.prompts.train


def test_rewards_that_read_tokens_say_so(tmp_path: Path):
    """Those of rlframe read token_ids in their code; one of a user's own sets the class variable alone."""
    readers = {name for name, kind in BUILTIN.items() if "token_ids" in Path(inspect.getfile(kind)).read_text()}
    assert {name for name, kind in BUILTIN.items() if kind.reads_tokens} == readers - {"model"}  # tokenizes the text
    own = tmp_path / "mine.py"
    own.write_text(
        "from rlframe.reward import Reward\nclass Short(Reward):\n    reads_tokens = True\n"
        "    def __call__(self, prompt, completion):\n        return float(len(completion.token_ids) < 9)\n"
    )
    with pytest.raises(ConfigError, match=r"short: .*mine\.py:Short reads token ids.*~reward\.terms\.short\)"):
        drawn(*ENDPOINT, f"+reward.terms.short={{name: '{own}:Short', weight: 1.0}}")


def test_settings_that_decide_nothing_may_change(model_folder: Path):
    model = f"model.path={model_folder}"
    faster = drawn(model, "rollout.max_concurrent=7", "draw.max_given_up=0.5", "draw.endpoint.timeout_s=1.0", "steps=3")
    assert faster.deciding_settings() == drawn(model).deciding_settings()
    assert drawn(model, "seed=1").deciding_settings() != drawn(model).deciding_settings()
    moved = drawn("draw.endpoint.base_url=http://other:9/v1", ENDPOINT[1])
    old = drawn(model).deciding_settings()["draw"]
    assert old["continue_from"] is None and not {"separator", "labels"} & old.keys()  # as in folders drawn earlier
    steps = [drawn(model, "draw.continue_from=first", rf"draw.separator={text}") for text in (".", r"\n")]
    assert [run.deciding_settings()["draw"]["separator"] for run in steps] == [".", "\n"]
    assert moved.deciding_settings() == drawn(*ENDPOINT).deciding_settings() and isinstance(moved, EndpointRun)


@pytest.mark.parametrize(
    ("overrides", "message"),
    [
        (
            ["model.path=MODEL", "draw.temperature=0.0"],
            "draw.samples: at temperature 0 all 8 completions of a prompt are the same",
        ),
        (["model.path=MODEL", "draw.reward=maths"], "draw.reward: 'maths' is none of the rewards math, format"),
        (
            ["model.path=MODEL", "draw.max_tokens=9999"],
            "draw.max_tokens: prompts.max_tokens=128 + draw.max_tokens=9999 = 10127 tokens",
        ),
        ([], "model.path: has no value"),
        (ENDPOINT[:1], "draw.endpoint.model: has no value"),
        (["model.path=MODEL", *ENDPOINT], "and draw.endpoint are two models; leave model.path out"),
        ([*ENDPOINT, "prompts.template.raw=true"], "prompts.template.raw: an endpoint gets messages"),
        ([*ENDPOINT, "draw.stop_token_ids=[1]"], "draw.stop_token_ids: an endpoint gets texts"),
        (
            [*ENDPOINT, "reward=judge"],
            "reward.terms.overlong: soft_overlong reads token ids, and an endpoint's completions have none, so its "
            "score would be wrong; leave it out (~reward.terms.overlong ~reward.terms.repetition)",
        ),
        (["model.path=MODEL", "run_dir=runs/a"], "run_dir: runs/a is another folder than draw.dir=draws/first"),
        ([*ENDPOINT, "draw.continue_from=first"], "draw.continue_from: an endpoint gets messages, and cannot go on"),
    ],
)
def test_what_cannot_work_is_refused(model_folder: Path, overrides: list[str], message: str):
    with pytest.raises(ConfigError, match=re.escape(message)):
        drawn(*[each.replace("=MODEL", f"={model_folder}") for each in overrides])
