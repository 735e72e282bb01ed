"""A config picks a source by its name."""

import pytest
from pydantic import ValidationError

from rlframe.prompts import AnySource, Arithmetic
from rlframe.schema import Config


class Prompts(Config):
    source: AnySource


SUMS = {"name": "arithmetic", "terms": 2, "below": 10, "seed": 1, "offset": 0, "size": 5}


def test_a_name_picks_a_source_and_a_dump_keeps_its_fields():
    prompts = Prompts.model_validate({"source": SUMS})
    assert isinstance(prompts.source, Arithmetic)
    assert prompts.model_dump() == {"source": SUMS}


def test_an_unknown_name_is_refused_with_the_known_names():
    with pytest.raises(
        ValidationError, match="'sums' is none of arithmetic, hub, jsonl, mixture, parquet, reasoning_gym"
    ):
        Prompts.model_validate({"source": SUMS | {"name": "sums"}})


def test_an_unknown_key_is_named_with_its_path():
    with pytest.raises(ValidationError, match=r"source\.skip"):
        Prompts.model_validate({"source": SUMS | {"skip": 1}})


def test_an_import_path_picks_a_users_source(tmp_path):
    (tmp_path / "squares.py").write_text(
        "from rlframe.prompts.base import Source\n"
        "from rlframe.types import Problem\n"
        "class Squares(Source):\n"
        "    size: int\n"
        "    def load(self):\n"
        "        ask = lambda n: [{'role': 'user', 'content': f'{n} squared?'}]\n"
        "        return [Problem(id=f'{n}', messages=ask(n), reference=str(n * n), task='math')\n"
        "                for n in range(self.size)]\n"
    )
    config = {"name": f"{tmp_path}/squares.py:Squares", "size": 4}
    prompts = Prompts.model_validate({"source": config})
    assert prompts.source.load()[3].reference == "9"
    assert prompts.model_dump() == {"source": config}
