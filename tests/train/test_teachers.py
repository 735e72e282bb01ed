"""A teacher with another tokenizer is refused, by the first difference."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer, PreTrainedTokenizerFast

from rlframe.errors import ConfigError
from rlframe.rollout.teacher_config import TeacherConfig
from rlframe.train.teachers import PROMPTS, TEXTS, check_teachers, difference, variants
from rlframe.types import Prompt
from tests.tiny.models import byte_tokenizer

ALL = list(variants())


def test_200_texts_are_compared_whatever_the_prompts() -> None:
    assert len(set(ALL)) >= TEXTS > PROMPTS


def test_a_tokenizer_is_like_itself() -> None:
    assert difference(byte_tokenizer(), byte_tokenizer(), ALL) == ""


def test_an_added_token_with_another_id_is_named() -> None:
    other = byte_tokenizer()
    other.add_special_tokens({"additional_special_tokens": ["<|tool|>"]})
    assert (
        difference(byte_tokenizer(), other, ALL)
        == "the id of '<|tool|>' is None for the student and 261 for the teacher"
    )


def test_the_first_token_that_differs_is_named(tmp_path: Path) -> None:
    settings = json.loads(byte_tokenizer().backend_tokenizer.to_str())
    settings["model"]["vocab"]["qu"] = settings["model"]["vocab"].pop("ÿ")  # one pair of letters is a token
    settings["model"]["merges"] = [["q", "u"]]
    merged = PreTrainedTokenizerFast(tokenizer_object=Tokenizer.from_str(json.dumps(settings)))
    found = difference(byte_tokenizer(), merged, ALL)
    assert found.startswith("token 4 of 'The quick brown fox") and "['q'] for the student" in found
    assert "['qu'] for the teacher" in found


class OnePrompt:
    """A stream of a single prompt."""

    def __len__(self) -> int:
        return 1

    def at(self, position: int) -> Prompt:
        return Prompt(id="p", messages=[], token_ids=[40, 41], reference="", task="math")


def test_a_teacher_that_knows_fewer_ids_is_refused_with_the_way_out(tiny_model: Path, tmp_path: Path) -> None:
    AutoTokenizer.from_pretrained(tiny_model).save_pretrained(tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"model_type": "llama", "vocab_size": 256}))
    teacher = TeacherConfig.model_construct(path=str(tmp_path), weight=1.0, engines=1)
    with pytest.raises(
        ConfigError, match="it knows 256 ids, and the student's tokenizer has the id 260; let this"
    ) as error:
        check_teachers({"big": teacher}, AutoTokenizer.from_pretrained(tiny_model), OnePrompt())  # type: ignore
    assert "rlframe draw" in str(error.value) and "rlframe tune" in str(error.value)
