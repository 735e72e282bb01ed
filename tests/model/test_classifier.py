"""The sequence classifier: tokens of a conversation, and scores that do not depend on padding."""

from pathlib import Path

import pytest

from rlframe.model.classifier import Classifier
from tests.tiny.models import make_preference_model

MESSAGES = [{"role": "user", "content": "2 + 3?"}]


@pytest.fixture(scope="module")
def classifier(tmp_path_factory: pytest.TempPathFactory) -> Classifier:
    folder: Path = make_preference_model(tmp_path_factory.mktemp("classifier"))
    return Classifier(str(folder), "float32", "cpu", max_tokens=64)


def test_a_long_conversation_keeps_its_first_and_its_last_tokens(classifier: Classifier):
    token_ids, length = classifier.tokenize(MESSAGES, "x" * 500)
    assert length == 1 + len("2 + 3?") + 1 + 1 + 500 + 1  # role, bytes, end; role, bytes, end
    tokens = classifier.tokenizer.convert_ids_to_tokens(token_ids)
    assert tokens == ["<|user|>", *["x"] * 62, "<|end|>"]


def test_padding_does_not_change_a_score(classifier: Classifier):
    short, long = [1, 2, 3], list(range(1, 40))
    apart = classifier.forward([short]) + classifier.forward([long])
    assert classifier.forward([short, long]) == pytest.approx(apart, abs=1e-5)
