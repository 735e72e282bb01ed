"""The tokens that a reward model reads, and those at which it has a score."""

from __future__ import annotations

from pathlib import Path

import pytest

from rlframe.model.classifier import Classifier
from rlframe.prompts.template import ChatTemplate
from rlframe.rows.scoring import ScoreEncoder
from rlframe.rows.types import Assessment, Comparison, Row
from rlframe.types import Trajectory
from tests.tiny.models import byte_tokenizer, make_preference_model
from tests.tiny.templates import R1_DISTILL, SMOLLM2

ASK = [{"role": "user", "content": "q"}]
SHARED = {"id": "r", "messages": ASK, "task": "t", "source": "r"}
PAIR = Comparison(chosen="yes", rejected="yeah", margin=None, **SHARED)
STEPS = Assessment(steps=["a.\n", "b.", "\nc."], labels=[1.0, 1.0, 0.0], **SHARED)
TOKENIZER = byte_tokenizer()
END, PAD = TOKENIZER.eos_token_id, TOKENIZER.pad_token_id


def encode(row: Row, padding_id: int, template: str | None = None) -> list[Trajectory]:
    chat_template = ChatTemplate(chat_template=template, chat_template_kwargs=None, raw=False)
    return ScoreEncoder(TOKENIZER, chat_template, padding_id).trajectories(row)


def parts(trajectory: Trajectory) -> list[str]:
    """Observed and scored tokens in turns; a score's token is in brackets."""
    turns = trajectory.turns
    texts = [(TOKENIZER.decode(turn.observed), TOKENIZER.decode(turn.completion.token_ids)) for turn in turns]
    return [observed + (f"[{token}]" if token else "") for observed, token in texts]


def test_the_last_token_has_the_score_and_answers_share_the_prompt():
    assert [parts(one) for one in encode(PAIR, PAD)] == [
        ["<|user|>q<|end|><|assistant|>", "yes[<|end|>]"],
        ["<|user|>q<|end|><|assistant|>", "yeah[<|end|>]"],
    ]


def test_where_the_end_token_pads_the_token_before_it_has_the_score():
    assert [parts(one)[1] for one in encode(PAIR, END)] == ["ye[s]", "yea[h]"]
    assert [parts(one)[1] for one in encode(PAIR, END, SMOLLM2 + "{{ '\\n' }}")] == [
        "yes<|end|>[\n]",
        "yeah<|end|>[\n]",
    ]


def test_each_step_ends_at_the_token_before_the_next():
    assert parts(encode(STEPS, PAD)[0])[1:] == ["a.[\n]", "b[.]", "\nc.[<|end|>]"]


def test_steps_that_a_template_leaves_out_are_refused():
    steps = Assessment(steps=["add</think>", "5"], labels=[1.0, 1.0], **SHARED)
    with pytest.raises(ValueError, match="row r: no token of the conversation ends step 1, because the chat template"):
        encode(steps, PAD, R1_DISTILL)


@pytest.mark.parametrize("padding_id", [END, PAD])
def test_the_tokens_are_those_that_the_reward_s_worker_scores(tmp_path: Path, padding_id: int) -> None:
    classifier = Classifier(str(make_preference_model(tmp_path)), "float32", "cpu", 512)
    for trajectory, answer in zip(encode(PAIR, padding_id), (PAIR.chosen, PAIR.rejected), strict=True):
        token_ids = [token for turn in trajectory.turns for token in [*turn.observed, *turn.completion.token_ids]]
        read, length = classifier.tokenize(ASK, answer)
        assert read[: len(token_ids)] == token_ids
        assert read == classifier.tokenizer.apply_chat_template(
            [*ASK, {"role": "assistant", "content": answer}], return_dict=False
        )
        assert set(read[len(token_ids) :]) <= {padding_id} and length == len(read)
