"""The math reward against math-verify alone, in one run: throughput, fast paths, and the cost of hostile answers.

    python benchmarks/math_reward.py [--rounds 5] [--pairs 640]

Throughput of one `Math` in one process per core, against plain math-verify: in one process, times cores, and in one
process per core (cores that share silicon are slower together than alone). No process sees a pair of
`tests/tiny/math_pairs.py` twice, since sympy caches. "mix": all 16 kinds. "symbolic": the pairs of the mix that no
fast path decides, so every pair pays for the way to the verifier's process. "gsm8k": integers and money, spelled as
completions of GSM8K spell them.

The ratio "by CPU" compares CPU seconds of all processes for the same pairs. Prefer it if other jobs share the machine.
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import statistics
import sys
import time
from collections.abc import Callable
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path
from typing import NamedTuple, TypeAlias

import psutil

sys.path.insert(0, str(Path(__file__).parents[1]))

from rlframe.answers.comparison import Comparison
from rlframe.answers.reading import read
from rlframe.reward.math import Math
from rlframe.types import Completion, Prompt, Verdict
from tests.tiny.math_pairs import HOSTILE, Pair, mix

CORES = len(os.sched_getaffinity(0))
PATIENCE_S = 10.0  # a slow pair is not a hostile one
BOUND_S = 0.5
HOSTILE_ROUNDS = 5

Make: TypeAlias = Callable[[int, int], list[Pair]]  # size, seed


class Timed(NamedTuple):
    pairs: int
    seconds: float
    cpu_seconds: float  # of this process and its children
    wrong: int  # scores that contradict the pair


@cache
def reward(timeout_s: float) -> Math:
    """A warm reward, one for each process."""
    math = Math(name="math", weight=1.0, extract=["answer", "boxed"], timeout_s=timeout_s, max_answer_chars=2000)
    judge(math, r"\sqrt{8}", r"2\sqrt{3}")
    return math


def judge(math: Math, reference: str, answer: str) -> Verdict:
    prompt = Prompt(id="p", messages=[], token_ids=[], reference=reference, task="math")
    text = rf"so $\boxed{{{answer}}}$"
    return math(prompt, Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop"))


def ours(pairs: list[Pair]) -> Timed:
    math = reward(PATIENCE_S)
    return timed(lambda pair: judge(math, pair.reference, pair.answer).score, pairs)


def alone(pairs: list[Pair]) -> Timed:
    from math_verify import parse, verify

    parse("$1$")
    return timed(lambda pair: verify(parse(f"${pair.reference}$"), parse(rf"so $\boxed{{{pair.answer}}}$")), pairs)


def timed(verdict: Callable[[Pair], float | None], pairs: list[Pair]) -> Timed:
    started, cpu_started = time.perf_counter(), cpu_seconds()
    wrong = sum(verdict(pair) != pair.equal for pair in pairs)
    return Timed(len(pairs), time.perf_counter() - started, cpu_seconds() - cpu_started, wrong)


def cpu_seconds() -> float:
    children = [child.cpu_times() for child in psutil.Process().children(recursive=True)]
    return time.process_time() + sum(times.user + times.system for times in children)


def symbolic(size: int, seed: int) -> list[Pair]:
    """Pairs of the mix that reach math-verify, in the mix's proportions."""
    pairs = []
    for pair in mix(4 * size, seed):
        if Comparison("ignore").same(read(pair.reference), read(pair.answer)) is None:
            pairs.append(pair)
    return pairs[:size]


def gsm8k(size: int, seed: int) -> list[Pair]:
    rng = random.Random(seed)
    pairs = []
    for _ in range(size):
        n = int(10 ** rng.uniform(0, 6))
        equal = rng.random() < 0.5
        other = n if equal else n + rng.choice([1, 5, 100])
        answer = rng.choice([f"{other}", f"{other:,}", rf"\${other}", f"{other}.00", rf"{other}\text{{ dollars}}"])
        pairs.append(Pair("gsm8k", f"{n:,}", answer, equal))
    return pairs


def throughput(name: str, make: Make, rounds: int, size: int, pool: ProcessPoolExecutor) -> None:
    rates: dict[str, list[float]] = {"reward": [], "math-verify x cores": [], "math-verify on all cores": []}
    ratios: dict[str, list[float]] = {"to math-verify x cores": [], "to math-verify on all cores": [], "by CPU": []}
    wrong = 0
    for turn in range(rounds + 1):
        works = [make(size, CORES * turn + core) for core in range(CORES)]
        fresh = [make(size, 10_000 + CORES * turn + core) for core in range(CORES)]
        single = pool.submit(alone, [pair for work in works for pair in work]).result()
        together = list(pool.map(alone, fresh))
        results = list(pool.map(ours, works))
        if turn == 0:  # warms up
            continue
        wrong += sum(result.wrong for result in results)
        rates["reward"].append(rate(results))
        rates["math-verify x cores"].append(rate([single]) * CORES)
        rates["math-verify on all cores"].append(rate(together))
        ratios["to math-verify x cores"].append(rate(results) / (rate([single]) * CORES))
        ratios["to math-verify on all cores"].append(rate(results) / rate(together))
        ratios["by CPU"].append(single.cpu_seconds / sum(result.cpu_seconds for result in results))
    for part, values in rates.items():
        report(f"{name}, pairs/s on {CORES} cores: {part}", values)
    for part, values in ratios.items():
        report(f"{name}, ratio {part}", values)
    print(json.dumps({"part": f"{name}, wrong scores", "of": rounds * CORES * size, "wrong": wrong}), flush=True)


def rate(results: list[Timed]) -> float:
    """Pairs per second of processes that run at the same time."""
    return sum(result.pairs / result.seconds for result in results)


def hostile() -> None:
    math = reward(BOUND_S)
    verdicts, after = [], []
    for _ in range(HOSTILE_ROUNDS):
        for answer in HOSTILE:
            verdicts.append(judge(math, "7 + x", answer))
            healthy = judge(math, r"\sqrt{8}", r"2\sqrt{2}")
            after.append(healthy.seconds if healthy.score == 1.0 else float("inf"))
    seconds = [verdict.seconds for verdict in verdicts]
    p50, p99 = statistics.median(seconds), statistics.quantiles(seconds, n=100, method="inclusive")[98]
    figures = {"bound": BOUND_S, "p50": p50, "p99": p99, "max": max(seconds), "next_answer_max": max(after)}
    print(json.dumps({"part": "hostile answers, s", "of": len(seconds)} | {k: round(v, 3) for k, v in figures.items()}))
    print(
        json.dumps({"part": "hostile answers: scores that are not 0", "count": sum(v.score != 0.0 for v in verdicts)})
    )
    math.close()


def report(part: str, values: list[float]) -> None:
    figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
    print(json.dumps({"part": part} | {key: round(value, 3) for key, value in figures.items()}), flush=True)


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--pairs", type=int, default=640)
    args = parser.parse_args()
    spawn = multiprocessing.get_context("spawn")
    with ProcessPoolExecutor(CORES, mp_context=spawn) as pool:
        for name, make, size in (
            ("mix", mix, args.pairs),
            ("symbolic", symbolic, args.pairs // 2),
            ("gsm8k", gsm8k, 4 * args.pairs),
        ):
            throughput(name, make, args.rounds, size, pool)
    hostile()


if __name__ == "__main__":
    main()
