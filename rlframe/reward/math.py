"""Mathematics: is the completion's final answer the reference?"""

from __future__ import annotations

import re
import time
from fractions import Fraction
from typing import Any, Literal

from pydantic import Field, PrivateAttr

from rlframe.reward.base import Reward
from rlframe.reward.process import CallFailed, Process, ProcessDied
from rlframe.types import Completion, Prompt, Verdict, VerdictStatus

# What no honest answer needs and sympy spends seconds on. Whatever passes is still bounded by `timeout_s`.
MAX_EXPONENT_DIGITS = 6
MAX_NESTING = 40
MAX_MEMORY_BYTES = 2 * 2**30  # 10^(10^10) alone would take 4 GB

HUGE_EXPONENT = re.compile(rf"(?:\^|\*\*)[\s{{(+-]*[0-9]{{{MAX_EXPONENT_DIGITS + 1}}}")
BOXED_OR_BRACE = re.compile(r"\\boxed\s*\{|\\.|[{}]", re.DOTALL)
WHOLE_TEXT = re.compile(r"\\(?:text|mathrm|textbf|mathbf)\s*\{([^{}]*)\}")
THOUSANDS = re.compile(r"[+-]?[0-9]{1,3}(?:,[0-9]{3})+(?:\.[0-9]+)?")
NUMBER = re.compile(r"[+-]?(?:[0-9]{1,100}(?:\.[0-9]{0,100})?|\.[0-9]{1,100})")
PERCENT = re.compile(r"\s*(?:\\?%|\\text\s*\{\s*(?:\\?%|percent)\s*\}|\bpercent)$")
WORDS = re.compile(r"(?=.*[A-Za-z]{4})[A-Za-z][A-Za-z '-]*")


class Math(Reward):
    """1 where the final answer equals the prompt's reference, else 0: R1's accuracy reward on mathematics.

    The answer is taken from the last `<answer>…</answer>`, else the last `\\boxed{…}`, else after the last `####`.
    It is compared as text, then as a number, then by math-verify in a process that can be killed. An answer that
    no verifier finishes is the model's doing and scores 0; a crash of ours has no score.
    """

    name: Literal["math"]  # pyright: ignore[reportIncompatibleVariableOverride] (frozen, so narrowing is sound)
    timeout_s: float = Field(gt=0)  # of one comparison by math-verify
    max_answer_chars: int = Field(gt=0)

    _process: Process | None = PrivateAttr(default=None)

    def __call__(self, prompt: Prompt, completion: Completion) -> Verdict:
        started = time.perf_counter()
        score, status, detail = self._judge(prompt.reference, completion.text)
        return Verdict(score=score, status=status, seconds=time.perf_counter() - started, detail=detail)

    def start(self) -> None:
        if self._process is None:
            self._process = Process(
                "rlframe.reward.math:equivalent", warm_up=[r"\sqrt{8}", r"2\sqrt{2}"], max_memory_bytes=MAX_MEMORY_BYTES
            )
        self._process.start()

    def close(self) -> None:
        if self._process is not None:
            self._process.close()

    def _judge(self, reference: str, text: str) -> tuple[float | None, VerdictStatus, str]:
        found = final_answer(text)
        if found is None:
            return 0.0, "unparseable", r"no final answer: neither <answer>, \boxed{} nor ####"
        if len(found) > self.max_answer_chars:
            return 0.0, "unparseable", f"the answer has {len(found)} characters, at most {self.max_answer_chars}"
        reference, answer = normalize(reference), normalize(found)
        verdict = same_text(reference, answer)
        if verdict is None:
            verdict = same_number(reference, answer)
        if verdict is None:
            reason = too_big(answer)
            return (0.0, "unparseable", reason) if reason else self._verify(reference, answer)
        return float(verdict), "scored", f"{answer} {'=' if verdict else '≠'} {reference}"

    def _verify(self, reference: str, answer: str) -> tuple[float | None, VerdictStatus, str]:
        self.start()
        assert self._process is not None
        try:
            match self._process.call(reference, answer, timeout_s=self.timeout_s):
                case "equal":
                    return 1.0, "scored", f"{answer} = {reference}"
                case "different":
                    return 0.0, "scored", f"{answer} ≠ {reference}"
                case "answer unreadable":
                    return 0.0, "unparseable", f"math-verify does not read the answer {answer!r}"
                case unreadable:
                    return None, "failed", f"math-verify: {unreadable}: {reference!r}, for the answer {answer!r}"
        except TimeoutError as error:
            self.start()  # the next one warms up while the policy goes on
            return 0.0, "timeout", f"{error}: {answer!r}"
        except (CallFailed, ProcessDied) as error:
            return None, "failed", f"{answer!r} against {reference!r}: {error}"


def final_answer(text: str) -> str | None:
    """The answer that a completion ends with, or None. Linear in the text's length, whatever it holds.

    >>> final_answer("<answer>It is \\\\boxed{5}</answer>"), final_answer("thus\\n#### 5"), final_answer("it is 5")
    ('5', '5', None)
    """
    end = text.rfind("</answer>")
    start = text.rfind("<answer>", 0, end) if end >= 0 else -1
    if start >= 0:
        text = text[start + len("<answer>") : end]
        answer = last_boxed(text) or text
    else:
        answer = last_boxed(text)
        if answer is None and "####" in text:
            answer = (text.rpartition("####")[2].strip().splitlines() or [""])[0]
    return answer.strip() or None if answer is not None else None


def last_boxed(text: str) -> str | None:
    r"""What stands in the last `\boxed{…}` whose braces close, the inner one where they nest."""
    starts: list[int | None] = []  # of each open brace: where its content begins if it is a box's
    last: tuple[int, int] | None = None
    for token in BOXED_OR_BRACE.finditer(text):
        if token[0].startswith("\\boxed"):
            starts.append(token.end())
        elif token[0] == "{":
            starts.append(None)
        elif token[0] == "}" and starts:
            start = starts.pop()
            if start is not None and (last is None or start > last[0]):
                last = start, token.start()
    return text[last[0] : last[1]] if last else None


def normalize(answer: str) -> str:
    r"""Without `$`, a final period, a `\text{}` around it all and commas of thousands; runs of white space as one.

    Spaces stay: "1 2" is not 12, and (1,234) is a pair.
    """
    answer = " ".join(answer.replace(r"\$", "").replace("$", "").replace(r"\!", "").split()).removesuffix(".").strip()
    if match := WHOLE_TEXT.fullmatch(answer):
        answer = match[1].strip()
    plain = answer.replace("{,}", ",")
    return plain.replace(",", "") if THOUSANDS.fullmatch(plain) else answer


def same_text(reference: str, answer: str) -> bool | None:
    """True where they are equal; False where the reference is words, in any case; None: ask further.

    Words go no further because math-verify reads them as products of letters: "east" would equal "seat".
    """
    if reference == answer:
        return True
    return reference.casefold() == answer.casefold() if WORDS.fullmatch(reference) else None


def same_number(reference: str, answer: str) -> bool | None:
    """Whether two integers or decimals are equal, exactly; None where one of them is something else."""
    numbers = [split_percent(side) for side in (reference, answer)]
    if not all(NUMBER.fullmatch(number) for number, _ in numbers):
        return None
    (r, r_percent), (a, a_percent) = [(Fraction(number), percent) for number, percent in numbers]
    return any(x == y for x, y in readings(r, r_percent, a, a_percent))


def split_percent(answer: str) -> tuple[str, bool]:
    """Its body, and whether a percent sign follows that."""
    body = PERCENT.sub("", answer)
    return body, body != answer


def readings(reference: Any, reference_percent: bool, answer: Any, answer_percent: bool) -> list[tuple[Any, Any]]:
    """The pairs of which one must be equal. A percent sign on one side only is a unit or means hundredths.

    Data sets ask "what percentage …?" and leave the sign out of the reference, so 50 = 50%; and 0.5 = 50% is true.
    """
    pairs = [(reference, answer)]
    if reference_percent and not answer_percent:
        pairs.append((reference / 100, answer))
    if answer_percent and not reference_percent:
        pairs.append((reference, answer / 100))
    return pairs


def too_big(answer: str) -> str | None:
    """Why an answer is not worth parsing, or None."""
    if HUGE_EXPONENT.search(answer):
        return f"the answer has an exponent of more than {MAX_EXPONENT_DIGITS} digits"
    depth = 0
    for character in answer:
        depth += (character in "([{") - (character in ")]}")
        if depth > MAX_NESTING:
            return f"the answer nests more than {MAX_NESTING} brackets"
    return None


def equivalent(reference: str, answer: str) -> str:
    """Runs in the killable process: "equal", "different", "answer unreadable" or "reference unreadable".

    Raises what sympy raises while comparing; its time is bounded from outside.
    """
    import logging

    from math_verify import LatexExtractionConfig, parse, verify
    from sympy import Expr

    logging.getLogger("math_verify").setLevel(logging.ERROR)  # it warns that its own timeouts are off

    def read(latex: str) -> Any:
        # "first_match": all of it or nothing; else a part of an unreadable answer would be taken for the answer.
        # Its own timeouts are SIGALRM and end in "wrong" without a word: off.
        found = parse(
            f"${latex}$",
            [LatexExtractionConfig()],
            fallback_mode="no_fallback",
            extraction_mode="first_match",
            parsing_timeout=None,  # pyright: ignore[reportArgumentType]
            raise_on_error=True,
        )
        return found[0] if found else None

    # latex2sympy2-extended 1.11 fails on every percent sign, so it never sees one.
    (r, r_percent), (a, a_percent) = [(read(body), sign) for body, sign in map(split_percent, (reference, answer))]
    if r is None:
        return "reference unreadable"
    if a is None:
        return "answer unreadable"
    numbers = isinstance(r, Expr) and isinstance(a, Expr)
    pairs = readings(r, r_percent, a, a_percent) if numbers else [(r, a)]
    # Reference first: the comparison is not symmetric (x = 5 is taken for 5, not the other way round).
    equal = any(verify(x, y, timeout_seconds=None, raise_on_error=True) for x, y in pairs)
    return "equal" if equal else "different"
