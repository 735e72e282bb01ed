"""A math reward for tests, and verdicts on texts and answers."""

from rlframe.answers.comparison import Units
from rlframe.answers.extraction import Convention
from rlframe.reward.math import Math
from rlframe.types import Completion, Prompt, Verdict

TIMEOUT_S = 1.0


def make(timeout_s: float, units: Units = "ignore") -> Math:
    extract: list[Convention] = ["answer", "boxed", "hash"]
    return Math(name="math", weight=1.0, extract=extract, timeout_s=timeout_s, max_answer_chars=2000, units=units)


def judge(math: Math, reference: str, text: str) -> Verdict:
    prompt = Prompt(id="p", messages=[], token_ids=[], reference=reference, task="math")
    return math(prompt, Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop"))


def score(math: Math, reference: str, answer: str) -> float | None:
    return judge(math, reference, f"<answer>{answer}</answer>").score
