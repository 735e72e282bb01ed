"""Math reward: compares the completion's final answer with the reference."""

from __future__ import annotations

import time
from typing import Literal

from pydantic import Field, PrivateAttr

from rlframe.answers.bounds import too_big
from rlframe.answers.comparison import Comparison, Units
from rlframe.answers.extraction import Convention, boxed_answers, final_answer, reference_answer
from rlframe.answers.latex import formulas
from rlframe.answers.reading import read
from rlframe.answers.spelling import plain
from rlframe.answers.thoughts import ANSWER_TAGS
from rlframe.answers.values import Unreadable
from rlframe.reward.base import Reward
from rlframe.sandbox.process import CallFailed, Process, ProcessDied
from rlframe.types import Completion, Prompt, Verdict, VerdictStatus

MAX_MEMORY_BYTES = 2 * 2**30  # the number 10^(10^10) alone takes 4 GB


class Math(Reward):
    """1 for a final answer that equals the prompt's reference, else 0: R1's accuracy reward on mathematics.

    The answer is extracted by the conventions in `extract`, and read as a number, words, a date, a set and so on (see
    `answers/`). Values are compared by their kind. What only algebra can decide is compared by math-verify in a process
    that can be killed. An answer that math-verify cannot read or does not finish is the model's fault and scores 0. A
    crash of the verifier or an unreadable reference is our fault and has no score.
    """

    name: Literal["math"]
    extract: list[Convention] = Field(min_length=1)
    timeout_s: float = Field(gt=0)  # of CPU time, for one comparison by math-verify
    max_answer_chars: int = Field(gt=0)
    # Optional settings default to off.
    units: Units = "ignore"  # "compare": 5 cm is not 5 m, but 0.05 m

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
        if other := self._contradiction(reference):
            raise ValueError(f"the reference has two answers in boxes, {other[0]!r} and {other[1]!r}: leave one box")
        answer = reference_answer(reference).strip()
        value = read(answer) if len(answer) <= self.max_answer_chars else None
        if value is None:
            raise ValueError(f"the reference has {len(answer)} characters, but answers at most {self.max_answer_chars}")
        if value == Unreadable("empty"):
            raise ValueError(f"the reference {reference!r} is empty")
        if isinstance(value, Unreadable):
            raise ValueError(f"the reference {answer!r} cannot be read: {value.why}")
        if not formulas(value):
            return
        if reason := too_big(plain(answer)):
            raise ValueError(f"the reference {answer!r}: {reason.replace('the answer', 'it')}")
        try:
            outcome = self._started().call(answer, None, self.units, timeout_s=self.timeout_s)
        except TimeoutError as error:
            raise ValueError(
                f"math-verify takes more than {self.timeout_s:g} s for the reference {answer!r}"
            ) from error
        if outcome != "equal":
            raise ValueError(f"math-verify does not read the reference {answer!r}: {outcome}")

    def tags(self) -> list[str]:
        return ANSWER_TAGS if "answer" in self.extract else []

    def final_answer(self, completion: Completion) -> str | None:
        answer = final_answer(completion.text, self.extract)
        return answer if answer and len(answer) <= self.max_answer_chars else None

    def same_answer(self, answer: str, other: str) -> bool:
        """True if either answer would be right with the other as its reference: 1/2 and 0.5. Starts math-verify."""
        return any(self._compare(*pair)[0] == 1 for pair in ((answer, other), (other, answer)))

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
                "rlframe.answers.algebra:equivalent",
                warm_up=[r"\sqrt{8}", r"2\sqrt{2}"],
                max_memory_bytes=MAX_MEMORY_BYTES,
            )
        self._process.start()
        return self._process

    def _judge(self, reference: str, text: str) -> tuple[float | None, VerdictStatus, str]:
        answer = final_answer(text, self.extract)
        if answer is None:
            return 0.0, "unparseable", f"no final answer in any of: {', '.join(self.extract)}"
        if len(answer) > self.max_answer_chars:
            return 0.0, "unparseable", f"the answer has {len(answer)} characters, at most {self.max_answer_chars}"
        if other := self._contradiction(reference):
            return None, "failed", f"the reference has two answers in boxes: {other[0]!r} and {other[1]!r}"
        return self._compare(reference_answer(reference).strip(), answer)

    def _compare(self, reference: str, answer: str) -> tuple[float | None, VerdictStatus, str]:
        if reference == answer:
            return 1.0, "scored", f"{answer} = {reference}"
        value = read(answer)
        if isinstance(value, Unreadable):
            return 0.0, "unparseable", f"the answer {answer!r} cannot be read: {value.why}"
        equal = Comparison(self.units).same(read(reference), value)
        if equal is None:
            reason = too_big(plain(answer))
            return (0.0, "unparseable", reason) if reason else self._verify(reference, answer)
        return float(equal), "scored", f"{answer} {'=' if equal else '≠'} {reference}"

    def _contradiction(self, reference: str) -> tuple[str, str] | None:
        """Two different answers in boxes of a reference that stand far apart, or None."""
        answers = boxed_answers(reference) if reference.count("\\boxed") > 1 else []
        for answer in answers[:-1]:
            if self._compare(answers[-1], answer)[0] != 1:
                return answer, answers[-1]
        return None

    def _verify(self, reference: str, answer: str) -> tuple[float | None, VerdictStatus, str]:
        try:
            match self._started().call(reference, answer, self.units, timeout_s=self.timeout_s):
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
