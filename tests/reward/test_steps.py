"""The process reward: a score for each step, read where it was trained, and spread over the sampled tokens."""

import asyncio
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from rlframe.prompts.steps import cut
from rlframe.prompts.visible_text import VisibleText
from rlframe.reward.steps import ProcessReward, normalised
from rlframe.types import Completion, Prompt, RolloutGroup, Verdict, VersionSpan
from tests.tiny.models import byte_tokenizer, make_preference_model

PROMPT = Prompt(id="p", messages=[{"role": "user", "content": "2 + 3 + 4?"}], token_ids=[], reference="9", task="math")
TERM: dict[str, Any] = {
    "name": "steps",
    "weight": 0.0,
    "token_weight": 0.5,
    "score": "min",
    "separator": "\n\n",
    "dtype": "float32",
    "device": "cpu",
    "max_tokens": 256,
    "max_batch": 8,
    "max_batch_tokens": 1024,
    "timeout_s": 30.0,
    "mean": 0.0,
    "std": 1.0,
}
TEXTS = ["2 + 3 = 5.\n\nÜ: 5 + 4 = 9.", "9", "x" * 300]  # two steps, one, and too long to be scored


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_preference_model(tmp_path_factory.mktemp("process"))


def completion(text: str) -> Completion:
    """The text byte by byte, then the end token."""
    tokenizer = byte_tokenizer()
    token_ids = np.array([*tokenizer.encode(text, add_special_tokens=False), tokenizer.eos_token_id], np.int32)
    spans = [VersionSpan(version=0, start=0, end=len(token_ids))]
    logprobs = np.full(len(token_ids), -1.0, np.float32)
    return Completion(token_ids=token_ids, logprobs=logprobs, versions=spans, text=text, finish_reason="stop")


def output_at_the_end(folder: Path, text: str, *, ended: bool) -> float:
    """The model's output at the last token of a conversation, by transformers alone; without its end token if open."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()
    conversation = [*PROMPT.messages, {"role": "assistant", "content": text}]
    token_ids: Any = tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=False)
    with torch.inference_mode():
        return model(token_ids if ended else token_ids[:, :-1]).logits.item()


@pytest.fixture(scope="module")
def verdicts(folder: Path) -> list[Verdict]:
    reward = ProcessReward(**TERM, path=str(folder), tokenizer=str(folder))
    reward.start()
    group = RolloutGroup.single_turn(PROMPT, [completion(text) for text in TEXTS])
    found = asyncio.run(reward.score_group(group, {}))
    reward.close()
    return [verdict for verdict in found if isinstance(verdict, Verdict)]


def test_a_step_s_score_is_the_output_at_its_last_token(verdicts: list[Verdict], folder: Path) -> None:
    first, second = (
        output_at_the_end(folder, "2 + 3 = 5.\n\n", ended=False),
        output_at_the_end(folder, TEXTS[0], ended=True),
    )
    alone = output_at_the_end(folder, "9", ended=True)
    assert [verdict.score for verdict in verdicts[:2]] == pytest.approx([min(first, second), alone], abs=1e-4)
    scores = np.array([first, second, alone])
    gains = 0.5 * (scores - scores.mean()) / scores.std()
    rewards = verdicts[0].token_rewards
    assert rewards is not None and len(rewards) == 12 + len("Ü: 5 + 4 = 9.".encode()) + 1
    assert rewards[:12].tolist() == pytest.approx([gains[0] + gains[1]] * 12, abs=1e-3)
    assert rewards[12:].tolist() == pytest.approx([gains[1]] * (len(rewards) - 12), abs=1e-3)


def test_a_completion_that_is_too_long_fails_alone(verdicts: list[Verdict]) -> None:
    assert (verdicts[2].status, verdicts[2].score, verdicts[2].token_rewards) == ("failed", None, None)
    assert "more than max_tokens=256" in verdicts[2].detail
    assert verdicts[2].final  # three attempts would compute all of the group's steps three times


def test_scores_are_normalised_over_the_steps_of_the_group() -> None:
    rows = list(normalised([np.array([1.0, 0.0]), np.array([2.0])]))  # the docstring's
    assert rows[0].tolist() == pytest.approx([0, -1.2247], abs=1e-3) and rows[1].tolist() == pytest.approx(
        [1.2247], abs=1e-3
    )


@pytest.mark.parametrize("text", ["", "\n\n", "a", "a\n\n", "\n\na\n\n \n\nb\n\nc", "a\n\n\n\n\n"])
def test_steps_join_to_the_text_and_none_is_white_space_alone(text: str) -> None:
    steps, _ = cut(text, completion(text).token_ids.tolist(), "\n\n", VisibleText(byte_tokenizer()).of)
    assert "".join(steps) == text
    assert len(steps) == 1 or all(step.strip() for step in steps)


def test_steps_are_those_that_a_draw_labels(folder: Path) -> None:
    """A run of separators ends a step, and the first token that is scored is its last."""
    reward = ProcessReward(**TERM | {"separator": r"\n"}, path=str(folder), tokenizer=str(folder))
    reward._visible_text = VisibleText(byte_tokenizer())
    assert reward.separator == "\n"
    assert reward._steps(completion("a\n\nÜ\n\n\nb")) == (["a\n\n", "Ü\n\n\n", "b"], [3, 8, 10])
