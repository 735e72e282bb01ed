"""A started code reward, and its verdict on a program by a reference."""

import json
from typing import Any

from rlframe.reward import build
from rlframe.reward.code import Code
from rlframe.types import Completion, Prompt, Verdict

TERM = {
    "name": "code", "weight": 1.0, "partial": False, "min_isolation": "landlock", "case_s": 2.0, "program_s": 6.0,
    "memory_mib": 256, "output_bytes": 10_000, "max_chars": 5_000,
}  # fmt: skip


def started(**settings: Any) -> Code:
    code = build({**TERM, **settings})
    assert isinstance(code, Code)
    code.start()
    return code


def judge(code: Code, source: str, reference: Any) -> Verdict:
    """The verdict on a program, which the completion gives in a block of Python."""
    text = reference if isinstance(reference, str) else json.dumps(reference)
    prompt = Prompt(id="p", messages=[], token_ids=[], reference=text, task="code")
    answer = f"<think>so</think><answer>\n````python\n{source}\n````\n</answer>"
    return code(prompt, Completion(token_ids=[1], logprobs=[], versions=[], text=answer, finish_reason="stop"))
