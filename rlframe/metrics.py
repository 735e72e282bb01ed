"""What a step's rollouts were like, as numbers (pure), and the sinks that such numbers go to."""

from __future__ import annotations

import gzip
import json
import math
import os
import secrets
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path
from statistics import fmean, pstdev
from typing import Any, Literal, Protocol

from rlframe.types import Completion, ScoredGroup


def rollout_metrics(groups: Sequence[ScoredGroup], version: int) -> dict[str, float]:
    """Statistics of the groups that policy `version` is trained on.

    A statistic over nothing (the mean reward where every reward failed) is left out, rather than made up.
    """
    completions = [completion for scored in groups for completion in scored.group.completions]
    lengths = [len(completion.token_ids) for completion in completions]
    metrics: dict[str, float] = {"rollout/tokens": sum(lengths)}
    if completions:
        metrics["rollout/prompt_tokens"] = fmean(len(scored.group.prompt.token_ids) for scored in groups)
        asked = sum(len(scored.group.prompt.token_ids) * len(scored.group.completions) for scored in groups)
        metrics["rollout/prompt_cached"] = sum(completion.cached_tokens for completion in completions) / asked
        metrics["rollout/completion_tokens"] = fmean(lengths)
        metrics["rollout/truncated"] = fmean(completion.finish_reason == "length" for completion in completions)
    return _rewards(groups) | metrics | _staleness(completions, version)


def _rewards(groups: Sequence[ScoredGroup]) -> dict[str, float]:
    known = [[reward for reward in scored.rewards if reward is not None] for scored in groups]  # [P][<= G]
    verdicts = [(name, verdict) for scored in groups for name, row in scored.verdicts.items() for verdict in row]
    metrics: dict[str, float] = {}
    rewards = [reward for row in known for reward in row]
    if rewards:
        metrics["reward/mean"] = fmean(rewards)
        metrics["reward/std"] = pstdev(rewards)
    for name in dict.fromkeys(name for name, _ in verdicts):
        row = [verdict for named, verdict in verdicts if named == name]
        scores = [verdict.score for verdict in row if verdict.score is not None]
        if scores:
            metrics[f"reward/{name}"] = fmean(scores)
        for status in ("unparseable", "timeout", "failed"):
            metrics[f"reward/{name}/{status}"] = fmean(verdict.status == status for verdict in row)
        metrics[f"reward/{name}/seconds_max"] = max(verdict.seconds for verdict in row)
    metrics["reward/failed"] = sum(verdict.status == "failed" for _, verdict in verdicts)
    # Equal rewards have equal advantages, so such a group teaches nothing; one known reward or none does no more.
    metrics["reward/groups_without_signal"] = sum(len(set(row)) <= 1 for row in known)
    return metrics


def _staleness(completions: Sequence[Completion], version: int) -> dict[str, float]:
    """How many versions ago the tokens were drawn; the mean is per token, since one completion can span versions."""
    spans = [span for completion in completions for span in completion.versions]
    tokens = sum(span.end - span.start for span in spans)
    if tokens == 0:
        return {}
    return {
        "rollout/staleness_max": max(version - span.version for span in spans),
        "rollout/staleness_mean": sum((version - span.version) * (span.end - span.start) for span in spans) / tokens,
    }


class Sink(Protocol):
    """Where metrics go: a file, a service, the terminal."""

    def log(self, step: int, metrics: dict[str, float]) -> None: ...

    def close(self) -> None: ...


class JsonlSink:
    """One JSON object a line, `step` and `policy_version` first, on disk as soon as it is logged.

    A resumed run passes the step it stands at as `keep_through_step`: lines of later steps, which it will take
    again, and a last line torn by the crash are dropped.
    """

    def __init__(self, path: Path, keep_through_step: int | None = None) -> None:
        path.parent.mkdir(parents=True, exist_ok=True)
        if keep_through_step is not None and path.exists():
            _replace(path, "".join(_lines_through(path, keep_through_step)).encode())
        self._file = path.open("a", encoding="utf-8")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        # One optimizer step makes one policy version, so where the metrics don't say, the version is the step.
        finite = {key: value if math.isfinite(value) else None for key, value in metrics.items()}  # JSON has no NaN
        self._file.write(json.dumps({"step": step, "policy_version": step} | finite) + "\n")
        self._file.flush()

    def close(self) -> None:
        self._file.close()


def _lines_through(path: Path, step: int) -> list[str]:
    """The lines of steps up to `step`. Raises ValueError at a broken line, unless it is the last: that one is torn."""
    lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    kept = []
    for number, line in enumerate(lines, start=1):
        if not line.endswith("\n"):
            continue
        try:
            logged = json.loads(line)["step"]
        except (json.JSONDecodeError, KeyError, TypeError) as error:
            raise ValueError(f"{path}, line {number}: no line of metrics: {line[:80]!r}") from error
        if logged <= step:
            kept.append(line)
    return kept


class WandbSink:
    """Weights & Biases. Mode "offline" needs no key and no network; `wandb sync` uploads such a run later.

    The run's W&B id is kept in its directory, so that a resumed run goes on in the same charts.
    """

    def __init__(
        self, run_dir: Path, config: dict[str, Any], project: str, mode: Literal["online", "offline", "disabled"]
    ) -> None:
        try:
            import wandb
        except ModuleNotFoundError as error:
            raise ModuleNotFoundError("tracking by W&B needs the extra: pip install 'rlframe[wandb]'") from error

        run_dir.mkdir(parents=True, exist_ok=True)
        id_file = run_dir / "wandb_id"
        if not id_file.exists():
            id_file.write_text(secrets.token_hex(4))
        self._run = wandb.init(
            project=project,
            name=run_dir.name,
            id=id_file.read_text(),
            resume="allow" if mode == "online" else None,  # nothing to ask a server for otherwise
            dir=run_dir,
            config=config,
            mode=mode,
            settings=wandb.Settings(console="off", silent=True),  # the terminal is the console's alone
        )
        # Not W&B's own step, which may only grow: a resumed run logs the steps after its checkpoint again.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log({"step": step} | metrics)

    def close(self) -> None:
        self._run.finish()


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
        _replace(path, gzip.compress(lines.encode(errors="backslashreplace"), compresslevel=5))
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


def _replace(path: Path, content: bytes) -> None:
    """Writes aside, then renames: a reader, or a run that dies here, never sees half a file."""
    aside = path.with_name(path.name + ".tmp")
    aside.write_bytes(content)
    os.replace(aside, path)
