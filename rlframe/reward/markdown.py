"""Blocks of code in a completion's Markdown, read line by line in linear time.

A block stands between fences of three or more backticks or tildes (CommonMark, section 4.5), in `[PYTHON]…[/PYTHON]`,
or in HTML's `<pre>` and `<code>`. Models bend the rules, so some lines count that CommonMark reads as text: a fence of
any indent, a fence behind words and a colon, a closing fence behind the last line of code, and a fence with a language
in place of a forgotten closing fence. A fence inside a docstring does not close its block.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal, TypeAlias

from rlframe.reward.syntax import parsed

Language: TypeAlias = Literal["python", "unnamed", "markdown", "other"]

# Quotes and list items in front of a fence. Possessive quantifiers: a hostile line costs no retries.
CONTAINER = re.compile(r"(?:[ \t]*+(?:>|[-*+](?=[ \t])|[0-9]{1,9}+[.)](?=[ \t])))*+[ \t]*+")
QUOTE = re.compile(r"[ \t]*+> ?")
FENCE = re.compile(r"(?P<fence>`{3,}+|~{3,}+)[ \t]*+(?P<info>.*)", re.DOTALL)
TAG = re.compile(
    r"(?P<python>\[PYTHON\]|<python>)|<pre\b[^<>]*>(?:\s*<code\b[^<>]*>)?|^\s*<code\b[^<>]*>"
    r"|\\begin\{(?P<latex>lstlisting|minted|verbatim)\}(?:\[[^\]]*\])?(?:\{\w+\})?"
)
END_OF_TAG = {"[": "[/PYTHON]", "<py": "</python>", "<pr": "</pre>", "<co": "</code>"}
ENTITIES = {"&lt;": "<", "&gt;": ">", "&quot;": '"', "&#39;": "'", "&amp;": "&"}
TRIPLE_QUOTE = re.compile("\"\"\"|'''")
AFTER_FENCE = tuple("})]>.,;:!?*_\"'<|")  # behind a closing fence; behind an opening one stands a language
PYTHON = re.compile(r"(?:i?python|py|pycon|pypy|cpython)[-_]?[0-9.]*|.*\.py|python-(?:repl|console)", re.IGNORECASE)
UNNAMED = ("", "code", "program", "solution", "answer")
MAX_DEPTH = 2  # of blocks inside blocks of Markdown
MAX_PARAGRAPHS = 16  # of prose behind a block that is never closed


@dataclass(frozen=True, slots=True)
class Block:
    """A block of code. `transcript`: its lines were those of an interactive session, and outputs are left out."""

    language: Language
    text: str
    transcript: bool = False


def blocks(text: str, ended: bool, depth: int = 0) -> list[Block]:
    """The blocks of a text in their order. `ended`: the text is complete, so an unclosed last block counts.

    >>> blocks("Run\\n```bash\\nls\\n```\\nand\\n~~~ {.python}\\nprint(1)\\n~~~", ended=True)
    [Block(language='other', text='ls\\n', transcript=False), Block(language='python', text='print(1)\\n', ...)]
    """
    reader = _Reader(text)
    found: list[Block] = []
    while (opening := reader.next_opening()) is not None:
        content, closed = reader.content(opening)
        if not closed and not ended:
            break
        inner = "".join(content)
        fenced_tag = opening.end_tag and FENCE.match(inner.lstrip())
        if depth < MAX_DEPTH and (opening.language == "markdown" or fenced_tag):
            found += blocks(inner, ended, depth + 1)
        elif inner.strip():
            found.append(_block(opening.language, content if closed else _without_prose(content)))
    return found


def fenced_ranges(text: str) -> tuple[list[str], list[tuple[int, int]]]:
    """The lines of a text, and of each fenced block the indices of its first line and of the line behind its last."""
    reader = _Reader(text)
    ranges: list[tuple[int, int]] = []
    while (opening := reader.next_opening()) is not None:
        start = reader.position
        content, _ = reader.content(opening)
        if opening.fence:
            ranges.append((start, start + len(content)))
    return reader.lines, ranges


def indented_blocks(text: str) -> list[Block]:
    """Blocks of lines that start with four spaces, behind an empty line (CommonMark, section 4.4)."""
    paragraphs: list[list[str]] = [[]]
    is_block = True  # the last line that is not empty is part of a block, or is followed by an empty line
    for line in re.split(r"(?<=\n)", text):
        if not line.strip():
            paragraphs[-1].append(line)
            is_block = True
        elif is_block and line.startswith(("    ", "\t")):
            paragraphs[-1].append(line)
        else:
            paragraphs.append([])
            is_block = False
    return [_block("unnamed", lines) for lines in paragraphs if any(line.strip() for line in lines)]


@dataclass(frozen=True, slots=True)
class _Opening:
    """The start of a block: a fence, or a tag whose end is `end_tag`."""

    language: Language
    fence: str = ""
    quotes: int = 0  # number of `>` in front of each line of the block
    end_tag: str = ""
    rest: str = ""  # of the line, which belongs to a tag's content


class _Reader:
    """The lines of a text and the position of the next one."""

    def __init__(self, text: str) -> None:
        self.lines = re.split(r"(?<=\n)", text)
        self.position = 0
        quoted = [number for number, line in enumerate(self.lines) if TRIPLE_QUOTE.search(line)]
        self.last_quoted_line = quoted[-1] if quoted else -1

    def next_opening(self) -> _Opening | None:
        """Moves behind the next line that opens a block."""
        while self.position < len(self.lines):
            line = self.lines[self.position]
            self.position += 1
            if opening := _fence(line) or _fence_behind_words(line) or _tag(line):
                return opening
        return None

    def content(self, opening: _Opening) -> tuple[list[str], bool]:
        """The lines of a block, and True if the block has an end. Moves behind the end."""
        return self._tagged(opening) if opening.end_tag else self._fenced(opening)

    def _tagged(self, opening: _Opening) -> tuple[list[str], bool]:
        content, line = [], opening.rest
        while True:
            inside, end_tag, _ = line.partition(opening.end_tag)
            content.append(_unescaped(inside) if opening.end_tag[0] == "<" else inside)
            if end_tag or self.position == len(self.lines):
                return content, bool(end_tag)
            line = self.lines[self.position]
            self.position += 1

    def _fenced(self, opening: _Opening) -> tuple[list[str], bool]:
        content: list[str] = []
        string = ""  # the triple quote of an open string
        while self.position < len(self.lines):
            line = _unquoted(self.lines[self.position], opening.quotes)
            if line is None:
                return content, True
            if not string or self.position >= self.last_quoted_line:
                body = line.strip()
                behind = body.lstrip(opening.fence[0]).lstrip()
                if body.startswith(opening.fence) and (not behind or behind.startswith(AFTER_FENCE)):
                    self.position += 1
                    return content, True
                following = _fence(self.lines[self.position])
                if following and following.language != "unnamed" and following.fence.startswith(opening.fence):
                    return content, True
                code = body.rstrip("`")
                if opening.fence[0] == "`" and body.endswith(opening.fence) and code and "`" not in code:
                    self.position += 1
                    return [*content, line.rstrip().rstrip("`") + "\n"], True
            if opening.language in ("python", "unnamed"):
                for quote in TRIPLE_QUOTE.findall(line):
                    string = "" if string == quote else string or quote
            content.append(line)
            self.position += 1
        return content, False


def _fence(line: str) -> _Opening | None:
    """The opening fence that a line consists of."""
    container = CONTAINER.match(line)
    assert container
    match = FENCE.match(line, container.end())
    if not match or (match["fence"][0] == "`" and "`" in match["info"]):
        return None
    return _Opening(language_of(match["info"]), match["fence"], container[0].count(">"))


def _fence_behind_words(line: str) -> _Opening | None:
    """The fence at a line's end behind words: `The program is: ```python`."""
    words, fence, info = line.rpartition("```")
    if not fence or "`" in words:
        return None
    language = language_of(info)
    announced = language == "unnamed" and not info.strip() and words.rstrip().endswith((":", ">"))
    return _Opening(language, fence) if language == "python" or announced else None


def _tag(line: str) -> _Opening | None:
    match = TAG.search(line)
    if not match:
        return None
    language: Language = "python" if match["python"] or "python" in match[0].lower() else "unnamed"
    if language == "unnamed" and "language-" in match[0]:
        language = "other"
    tag = match[0].lstrip()
    if match["latex"]:
        end_tag = f"\\end{{{match['latex']}}}"
    else:
        [end_tag] = (
            ["</code>"] if "<code" in tag else [end for start, end in END_OF_TAG.items() if tag.startswith(start)]
        )
    return _Opening(language, end_tag=end_tag, rest=line[match.end() :])


def language_of(info: str) -> Language:
    """The language that a fence's info string names.

    >>> [language_of(info) for info in ("python3.11", '{.python .numberLines}', 'py title="a.py"', "json", "")]
    ['python', 'python', 'python', 'other', 'unnamed']
    """
    words = re.split(r"[\s,;:=#{}()\[\]]+", info.strip().strip("{}[]() ."), maxsplit=1)
    word = words[0].strip(".").lower()
    if PYTHON.fullmatch(word):
        return "python"
    return "markdown" if word in ("markdown", "md") else "unnamed" if word in UNNAMED else "other"


def _unquoted(line: str, quotes: int) -> str | None:
    """The line without its quote marks; None if one is missing."""
    for _ in range(quotes):
        mark = QUOTE.match(line)
        if not mark:
            return None
        line = line[mark.end() :]
    return line


def _unescaped(text: str) -> str:
    for entity, character in ENTITIES.items():
        text = text.replace(entity, character)
    return text


def _block(language: Language, lines: Sequence[str]) -> Block:
    """The block without the indent that its lines have in common, without a label, and without a session's prompts."""
    lines = _dedented(lines)
    first = next(index for index, line in enumerate(lines) if line.strip())
    if language == "unnamed" and PYTHON.fullmatch(lines[first].strip()):  # a label, such as `python`
        language, lines = "python", lines[first + 1 :]
    elif lines[first].startswith(">>>"):
        code = [line[4:] if line[3:4] == " " else line[3:] for line in lines if line.startswith((">>>", "..."))]
        return Block("python" if language == "unnamed" else language, "".join(code), transcript=True)
    return Block(language, "".join(lines))


def without_prose(text: str) -> str:
    """The text up to the last empty line before which it is a program; all of it if there is none."""
    return "".join(_without_prose(re.split(r"(?<=\n)", text)))


def _without_prose(lines: list[str]) -> list[str]:
    """The lines of a block that was never closed, up to the last empty line before which they are a program."""
    ends = [len(lines), *(index for index in range(len(lines) - 1, 0, -1) if not lines[index].strip())]
    for end in ends[:MAX_PARAGRAPHS]:
        if parsed("".join(_dedented(lines[:end]))) is not None:
            return lines[:end]
    return lines


def _dedented(lines: Sequence[str]) -> list[str]:
    indents = [line[: len(line) - len(line.lstrip(" \t"))] for line in lines if line.strip()]
    least, greatest = (
        min(indents, default=""),
        max(indents, default=""),
    )  # a prefix that these two have in common, all have
    margin = next((index for index, char in enumerate(least) if greatest[index] != char), len(least))
    return [line[margin:] if line.strip() else line for line in lines]
