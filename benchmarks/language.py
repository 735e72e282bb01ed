"""Thoughts a second of the language reward on one core, against one findall of words over the same texts.

    python benchmarks/language.py

A thought is 500 words of sentences sampled from the labelled set. Rounds of both alternate. Prints medians and
extremes, the ratio of the two rates, and the share of the labelled set that scores within a tenth.
"""

from __future__ import annotations

import json
import random
import re
import statistics
import time
from pathlib import Path

from rlframe.reward.language import Language, count_words
from rlframe.types import Completion, Prompt

CASES = Path(__file__).parents[1] / "tests" / "reward" / "language_cases.jsonl"
ROUNDS, THOUGHTS, WORDS = 15, 100, 500
WORD = re.compile(r"\w+")
PROMPT = Prompt(id="p", messages=[{"role": "user", "content": "How many?"}], token_ids=[], reference="", task="math")
KINDS = {
    "english": ["english"],
    "chinese": ["chinese"],
    "mixed, with mathematics and code": ["english", "chinese", "lines", "inside", "maths", "code"],
    "French": ["fr"],
}


def main() -> None:
    cases = [json.loads(line) for line in CASES.read_text().splitlines()]
    for label, kinds in KINDS.items():
        pool = [c["text"] for c in cases if c["share"] and (c["kind"] in kinds or c["target"] in kinds)]
        thoughts = [thought(pool, random.Random(seed)) for seed in range(THOUGHTS)]
        reward = Language(name="language", weight=1.0, language="en")
        rates: dict[str, list[float]] = {"reward": [], "findall": []}
        for _ in range(ROUNDS):
            rates["reward"].append(rate(lambda completion, r=reward: r(PROMPT, completion), thoughts))
            rates["findall"].append(rate(lambda completion: WORD.findall(completion.text), thoughts))
        ratio = statistics.median(r / f for r, f in zip(rates["reward"], rates["findall"], strict=True))
        for name, values in rates.items():
            figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
            print(json.dumps({"thoughts": label, "part": name, **{k: round(v) for k, v in figures.items()}}))
        print(f"{label}: {ratio:.3f} of the rate of one findall")
    print(f"labelled set: {accuracy(cases, mixed=False)} in one language, {accuracy(cases, mixed=True)} mixed")


def thought(pool: list[str], rng: random.Random) -> Completion:
    lines: list[str] = []
    words = 0.0
    while words < WORDS:
        lines.append(rng.choice(pool))
        words += count_words(lines[-1], frozenset(), favoured=None).total()
    text = "<think>" + "\n".join(lines) + "</think>5"
    return Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop")


def rate(work, thoughts: list[Completion]) -> float:
    """Thoughts a second of CPU time."""
    started = time.process_time()
    for completion in thoughts:
        work(completion)
    return len(thoughts) / (time.process_time() - started)


def accuracy(cases: list[dict], mixed: bool) -> str:
    counted = [case for case in cases if (0 < case["share"] < 1) == mixed]
    right = sum(abs(share(case) - case["share"]) <= 0.1 for case in counted)
    return f"{right} of {len(counted)}"


def share(case: dict) -> float:
    counts = count_words(case["text"], frozenset(), favoured=case["target"])
    return counts[case["target"]] / counts.total()


if __name__ == "__main__":
    main()
