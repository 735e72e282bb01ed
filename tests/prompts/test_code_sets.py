"""Presets of code data sets: records in the sets' own shapes become prompts and tests that the code reward can use."""

import base64
import json
import pickle
import zlib
from pathlib import Path
from typing import Any

import pytest
from omegaconf import OmegaConf

from rlframe.config.compose import conf_dir
from rlframe.prompts import Jsonl
from rlframe.prompts.template import Template
from rlframe.reward import build

TESTS = [{"input": "1", "output": "2", "testtype": "stdin"}]
PACKED = base64.b64encode(zlib.compress(pickle.dumps(json.dumps(TESTS)))).decode()
RECORDS: dict[str, dict[str, Any]] = {
    "mbpp": {
        "task_id": 601, "text": "Write a function to add.", "code": "def add(a, b): ...", "test_setup_code": "",
        "test_list": ["assert add(1, 2) == 3", "assert add(0, 0) == 0"], "challenge_test_list": [],
    },
    "humaneval": {
        "task_id": "HumanEval/0", "prompt": "def add(a, b):\n    '''Adds.'''\n", "canonical_solution": "",
        "test": "def check(candidate):\n    assert candidate(1, 2) == 3\n", "entry_point": "add",
    },
    "apps": {
        "id": 0, "question": "Add one.", "solutions": "[]", "starter_code": "", "difficulty": "introductory",
        "input_output": json.dumps({"inputs": ["1\n"], "outputs": ["2\n"]}), "url": "",
    },
    "taco": {
        "question": "Add one.", "starter_code": "def add(x):\n\t", "solutions": "[]", "difficulty": "EASY",
        "input_output": json.dumps({"fn_name": "add", "inputs": [[1]], "outputs": [[2]]}),
    },
    "livecodebench": {
        "title": "A", "question_content": "Add one.", "starter_code": "", "public_test_cases": json.dumps(TESTS),
        "private_test_cases": PACKED, "metadata": "{}",
    },
}  # fmt: skip
PROMPTS = {
    "mbpp": "Write a function to add.\n\nThe program must pass these tests:\n\n```python\nassert add(1, 2) == 3\n"
    "assert add(0, 0) == 0\n```",
    "humaneval": "Complete this function:\n\n```python\ndef add(a, b):\n    '''Adds.'''\n\n```",
    "apps": "Add one.\n\n",
    "taco": "Add one.\n\ndef add(x):\n\t",
    "livecodebench": "Add one.\n\n",
}


@pytest.mark.parametrize("use", ["train", "heldout"])
@pytest.mark.parametrize("name", RECORDS)
def test_a_record_of_the_set_becomes_a_prompt_with_tests(tmp_path: Path, name: str, use: str):
    preset: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "prompts" / f"{name}.yaml"))
    file = tmp_path / "records.jsonl"
    file.write_text(json.dumps(RECORDS[name]) + "\n")
    fields = {key: value for key, value in preset[use].items() if key in Jsonl.model_fields}
    [problem] = Jsonl(**{**fields, "name": "jsonl", "path": str(file), "offset": 0}).load()
    messages = Template(**preset["template"]).messages(problem)
    assert (problem.task, messages[-1]) == ("code", {"role": "user", "content": PROMPTS[name]})
    reward: Any = OmegaConf.to_container(OmegaConf.load(conf_dir() / "reward" / "code_format.yaml"))
    build(reward["terms"]["code"]).check(problem.reference)
