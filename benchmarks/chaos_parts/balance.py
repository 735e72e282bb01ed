"""`balance`: what a run's files must say after any faults: every prompt once, every token once, no step twice."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from benchmarks.chaos_parts.engine import length
from benchmarks.chaos_parts.settings import GROUP, MAX_STALENESS, PROMPTS
from rlframe.record.directory import RunDir
from rlframe.record.files import read_json_lines
from rlframe.record.metrics import last_step
from rlframe.train.checkpoint import newest_whole


@dataclass(slots=True, kw_only=True)
class Balance:
    """The counts of a run that has ended, and what is wrong with them."""

    steps: int = 0
    trained: int = 0  # prompts in files of rollouts
    completions: int = 0
    tokens: int = 0
    oldest: int = 0  # versions between the sampling of a token and its training, at most
    interrupted: int = 0  # completions that were not ended by the engine that began them; unknown to the files
    missing: list[int] = field(default_factory=list)  # steps without all their rollouts
    ledger: dict[str, int] = field(default_factory=dict)
    wrong: list[str] = field(default_factory=list)

    def line(self) -> str:
        ledger = ", ".join(f"{count} {name}" for name, count in self.ledger.items())
        return (
            f"{self.steps} steps, {self.trained} prompts, {self.completions} completions and {self.tokens} tokens in "
            f"files of rollouts, at most {self.oldest} versions old; steps without all rollouts: {len(self.missing)}; "
            f"the ledger has {ledger}"
        )


def balance(run_dir: Path, lines: str) -> Balance:
    """`lines`: the console's output of all lives, which must name each file of rollouts that is missing."""
    files, found = RunDir(run_dir), Balance()
    _check_steps(files, found)
    check_rollouts(files, found, lines)
    _check_ledger(files, found)
    return found


def _check_steps(files: RunDir, found: Balance) -> None:
    found.steps = last_step(files.metrics)
    steps = [row["step"] for row in read_json_lines(files.metrics, "step")]
    if steps != list(range(1, found.steps + 1)):
        wrong = [step for step, count in Counter(steps).items() if count > 1]
        gaps = sorted(set(range(1, found.steps + 1)) - set(steps))
        found.wrong.append(f"metrics: steps {wrong} are there more than once, and steps {gaps} are missing")
    evaluated = [row["step"] for row in read_json_lines(files.evaluations, "step")]
    if len(evaluated) != len(set(evaluated)):
        found.wrong.append(f"evaluations: steps are there more than once: {evaluated}")


def check_rollouts(files: RunDir, found: Balance, lines: str) -> None:
    prompts: Counter[str] = Counter()
    for step in range(1, found.steps + 1):
        groups: Counter[str] = Counter()
        for file in sorted(files.rollouts.glob(f"step_{step:06d}.*jsonl.gz")):
            for row in read_json_lines(file):
                groups[row["prompt_id"]] += 1
                # Completions of a group stand in the order of their indices.
                _check_completion(row, groups[row["prompt_id"]] - 1, step, found)
        if len(groups) != PROMPTS or set(groups.values()) != {GROUP}:
            found.missing.append(step)
            if f"step_{step:06d}" not in lines:
                found.wrong.append(f"rollouts of step {step}: {dict(groups)}, and no line of the console says why")
        prompts.update(groups.keys())
    found.trained = len(prompts)
    if twice := [prompt for prompt, count in prompts.items() if count > 1]:
        found.wrong.append(f"prompts were trained on more than once: {twice}")


def _check_completion(row: dict[str, Any], index: int, step: int, found: Balance) -> None:
    """Token ids are 0, 1, 2, ..., as many as drawn, each of one policy version that was young enough."""
    [turn] = row["turns"]
    name, tokens = f"step {step}, completion {index} of {row['prompt_id']}", turn["token_ids"]
    expected = length(row["prompt_id"], index)
    if tokens != list(range(expected)):
        found.wrong.append(f"{name}: {len(tokens)} tokens {tokens[:3]}...{tokens[-3:]}, and {expected} were drawn")
    if row["reward"] is None:
        found.wrong.append(f"{name} has no reward: {row['verdicts']}")
    ends = [span["end"] for span in turn["versions"]]
    if [span["start"] for span in turn["versions"]] != [0, *ends[:-1]] or ends[-1] != len(tokens):
        found.wrong.append(f"{name}: its policy versions are {turn['versions']}")
    age = step - 1 - min(span["version"] for span in turn["versions"])
    if age > MAX_STALENESS or min(step - 1 - span["version"] for span in turn["versions"]) < 0:
        found.wrong.append(f"{name}: its tokens are of versions {turn['versions']}")
    found.completions += 1
    found.tokens += len(tokens)
    found.oldest = max(found.oldest, age)


def _check_ledger(files: RunDir, found: Balance) -> None:
    """Each position of the prompt stream was trained on, is in flight, or was dropped or skipped."""
    checkpoint = newest_whole(files.checkpoints, found.wrong.append)
    if checkpoint is None:
        return found.wrong.append(f"there is no whole checkpoint in {files.checkpoints}")
    state = json.loads((checkpoint / "state.json").read_text())
    ledger = state["feed"]
    counts = {name: ledger[name] for name in ("taken", "dropped")}
    counts |= {"in flight": len(ledger["in_flight"]), "skipped": sum(ledger["skipped"].values())}
    found.ledger = {"positions": ledger["next_position"]} | counts
    if sum(counts.values()) != ledger["next_position"]:
        found.wrong.append(f"the ledger does not balance: {ledger['next_position']} positions, but {counts}")
    if len({position for position, _ in ledger["in_flight"]}) != counts["in flight"]:
        found.wrong.append(f"the ledger has a position in flight more than once: {ledger['in_flight']}")
    if counts["dropped"]:
        found.wrong.append(f"{counts['dropped']} prompts were given up, and no prompt was guilty")
    if state["step"] != found.steps or ledger["taken"] != found.steps * PROMPTS:
        found.wrong.append(f"{found.steps} steps took {ledger['taken']} prompts, as checkpoint {state['step']} says")
