"""`rollouts/step_000001.jsonl.gz`: every trajectory of a step, written and read.

Where a run has several episode workers, each writes a part of its own: `step_000001.episodes-0.jsonl.gz`.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import asdict, replace
from itertools import groupby
from pathlib import Path
from typing import Any, TypeAlias

import numpy as np

from rlframe.record.files import read_json_lines, save_json_lines, write_json_lines
from rlframe.types import (
    Completion,
    Prompt,
    RolloutGroup,
    ScoredGroup,
    Trajectory,
    Turn,
    Verdict,
    VersionSpan,
)

FORMAT = 1
Advantage: TypeAlias = "float | np.ndarray | None"  # of a trajectory: for all its tokens, for each token, or none
FIELDS = ("prompt_id", "messages", "reference", "task", "reward", "verdicts", "turns")  # read back


def write(file: Path, step: int, groups: Iterable[tuple[ScoredGroup, Sequence[Advantage]]]) -> None:
    """Replaces a file by one with an object for each trajectory of the groups, with its advantage.

    Rewards are as scored: without the KL penalty that the advantages may have. The folder must exist.
    """
    write_json_lines(file, _records(step, groups))


def write_durably(file: Path, number: int, groups: Iterable[ScoredGroup]) -> None:
    """Writes groups without advantages as `write` does; the file appears once the disk has all of it."""
    save_json_lines(file, _records(number, ((group, [None] * len(group.rewards)) for group in groups)))


def folder_of(path: Path) -> Path:
    """The folder of rollouts in a run directory; any other folder itself."""
    return path / "rollouts" if (path / "rollouts").is_dir() else path


def part(folder: Path, step: int, worker: str | None) -> Path:
    """The file of a step, or the part of it that an episode worker writes where a run has several."""
    return folder / (f"step_{step:06d}.{worker}.jsonl.gz" if worker else f"step_{step:06d}.jsonl.gz")


def prepare(folder: Path, step: int, parts: Iterable[Path]) -> None:
    """Makes the folder, and removes files of the step that are not among `parts`.

    A resumed run takes a step again, perhaps with another number of episode workers.
    """
    folder.mkdir(parents=True, exist_ok=True)
    for old in set(folder.glob(f"step_{step:06d}.*jsonl.gz")) - set(parts):
        old.unlink(missing_ok=True)


def write_step(folder: Path, step: int, groups: Iterable[tuple[ScoredGroup, Sequence[Advantage]]]) -> Path:
    """Writes a whole step into one file of the folder, in place of all files of the step."""
    file = part(folder, step, None)
    prepare(folder, step, [file])
    write(file, step, groups)
    return file


def read(rollouts: Path, limit: int | None) -> list[ScoredGroup]:
    """Reads groups of a run directory or its folder of `step_*.jsonl.gz`, or of a draw: the newest step or part first.

    `limit` is a number of trajectories, rounded up to a whole group; None: all. Log-probabilities are not saved, so
    every completion has an empty array of them. Raises ValueError for a folder without rollouts, and for a line of
    another format or without a field; the text names the file and line.
    """
    folder = folder_of(rollouts)
    files = sorted([*folder.glob("step_*.jsonl.gz"), *folder.glob("part_*.jsonl.gz")], key=_order)
    if not files:
        raise ValueError(f"{rollouts} holds no rollouts: there is no {folder / 'step_*.jsonl.gz'}, and no part_* there")
    groups, trajectories = [], 0
    for group in _read_groups(files):
        if limit is not None and trajectories >= limit:
            break
        groups.append(group)
        trajectories += len(group.rewards)
    return groups


def trajectory(record: dict[str, Any], where: str) -> ScoredGroup:
    """The group of one trajectory in the object of a line. Raises ValueError, whose message starts with `where`."""
    _check(record, where)
    try:
        _check_types(record)
        return _group([record])
    except IndexError as error:
        raise ValueError(f"{where}: the trajectory has no turn") from error
    except KeyError as error:
        raise ValueError(f"{where}: no field {error} in a message, turn or verdict") from error
    except (TypeError, ValueError, AttributeError) as error:
        raise ValueError(f"{where}: a field holds what no rollout has ({error})") from error


def _order(file: Path) -> tuple[int, int]:
    """Sorts the newest step first, and a step's parts by the number of the worker: "step_000001.episodes-10"."""
    step, *worker = [int(number) for number in re.findall(r"\d+", file.name)]
    return -step, worker[0] if worker else 0


def _records(step: int, groups: Iterable[tuple[ScoredGroup, Sequence[Advantage]]]) -> Iterator[dict[str, Any]]:
    for scored, advantages in groups:
        for index, advantage in zip(range(len(scored.rewards)), advantages, strict=True):
            yield _record(step, scored, index, advantage)


def _record(step: int, scored: ScoredGroup, index: int, advantage: Advantage) -> dict[str, Any]:
    prompt = scored.group.prompt
    return {
        "format": FORMAT,
        "step": step,
        "prompt_id": prompt.id,
        "task": prompt.task,
        "messages": prompt.messages,
        "reference": prompt.reference,
        "extra": prompt.extra,
        "reward": scored.rewards[index],
        "advantage": None if advantage is None else np.asarray(advantage).tolist(),
        "verdicts": {name: _verdict_record(verdicts[index]) for name, verdicts in scored.verdicts.items()},
        "turns": [_turn_record(turn) for turn in scored.group.trajectories[index].turns],
    }


def _verdict_record(verdict: Verdict) -> dict[str, Any]:
    """Rewards of tokens are as many numbers as tokens: their sum is in the file."""
    record = asdict(replace(verdict, token_rewards=None))
    del record["token_rewards"], record["final"]
    if verdict.token_rewards is None:
        return record
    return record | {"token_reward": float(verdict.token_rewards.sum(dtype=np.float64))}


def _verdict(record: dict[str, Any]) -> Verdict:
    return Verdict(**{key: value for key, value in record.items() if key != "token_reward"})


def _turn_record(turn: Turn) -> dict[str, Any]:
    completion = turn.completion
    return {
        "parent": turn.parent,
        "observed": np.asarray(turn.observed).tolist(),
        "token_ids": np.asarray(completion.token_ids).tolist(),
        "text": completion.text,
        "finish_reason": completion.finish_reason,
        "versions": [asdict(span) for span in completion.versions],
        "logprob_sum": sum(np.asarray(completion.logprobs).tolist()),
    }


def _read_groups(files: list[Path]) -> Iterator[ScoredGroup]:
    for file in files:
        records = read_json_lines(file)
        for number, record in enumerate(records, start=1):
            _check(record, f"{file}, line {number}")
        for _, group in groupby(records, key=lambda record: record["prompt_id"]):
            yield _group(list(group))


def _check(record: dict[str, Any], location: str) -> None:
    if record.get("format") != FORMAT:
        saved = record.get("format", "older than 1")
        raise ValueError(f"{location}: the rollout format is {saved}, and this version of rlframe reads only {FORMAT}")
    for field in FIELDS:
        if field not in record:
            raise ValueError(f"{location}: no field {field!r}")


def _check_types(record: dict[str, Any]) -> None:
    """Raises TypeError for texts and scores of other types, which later code would trip over."""
    scores = [record["reward"], *(verdict["score"] for verdict in record["verdicts"].values())]
    texts = [turn["text"] for turn in record["turns"]]
    texts += [message[key] for message in record["messages"] for key in ("role", "content")]
    if wrong := [score for score in scores if isinstance(score, bool) or not isinstance(score, int | float | None)]:
        raise TypeError(f"{wrong[0]!r} as a score")
    if wrong := [text for text in [record["prompt_id"], record["task"], *texts] if not isinstance(text, str)]:
        raise TypeError(f"{wrong[0]!r} as a text")


def _group(records: list[dict[str, Any]]) -> ScoredGroup:
    first = records[0]
    prompt = Prompt(
        id=first["prompt_id"],
        messages=first["messages"],
        token_ids=first["turns"][0]["observed"],
        reference=first["reference"],
        task=first["task"],
        extra=first.get("extra", {}),  # files of earlier versions have none
    )
    trajectories = [Trajectory(turns=[_turn(turn) for turn in record["turns"]]) for record in records]
    return ScoredGroup(
        group=RolloutGroup(prompt=prompt, trajectories=trajectories),
        rewards=[record["reward"] for record in records],
        verdicts={name: [_verdict(record["verdicts"][name]) for record in records] for name in first["verdicts"]},
    )


def _turn(record: dict[str, Any]) -> Turn:
    completion = Completion(
        token_ids=np.asarray(record["token_ids"], np.int32),
        logprobs=np.empty(0, np.float32),
        versions=[VersionSpan(**span) for span in record["versions"]],
        text=record["text"],
        finish_reason=record["finish_reason"],
    )
    return Turn(parent=record["parent"], observed=np.asarray(record["observed"], np.int32), completion=completion)
