"""Groups of random trees of turns, as agents and templates that rewrite a conversation make them."""

from __future__ import annotations

import numpy as np

from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, Trajectory, Turn, VersionSpan


def make_tree_group(rng: np.random.Generator, name: str, trajectories: int = 3) -> ScoredGroup:
    """Trajectories of 1 to 6 turns behind one prompt; a turn continues any earlier turn, or begins a conversation."""
    prompt = rng.integers(0, 256, rng.integers(1, 9)).astype(np.int32)
    group = RolloutGroup(
        prompt=Prompt(id=name, messages=[], token_ids=prompt.tolist(), reference="", task=""),
        trajectories=[Trajectory(turns=_turns(rng, prompt)) for _ in range(trajectories)],
    )
    return ScoredGroup(group=group, rewards=rng.normal(size=trajectories).tolist(), verdicts={})


def _turns(rng: np.random.Generator, prompt: np.ndarray) -> list[Turn]:
    turns = [Turn(parent=None, observed=prompt, completion=_completion(rng))]
    for number in range(1, rng.integers(1, 7)):
        parent = rng.integers(-1, number)
        observed = rng.integers(0, 256, rng.integers(1, 5)).astype(np.int32)
        turns.append(Turn(parent=None if parent < 0 else int(parent), observed=observed, completion=_completion(rng)))
    return turns


def _completion(rng: np.random.Generator) -> Completion:
    """1 to 9 tokens, the first of them of version 3, the others of version 5."""
    length = int(rng.integers(1, 10))
    first = int(rng.integers(0, length + 1))
    spans = [VersionSpan(version=3, start=0, end=first), VersionSpan(version=5, start=first, end=length)]
    return Completion(
        token_ids=rng.integers(0, 256, length).astype(np.int32),
        logprobs=rng.normal(size=length).astype(np.float32),
        versions=[span for span in spans if span.end > span.start],
        text="",
        finish_reason="stop",
    )
