r"""Extraction of the final answer from a completion, and of the answer from a worked reference. In linear time."""

from __future__ import annotations

import re
from typing import Literal, NamedTuple, TypeAlias

from rlframe.answers.expressions import last_expression
from rlframe.answers.thoughts import last_tagged

Convention: TypeAlias = Literal["answer", "boxed", "hash", "last"]  # marks the final answer; see `final_answer`

BOX = re.compile(r"\\{1,3}(?:boxed|fbox)")
BOXED_OR_BRACE = re.compile(rf"{BOX.pattern}\s*\{{|{BOX.pattern}\s+(?=[0-9A-Za-z])|\\.|[{{}}]", re.DOTALL)
MAX_GAP = 60  # characters between boxes that are one answer
LABEL = re.compile(
    r"(?<![A-Za-z\\^_{])(?:[A-Za-z]|\\[a-z]+)(?:_(?:\{[^{}]{1,20}\}|[A-Za-z0-9]))?(?:\([^()]{1,20}\))? *= *\$?\s*$"
)
SEPARATOR = re.compile(r"[,;&]|\b(?:and|or)\b")
# Words of a revision: the box behind them replaces the box before them.
REVISION = re.compile(
    r"\b(?:wait|no|not|actually|instead|rather|but|hmm|oops|sorry|mistake|wrong|check|therefore|thus|so|hence|recheck"
    r"|correct\w*|should|however)\b",
    re.IGNORECASE,
)
SENTENCE_END = re.compile(r"[.!?]['\")$*\]]*\s|\n\s*\n")


class Box(NamedTuple):
    """A closed box: where it starts, where its content starts and ends, and where it ends."""

    start: int
    content_start: int
    content_end: int
    end: int


def final_answer(text: str, conventions: list[Convention]) -> str | None:
    r"""The last answer by the first of `conventions` that the completion uses, or None.

    answer: the text in the last `<answer>…</answer>`, or in a box inside it. boxed: the last `\boxed{…}`; boxes that
    stand together are one answer. hash: the line after the last `####`. last: the last formula or number of the text,
    for models that follow no convention. The time is linear in the text's length, even for hostile texts.

    >>> final_answer("<answer>It is \\boxed{5}</answer>", ["answer"]), final_answer("so\n#### 5", ["boxed", "hash"])
    ('5', '5')
    >>> final_answer(r"$x = \boxed{1}$ and $y = \boxed{2}$", ["boxed"])
    'x = 1; y = 2'
    """
    for convention in conventions:
        match convention:
            case "answer":
                tagged = last_tagged(text) or ""
                answer = tagged and (last_boxed(tagged) or conclusion(tagged))
            case "boxed":
                answer = last_boxed(text)
            case "hash":
                answer = after_hashes(text)
            case "last":
                answer = last_expression(text)
        if answer and answer.strip():
            return answer.strip()
    return None


def last_boxed(text: str) -> str | None:
    """The answer in the last boxes that stand together."""
    answers = boxed_answers(text) if "box{" in text or "boxed" in text else []
    return answers[-1] if answers else None


def boxed_answers(text: str) -> list[str]:
    r"""The answers in boxes, in the order of the text: content of a box, or of boxes that stand together.

    >>> boxed_answers(r"\boxed{1} and \boxed{2}. We check: \boxed{3}")
    ['1; 2', '3']
    """
    found = boxes(text)
    if len(found) == 1:
        return [text[found[0].content_start : found[0].content_end].strip()]
    groups: list[list[tuple[str, str]]] = []  # label before a box, content
    last: Box | None = None
    for box in found:
        label = LABEL.search(text, max(0, box.start - 40), box.start)
        labelled = (
            label[0].replace("$", "").strip() if label else "",
            text[box.content_start : box.content_end].strip(),
        )
        if last is not None and stand_together(text[last.end : box.start]):
            groups[-1].append(labelled)
        else:
            groups.append([labelled])
        last = box
    return [joined(group) for group in groups]


def joined(group: list[tuple[str, str]]) -> str:
    """The contents of boxes; different ones with the labels before them, apart from each other."""
    if len({content for _, content in group}) == 1:
        return group[0][1]
    return "; ".join(dict.fromkeys(f"{label} {content}".strip() for label, content in group))


def boxes(text: str) -> list[Box]:
    r"""Closed boxes that hold no other closed box: of nested boxes, the inner one."""
    starts: list[
        tuple[int, int] | None
    ] = []  # for each open brace: start of a box and of its content; None: another brace
    found: list[Box] = []
    for token in BOXED_OR_BRACE.finditer(text):
        if BOX.match(token[0]):
            if token[0].endswith("{"):
                starts.append((token.start(), token.end()))
            else:  # \boxed 5
                found.append(Box(token.start(), token.end(), token.end() + 1, token.end() + 1))
        elif token[0] == "{":
            starts.append(None)
        elif token[0] == "}" and starts:
            start = starts.pop()
            if start is not None and not (found and found[-1].start > start[0]):
                found.append(Box(start[0], start[1], token.start(), token.end()))
    return found


def stand_together(gap: str) -> bool:
    """True for a short connecting text within a sentence: "and y =", a comma, math delimiters."""
    if len(gap) > MAX_GAP or REVISION.search(gap):
        return False
    if len(gap.strip()) < 10 and not re.search(r"[A-Za-z]{3}", gap.replace(r"\quad", "").replace("and", "")):
        return not re.search(r"\.\s", gap)
    return SEPARATOR.search(gap) is not None and SENTENCE_END.search(gap) is None


def after_hashes(text: str) -> str | None:
    _, hashes, tail = text.rpartition("####")
    return tail.strip().partition("\n")[0] if hashes else None


def reference_answer(reference: str) -> str:
    r"""The answer of a reference: of a whole solution, the last boxed one, or the line after `####`."""
    boxed = last_boxed(reference)
    return boxed if boxed is not None else after_hashes(reference) or reference


SENTENCE = re.compile(r"(?:(?<=[.?])|(?<=[a-z]!))[\s*]+(?=[A-Z\\$])|\s*\n\s*")
ANSWER = re.compile(r"\b(?:answer|solution|result)\b", re.IGNORECASE)
PROSE = re.compile(r"(?<![\\A-Za-z])[A-Za-z]{3,}")
DISPLAY = re.compile(r"\\begin|\\\[|\$\$")


def conclusion(text: str) -> str:
    """The sentence of a tagged text that states the answer: the last one about an answer, else the last with a value.

    Lines without prose are values beside each other.

    >>> conclusion("2 + 3 = 5.\\nThe answer is 5. I hope it is right."), conclusion("x = 1\\ny = 2")
    ('The answer is 5.', 'x = 1; y = 2')
    """
    text = text.strip()
    if DISPLAY.search(text):
        return text
    sentences = [sentence for sentence in SENTENCE.split(text) if sentence.strip()]
    if len(sentences) < 2:
        return text
    if not any(PROSE.search(sentence) for sentence in sentences):
        return "; ".join(sentences)
    about = [sentence for sentence in sentences if ANSWER.search(sentence)]
    valued = [sentence for sentence in sentences if re.search(r"[0-9\\]", sentence)]
    return (about or valued or [text])[-1]
