"""Math reward: compares the completion's final answer with the reference."""

from __future__ import annotations

import functools
import time
from collections.abc import Callable
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from rlframe.reward import answer as answers
from rlframe.reward.answer import Convention
from rlframe.reward.base import Reward
from rlframe.reward.thoughts import ANSWER_TAGS
from rlframe.sandbox.process import CallFailed, Process, ProcessDied
from rlframe.types import Completion, Prompt, Verdict, VerdictStatus

MAX_MEMORY_BYTES = 2 * 2**30  # the number 10^(10^10) alone takes 4 GB


class Math(Reward):
    """1 for a final answer that equals the prompt's reference, else 0: R1's accuracy reward on mathematics.

    The answer is extracted by the conventions in `extract` (see `answer.py`) and compared as text, then as a number,
    then by math-verify in a process that can be killed. An answer that math-verify cannot read or does not finish is
    the model's fault and scores 0. A crash of the verifier or an unreadable reference is our fault and has no score.
    """

    name: Literal["math"]
    extract: list[Convention] = Field(min_length=1)
    timeout_s: float = Field(gt=0)  # of CPU time, for one comparison by math-verify
    max_answer_chars: int = Field(gt=0)

    _process: Process | None = PrivateAttr(default=None)

    def __call__(self, prompt: Prompt, completion: Completion) -> Verdict:
        started = time.perf_counter()
        score, status, detail = self._judge(prompt.reference, completion.text)
        return Verdict(score=score, status=status, seconds=time.perf_counter() - started, detail=detail)

    def check(self, reference: str) -> None:
        """Raises ValueError for a reference with which no answer can be compared.

        Words and numbers take microseconds. math-verify reads other references in this reward's process: 1 s for its
        start, then milliseconds each. `close` ends the process.
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

    def tags(self) -> list[str]:
        return ANSWER_TAGS if "answer" in self.extract else []

    def final_answer(self, completion: Completion) -> str | None:
        extracted = answers.final_answer(completion.text, self.extract)
        return answers.normalize(extracted) if extracted and len(extracted) <= self.max_answer_chars else None

    def same_answer(self, answer: str, other: str) -> bool:
        """True if either answer would be right with the other as its reference: 1/2 and 0.5. Starts math-verify."""
        equal = self._equal_without_algebra(answer, other)
        if equal is None and not (answers.too_big(answer) or answers.too_big(other)):
            equal = self._verify(answer, other)[0] == 1
        return bool(equal)

    def start(self) -> None:
        self._started()

    def facts(self) -> dict[str, float]:
        """`isolation` of the verifier: 1 under Landlock and seccomp, 0 where the kernel has less."""
        confinement = self._process.confinement() if self._process is not None else None
        return {"isolation": float(confinement == "landlock")} if confinement else {}

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
        extracted = answers.final_answer(text, self.extract)
        if extracted is None:
            return 0.0, "unparseable", f"no final answer in any of: {', '.join(self.extract)}"
        if len(extracted) > self.max_answer_chars:
            return 0.0, "unparseable", f"the answer has {len(extracted)} characters, at most {self.max_answer_chars}"
        reference, answer = answers.reference_answer(reference), answers.normalize(extracted)
        equal = self._equal_without_algebra(reference, answer)
        if equal is None:
            reason = answers.too_big(answer)
            return (0.0, "unparseable", reason) if reason else self._verify(reference, answer)
        return float(equal), "scored", f"{answer} {'=' if equal else '≠'} {reference}"

    @staticmethod
    def _equal_without_algebra(reference: str, answer: str) -> bool | None:
        equal = answers.same_text(reference, answer)
        return answers.same_number(reference, answer) if equal is None else equal

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

    sympy's error on a reference alone is the reference's fault; on a pair, the answer's. The caller bounds the time.
    """
    read, compare = math_verify()
    sides: list[tuple[Any, bool]] = []
    for side, text in (("reference", reference), ("answer", answer)):
        # latex2sympy2-extended 1.11 fails on every percent sign, so the sign is cut off.
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
    """Two functions: `read` parses one side, or returns None; `compare` takes two sides. The import takes a second."""
    import logging

    from math_verify import LatexExtractionConfig, parse, verify
    from sympy import Expr

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # drops its warning that its timeouts are off
    config = [LatexExtractionConfig()]

    def read(latex: str) -> Any:
        # "first_match": all of the text or nothing, since a fragment of an unreadable answer is not the answer.
        # math-verify's own timeouts use SIGALRM and silently mean "wrong", so they are off.
        parsed = parse(
            f"${latex}$",
            config,
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,  # pyright: ignore[reportArgumentType]
            raise_on_error=True,
        )
        return parsed[0] if parsed else None

    def compare(reference: Any, reference_percent: bool, answer: Any, answer_percent: bool) -> bool:
        pairs = [(reference, answer)]
        if isinstance(reference, Expr) and isinstance(answer, Expr):
            pairs = answers.readings(reference, reference_percent, answer, answer_percent)
        # The reference comes first: x = 5 answers the reference 5, but 5 does not answer the reference x = 5.
        return any(verify(x, y, timeout_seconds=None, raise_on_error=True) for x, y in pairs)

    return read, compare
