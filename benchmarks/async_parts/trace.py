"""`Trace`: the lengths of all completions of a simulated run, from a seed, and the bound on its speed."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from rlframe.types import Prompt

MEDIAN, SIGMA, CAP = 1000, 1.0, 16_000  # tokens; of a lognormal distribution
PROMPTS_A_DRAW = 1024
PROMPT = [0] * 100  # tokens of every prompt


class Trace:
    """Lengths of completions by prompt and index: long-tailed, and the same at every call and on every machine.

    >>> Trace(group=4, seed=0)[0]
    [1134, 877, 1898, 1111]
    """

    def __init__(self, group: int, seed: int) -> None:
        """`group`: completions of a prompt."""
        self.group = group
        self.seed = seed
        self._blocks: dict[int, list[list[int]]] = {}

    def __getitem__(self, prompt: int) -> list[int]:
        """[G] tokens of the completions of prompt number `prompt`."""
        block, row = divmod(prompt, PROMPTS_A_DRAW)
        if block not in self._blocks:
            normal = np.random.default_rng([self.seed, block]).standard_normal((PROMPTS_A_DRAW, self.group))
            lengths = np.minimum(np.ceil(MEDIAN * np.exp(SIGMA * normal)), CAP)
            self._blocks[block] = lengths.astype(int).tolist()
        return self._blocks[block][row]


class PromptTrace:
    """The prompts of a trace, as `prompts/stream.py` has the prompts of a run. A prompt holds its lengths."""

    def __init__(self, trace: Trace) -> None:
        self.trace = trace

    def at(self, position: int) -> Prompt:
        return Prompt(
            id=f"trace/{position}@0",
            messages=[],
            token_ids=PROMPT,
            reference="",
            task="math",
            extra={"lengths": self.trace[position]},
        )


def mean_length() -> float:
    """Expected tokens of a completion: 1,631."""
    quantiles = (np.arange(100_000) + 0.5) / 100_000
    return float(np.minimum(np.ceil(MEDIAN * np.exp(SIGMA * _normal_quantile(quantiles))), CAP).mean())


def _normal_quantile(shares: np.ndarray) -> np.ndarray:
    from statistics import NormalDist

    return np.array([NormalDist().inv_cdf(share) for share in shares.tolist()])


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """The work of a finished run, and what bounds its duration from below."""

    tokens: int  # trained
    longest: int  # tokens of a trained completion
    slots: float  # of all engines, an engine of a tenth of the speed counting a tenth
    token_s: float  # seconds of a token in a slot
    learner_s: float  # of all steps

    @property
    def bound_s(self) -> float:
        """No schedule is faster: slots sample without a pause, the longest completion at once, the learner always."""
        return max(self.tokens * self.token_s / self.slots, self.longest * self.token_s, self.learner_s)
