"""Lines of rollout files, as `rlframe draw` and training runs write them."""

from __future__ import annotations

import gzip
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any


def drawn(
    question: str,
    text: str,
    *,
    reward: float | None,
    tokens: int | list[int],
    finish_reason: str = "stop",
    grades: dict[str, float | None] | None = None,
) -> dict[str, Any]:
    """A completion of `tokens` tokens, or of these, with a verdict `math` equal to its reward, or with these grades."""
    scores = {"math": reward} if grades is None else grades
    token_ids = list(range(100, 100 + tokens)) if isinstance(tokens, int) else tokens
    return {
        "format": 1,
        "step": 1,
        "prompt_id": f"{question}@0",
        "task": "math",
        "messages": [{"role": "user", "content": question}],
        "reference": "5",
        "extra": {},
        "reward": reward,
        "advantage": None,
        "verdicts": {
            name: {"score": score, "status": "failed" if score is None else "scored", "seconds": 0.0, "detail": ""}
            for name, score in scores.items()
        },
        "turns": [
            {
                "parent": None,
                "observed": [1, 2],
                "token_ids": token_ids,
                "text": text,
                "finish_reason": finish_reason,
                "versions": [{"version": 0, "start": 0, "end": len(token_ids)}] if token_ids else [],
                "logprob_sum": -1.0,
            }
        ],
    }


def text_of(token_ids: Sequence[int]) -> str:
    """The text of tokens that are bytes."""
    return bytes(token_ids).decode(errors="replace")


def write_part(file: Path, records: list[dict[str, Any]]) -> None:
    """Writes lines into a .gz file."""
    file.write_bytes(gzip.compress("".join(json.dumps(record) + "\n" for record in records).encode()))
