"""`rollouts/step_000001.jsonl.gz`: every completion of a step, written and read."""

from __future__ import annotations

import gzip
import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from itertools import groupby
from pathlib import Path
from typing import Any

from rlframe.record.files import replace_file
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, Verdict, VersionSpan


class RolloutWriter:
    """Every completion of a step with its reward, in `step_000001.jsonl.gz`: what to read when a curve surprises."""

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory

    def write(self, step: int, groups: Sequence[ScoredGroup], advantages: Sequence[Sequence[float | None]]) -> Path:
        """Writes one object a completion; `advantages` [P][G], None where there is no reward. A step written again
        (by a resumed run) replaces its file."""
        records = [
            _record(step, scored, index, advantage)
            for scored, row in zip(groups, advantages, strict=True)
            for index, advantage in zip(range(len(scored.rewards)), row, strict=True)
        ]
        path = self._directory / f"step_{step:06d}.jsonl.gz"
        lines = "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records)
        # A lone surrogate, which a reward may quote, is no UTF-8; as a backslash escape it is JSON.
        replace_file(path, gzip.compress(lines.encode(errors="backslashreplace"), compresslevel=5))
        return path


def _record(step: int, scored: ScoredGroup, index: int, advantage: float | None) -> dict[str, Any]:
    prompt, completion = scored.group.prompt, scored.group.completions[index]
    verdicts = {name: row[index] for name, row in scored.verdicts.items()}
    return {
        "step": step,
        "prompt_id": prompt.id,
        "task": prompt.task,
        "messages": prompt.messages,
        "reference": prompt.reference,
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "reward": scored.rewards[index],
        "advantage": advantage,
        "verdicts": {name: asdict(verdict) for name, verdict in verdicts.items()},
        "versions": [asdict(span) for span in completion.versions],
        "token_ids": completion.token_ids,
        "logprob_sum": sum(completion.logprobs),
    }


def read(rollouts: Path, limit: int | None) -> list[ScoredGroup]:
    """The groups in `rollouts`, a run directory or its folder of `step_*.jsonl.gz`, the newest steps first; `limit`: of
    completions, rounded up to a whole group; None: all. Log-probabilities were not saved: there are none.

    Raises ValueError naming what is missing, or the file and line that will not do.
    """
    folder = rollouts / "rollouts" if (rollouts / "rollouts").is_dir() else rollouts
    files = sorted(folder.glob("step_*.jsonl.gz"), reverse=True)
    if not files:
        raise ValueError(f"{rollouts} holds no rollouts: there is no {folder / 'step_*.jsonl.gz'}")
    groups, completions = [], 0
    for group in _groups(files):
        if limit is not None and completions >= limit:
            break
        groups.append(group)
        completions += len(group.rewards)
    return groups


def _groups(files: list[Path]) -> Iterator[ScoredGroup]:
    for file in files:
        with gzip.open(file, "rt", encoding="utf-8") as lines:
            rows = [_row(line, f"{file}, line {number}") for number, line in enumerate(lines, start=1)]
        for _, group in groupby(rows, key=lambda row: row["prompt_id"]):
            yield _group(list(group))


def _row(line: str, where: str) -> dict[str, Any]:
    try:
        row = json.loads(line)
    except json.JSONDecodeError as error:
        raise ValueError(f"{where}: no JSON: {error}") from error
    for field in ("prompt_id", "messages", "reference", "task", "text", "token_ids", "reward", "verdicts", "versions"):
        if field not in row:
            raise ValueError(f"{where}: no field {field!r}; was it written by an older version?")
    return row


def _group(rows: list[dict[str, Any]]) -> ScoredGroup:
    first = rows[0]
    prompt = Prompt(
        id=first["prompt_id"],
        messages=first["messages"],
        token_ids=[],
        reference=first["reference"],
        task=first["task"],
    )
    completions = [
        Completion(
            token_ids=row["token_ids"],
            logprobs=[],
            versions=[VersionSpan(**span) for span in row["versions"]],
            text=row["text"],
            finish_reason=row["finish_reason"],
        )
        for row in rows
    ]
    return ScoredGroup(
        group=RolloutGroup(prompt=prompt, completions=completions),
        rewards=[row["reward"] for row in rows],
        verdicts={name: [Verdict(**row["verdicts"][name]) for row in rows] for name in first["verdicts"]},
    )
