"""The driver's CPU time between a step's records and the calls of its learner ranks, over real Ray.

    python benchmarks/driver_step.py [COMPLETIONS ...]

Groups of 16 completions of 1,631 tokens on average, three rewards each, 8 ranks that do nothing with what they get.
Prints one JSON line for each algorithm and number of completions: milliseconds a completion of each part, and in all.
`grpo` has a number for each completion, `reinforce_pp` an advantage for each token.
"""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path

import numpy as np
import ray

sys.path.insert(0, str(Path(__file__).parent))  # run as a file: its neighbours are no package

from async_parts.trace import Trace

from rlframe.algorithm import GRPO, ReinforcePP, rate
from rlframe.batch.samples import to_minibatches
from rlframe.batch.shares import to_shares
from rlframe.experience.statistics import rollout_metrics
from rlframe.objective.objective import Objective
from rlframe.training import GroupRecord, SequenceSize, TrajectoryRecord
from rlframe.types import RewardTerm, Verdict, VersionSpan

RANKS, MICRO_BATCH_TOKENS, GROUP = 8, 17_000, 16
ALGORITHMS = [GRPO(name="grpo", clip=0.2), ReinforcePP(name="reinforce_pp", clip=0.2)]


@ray.remote(num_cpus=0)
class Rank:
    """Receives a step's share."""

    def step(self, *_: object) -> None:
        """Returns at once."""


def main(counts: list[int]) -> None:
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    ranks = [Rank.remote() for _ in range(RANKS)]
    ray.get([rank.step.remote() for rank in ranks])
    for count in counts:
        records = make_records(count // GROUP)
        for algorithm in ALGORITHMS:
            measure(records, Objective(algorithm=algorithm), ranks)


def measure(records: list[GroupRecord], objective: Objective, ranks: list) -> None:
    times = {"start": time.process_time()}
    rated = rate(records, objective.algorithm)
    times["rate"] = time.process_time()
    [samples] = to_minibatches(rated, objective, 1)
    times["minibatches"] = time.process_time()
    shares = to_shares(samples, RANKS, MICRO_BATCH_TOKENS)
    times["shares"] = time.process_time()
    calls = [rank.step.remote([share], objective, 0) for rank, share in zip(ranks, shares, strict=True)]
    times["submit"] = time.process_time()
    rollout_metrics(records, 0)
    times["metrics"] = time.process_time()
    ray.get(calls)
    completions = len(records) * GROUP
    clock = list(times.values())
    parts = {name: end - begin for name, begin, end in zip(list(times)[1:], clock, clock[1:], strict=False)}
    parts["all"] = clock[-1] - clock[0]
    figures = {f"{name}_ms": round(1000 * seconds / completions, 4) for name, seconds in parts.items()}
    print(json.dumps({"algorithm": objective.algorithm.name, "completions": completions, **figures}), flush=True)


def make_records(prompts: int) -> list[GroupRecord]:
    rng, trace = np.random.default_rng(0), Trace(GROUP, seed=0)
    return [make_record(f"train.jsonl:{prompt}@0", trace[prompt], rng) for prompt in range(prompts)]


def make_record(prompt_id: str, lengths: list[int], rng: np.random.Generator) -> GroupRecord:
    prompt_tokens = int(rng.integers(50, 1000))
    scores = rng.integers(0, 2, GROUP).astype(float).tolist()
    rewards = ["math", "format", "length"]
    return GroupRecord(
        prompt_id=prompt_id,
        prompt_tokens=prompt_tokens,
        worker="episodes-0",
        body=ray.put(prompt_id),
        trajectories=[trajectory(prompt_id, prompt_tokens, length) for length in lengths],
        rewards=scores,
        verdicts={
            name: [Verdict(score=score, status="scored", seconds=0.01, detail="") for score in scores]
            for name in rewards
        },
        terms={name: RewardTerm(weight=1.0, scores=scores) for name in rewards},
    )


def trajectory(prompt_id: str, prompt_tokens: int, length: int) -> TrajectoryRecord:
    size = SequenceSize(
        prompt_id=prompt_id, prefix_tokens=prompt_tokens, tokens=prompt_tokens + length, trained=[(0, length)]
    )
    spans = [VersionSpan(version=0, start=0, end=length)]
    return TrajectoryRecord(
        sampled_tokens=length, finish_reason="stop", versions=spans, cached_tokens=0, sequences=[size]
    )


if __name__ == "__main__":
    main([int(argument) for argument in sys.argv[1:]] or [512, 8192])
