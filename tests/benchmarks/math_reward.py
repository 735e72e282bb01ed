"""The math reward against math-verify alone, in one run: throughput, fast paths, and what hostile answers cost.

    python tests/benchmarks/math_reward.py [--rounds 5] [--pairs 640]

Throughput is that of one `Math` in each of as many processes as there are cores, against math-verify called plainly
in one process, times cores; both on pairs of `tests/tiny/math_pairs.py` that no round repeats, since sympy caches.
"mix": all 16 kinds. "symbolic": only those of the mix that no fast path decides, so that every pair pays for the
way to the verifier's process. "gsm8k": integers and money, spelled as completions of GSM8K spell them.
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
from concurrent.futures import ProcessPoolExecutor
from functools import cache
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[2]))

from rlframe.reward.answer import normalize, reference_answer, same_number, same_text
from rlframe.reward.math import Math
from rlframe.types import Completion, Prompt
from tests.tiny.math_pairs import HOSTILE, Pair, mix

CORES = len(os.sched_getaffinity(0))
BOUND_S = 0.5
HOSTILE_ROUNDS = 5


@cache
def reward() -> Math:
    """This process's own, warm."""
    math = Math(name="math", weight=1.0, extract=["answer", "boxed"], timeout_s=BOUND_S, max_answer_chars=2000)
    judge(math, r"\sqrt{8}", r"2\sqrt{3}")
    return math


def judge(math: Math, reference: str, answer: str) -> tuple[float | None, float]:
    """Score and seconds."""
    prompt = Prompt(id="p", messages=[], token_ids=[], reference=reference, task="math")
    text = rf"so $\boxed{{{answer}}}$"
    verdict = math(prompt, Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop"))
    return verdict.score, verdict.seconds


def ours(pairs: list[Pair]) -> tuple[float, float, int]:
    """Start and end on the machine's monotonic clock, and how many scores are not as the pair says."""
    math = reward()
    began = time.monotonic()
    wrong = sum(judge(math, pair.reference, pair.answer)[0] != float(pair.equal) for pair in pairs)
    return began, time.monotonic(), wrong


def alone(pairs: list[Pair]) -> tuple[float, float, int]:
    from math_verify import parse, verify

    parse("$1$")
    began = time.monotonic()
    wrong = sum(
        verify(parse(f"${pair.reference}$"), parse(rf"so $\boxed{{{pair.answer}}}$")) != pair.equal for pair in pairs
    )
    return began, time.monotonic(), wrong


def symbolic(size: int, seed: int) -> list[Pair]:
    """Pairs of the mix, in its proportions, that reach math-verify."""
    pairs = []
    for pair in mix(4 * size, seed):
        reference, answer = reference_answer(pair.reference), normalize(pair.answer)
        if same_text(reference, answer) is None and same_number(reference, answer) is None:
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


def rate(results: list[tuple[float, float, int]], pairs: int) -> float:
    """Pairs a second of processes that ran at the same time."""
    return pairs / (max(end for _, end, _ in results) - min(began for began, _, _ in results))


def throughput(name: str, make, rounds: int, size: int, pool: ProcessPoolExecutor, single: ProcessPoolExecutor) -> None:
    ratios, mine, theirs, wrong = [], [], [], 0
    for turn in range(rounds + 1):
        seeds = range(1000 * turn, 1000 * turn + CORES + 1)
        works = [make(size, seed) for seed in seeds]
        its = rate([single.submit(alone, works[0]).result()], len(works[0]))
        results = list(pool.map(ours, works[1:]))
        our = rate(results, sum(map(len, works[1:])))
        if turn > 0:  # the first one warms up
            ratios.append(our / (its * CORES))
            mine.append(our)
            theirs.append(its)
            wrong += sum(result[2] for result in results)
    report(f"{name}: reward on {CORES} cores, pairs/s", mine)
    report(f"{name}: math-verify in one process, pairs/s", theirs)
    report(f"{name}: ratio to {CORES} x math-verify", ratios)
    print(json.dumps({"part": f"{name}: wrong scores", "of": rounds * CORES * size, "wrong": wrong}), flush=True)


def hostile() -> None:
    math = reward()
    seconds, scores, after = [], [], []
    for _ in range(HOSTILE_ROUNDS):
        for answer in HOSTILE:
            score, taken = judge(math, "7 + x", answer)
            seconds.append(taken)
            scores.append(score)
            began = time.perf_counter()
            healthy, _ = judge(math, r"\sqrt{8}", r"2\sqrt{2}")
            after.append(time.perf_counter() - began if healthy == 1.0 else float("inf"))
    p50, p99 = statistics.median(seconds), statistics.quantiles(seconds, n=100, method="inclusive")[98]
    figures = {"bound": BOUND_S, "p50": p50, "p99": p99, "max": max(seconds), "next_answer_max": max(after)}
    print(json.dumps({"part": "hostile answers, s", "of": len(seconds)} | {k: round(v, 3) for k, v in figures.items()}))
    print(json.dumps({"part": "hostile answers: scores that are not 0", "count": sum(s != 0.0 for s in scores)}))
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
    with (
        ProcessPoolExecutor(CORES, mp_context=spawn) as pool,
        ProcessPoolExecutor(1, mp_context=spawn) as single,
    ):
        for name, make, size in (
            ("mix", mix, args.pairs),
            ("symbolic", symbolic, args.pairs // 2),
            ("gsm8k", gsm8k, 4 * args.pairs),
        ):
            throughput(name, make, args.rounds, size, pool, single)
    hostile()


if __name__ == "__main__":
    main()
