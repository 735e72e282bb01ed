"""Mathematics: is the completion's final answer the reference?"""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from rlframe.reward import answer as answers
from rlframe.reward.answer import Place
from rlframe.reward.base import Reward
from rlframe.sandbox.process import CallFailed, Process, ProcessDied
from rlframe.types import Completion, Prompt, Verdict, VerdictStatus

MAX_MEMORY_BYTES = 2 * 2**30  # 10^(10^10) alone would take 4 GB


class Math(Reward):
    """1 where the final answer equals the prompt's reference, else 0: R1's accuracy reward on mathematics.

    The answer is taken from the places in `extract` (see `answer.py`) and compared as text, then as a number, then
    by math-verify in a process that can be killed. An answer that no verifier reads or finishes is the model's doing
    and scores 0; a crash of ours, or a reference that cannot be read, has no score.
    """

    name: Literal["math"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is sound)
    extract: list[Place] = Field(min_length=1)
    timeout_s: float = Field(gt=0)  # of one comparison by math-verify
    max_answer_chars: int = Field(gt=0)

    _process: Process | None = PrivateAttr(default=None)

    def __call__(self, prompt: Prompt, completion: Completion) -> Verdict:
        started = time.perf_counter()
        score, status, detail = self._judge(prompt.reference, completion.text)
        return Verdict(score=score, status=status, seconds=time.perf_counter() - started, detail=detail)

    def check(self, reference: str) -> None:
        """Raises ValueError where no answer could ever be compared with a reference.

        Words and numbers take microseconds. Anything else is read by math-verify, in the one process that this reward
        has anyway: 1 s for its start and milliseconds for each. `close` ends it.
        """
        plain = answers.reference_answer(reference)
        if not plain:
            raise ValueError(f"the reference {reference!r} is empty")
        if len(plain) > self.max_answer_chars:
            raise ValueError(f"the reference has {len(plain)} characters, but answers at most {self.max_answer_chars}")
        if answers.is_words(plain) or answers.number(plain):
            return
        if reason := answers.too_big(plain):
            raise ValueError(f"the reference {plain!r}: {reason.replace('the answer', 'it')}")
        try:
            outcome = self._started().call(plain, plain, timeout_s=self.timeout_s)
        except TimeoutError as error:
            raise ValueError(f"math-verify takes more than {self.timeout_s:g} s for the reference {plain!r}") from error
        if outcome != "equal":
            raise ValueError(f"math-verify does not read the reference {plain!r}: {outcome}")

    def start(self) -> None:
        self._started()

    def close(self) -> None:
        if self._process is not None:
            self._process.close()

    def _started(self) -> Process:
        if self._process is None:
            self._process = Process(
                "rlframe.reward.math:equivalent", warm_up=[r"\sqrt{8}", r"2\sqrt{2}"], max_memory_bytes=MAX_MEMORY_BYTES
            )
        self._process.start()
        return self._process

    def _judge(self, reference: str, text: str) -> tuple[float | None, VerdictStatus, str]:
        found = answers.final_answer(text, self.extract)
        if found is None:
            return 0.0, "unparseable", f"no final answer in any of: {', '.join(self.extract)}"
        if len(found) > self.max_answer_chars:
            return 0.0, "unparseable", f"the answer has {len(found)} characters, at most {self.max_answer_chars}"
        reference, answer = answers.reference_answer(reference), answers.normalize(found)
        verdict = answers.same_text(reference, answer)
        if verdict is None:
            verdict = answers.same_number(reference, answer)
        if verdict is None:
            reason = answers.too_big(answer)
            return (0.0, "unparseable", reason) if reason else self._verify(reference, answer)
        return float(verdict), "scored", f"{answer} {'=' if verdict else '≠'} {reference}"

    def _verify(self, reference: str, answer: str) -> tuple[float | None, VerdictStatus, str]:
        try:
            match self._started().call(reference, answer, timeout_s=self.timeout_s):
                case "equal":
                    return 1.0, "scored", f"{answer} = {reference}"
                case "different":
                    return 0.0, "scored", f"{answer} ≠ {reference}"
                case str(outcome) if outcome.startswith("answer"):
                    return 0.0, "unparseable", f"math-verify: {outcome}: {answer!r}"
                case outcome:
                    return None, "failed", f"math-verify: {outcome}: {reference!r}, for the answer {answer!r}"
        except TimeoutError as error:
            return 0.0, "timeout", f"{error}: {answer!r}"
        except (CallFailed, ProcessDied) as error:
            return None, "failed", f"{answer!r} against {reference!r}: {error}"


def equivalent(reference: str, answer: str) -> str:
    """Runs in the killable process: "equal", "different", "answer unreadable…" or "reference unreadable…".

    What sympy raises on a reference that it does not know is the reference's fault; on a pair, the answer's. Its time
    is bounded from outside.
    """
    read, compare = math_verify()
    sides: list[tuple[Any, bool]] = []
    for side, text in (("reference", reference), ("answer", answer)):
        # latex2sympy2-extended 1.11 fails on every percent sign, so it never sees one.
        body, percent = answers.split_percent(text)
        try:
            expression = read(body)
        except Exception as error:
            return f"{side} unreadable: {type(error).__name__}: {error}"
        if expression is None:
            return f"{side} unreadable"
        sides.append((expression, percent))
    try:
        return "equal" if compare(*sides[0], *sides[1]) else "different"
    except Exception as error:
        return f"answer incomparable: {type(error).__name__}: {error}"


@functools.cache
def math_verify() -> tuple[Callable[[str], Any], Callable[[Any, bool, Any, bool], bool]]:
    """Reads one side, or None; compares two, each with its percent sign. Importing takes a second."""
    import logging

    from math_verify import LatexExtractionConfig, parse, verify
    from sympy import Expr

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own timeouts are off
    config = [LatexExtractionConfig()]

    def read(latex: str) -> Any:
        # "first_match": all of it or nothing; else a part of an unreadable answer would be taken for the answer.
        # Its own timeouts are SIGALRM and end in "wrong" without a word: off.
        found = parse(
            f"${latex}$",
            config,
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,  # pyright: ignore[reportArgumentType]
            raise_on_error=True,
        )
        return found[0] if found else None

    def compare(r: Any, r_percent: bool, a: Any, a_percent: bool) -> bool:
        numbers = isinstance(r, Expr) and isinstance(a, Expr)
        pairs = answers.readings(r, r_percent, a, a_percent) if numbers else [(r, a)]
        # Reference first: the comparison is not symmetric (x = 5 is taken for 5, not the other way round).
        return any(verify(x, y, timeout_seconds=None, raise_on_error=True) for x, y in pairs)

    return read, compare
