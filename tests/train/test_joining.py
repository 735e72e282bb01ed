"""The imports of the driver during the wait for Ray."""

import sys
import threading

import pytest

from rlframe.train.joining import transformers_meanwhile


def test_the_import_has_ended_with_the_wait_also_after_an_error():
    with pytest.raises(ArithmeticError), transformers_meanwhile():
        raise ArithmeticError
    assert "import transformers" not in [thread.name for thread in threading.enumerate()]
    assert {
        "transformers.models.auto.modeling_auto",
        "transformers.models.auto.tokenization_auto",
    } <= sys.modules.keys()
