"""The program in a completion: the choice among its blocks of code.

A reader looks behind the thoughts, first in the answer tags, then in the rest; thoughts themselves never count. In each
of these texts, blocks called Python go before blocks without a language; blocks of other languages never run. A text
without blocks can be a program as a whole. The last program counts. A block that shows a call, an output or a test file
behind the program is no program:

- Tests of functions name what they need. The last block that defines a needed name is the program. A function without
  a body, such as a repeated signature, defines nothing; nor does `from solution import add` beside a block with `add`.
- A script is the last block that acts and reads standard input, else the last block that acts. A block that acts
  calls a function of its own, or prints, or reads. A block that calls a function of a complete script is an example.
- Earlier blocks go in front where they define a name that the program uses and does not define.
"""

from __future__ import annotations

import ast
import re
import sys
from collections.abc import Sequence, Set
from dataclasses import dataclass, replace
from itertools import islice
from typing import TypeAlias

from rlframe.answers.thoughts import last_tagged
from rlframe.reward.markdown import Block, blocks, fenced_ranges, indented_blocks, without_prose
from rlframe.reward.syntax import bound_names, names_in, outside_of_definitions, parsed

Needs: TypeAlias = Sequence[Set[str]]  # of each set, the program must define a name

QUOTED = "\0"  # stands for `<`: no program may contain this character
TAG = re.compile(r"<(/?(?:think|answer)>)")
QUOTED_TAG = re.compile(r"`<(?=/?(?:think|answer)>`)")
MAX_BLOCKS = 64  # that are looked at, from the end of a text
MAX_BARE_CHARS = 20_000  # of a text that is read from each of its first paragraphs on
MAX_STARTS = 4
MAGIC = re.compile(r"^[%!].*$", re.MULTILINE)  # a notebook's command, which is no Python
INLINE = re.compile(r"(`{1,3})(?:(?:python|py)\s+)?([^`]++)\1")
LABEL = re.compile(r"(?:python|py)[0-9.]*[ \t]*\n", re.IGNORECASE)
PARAGRAPH = re.compile(r"\n[ \t]*\n|:[ \t]*\n")  # stands in front of a program behind words
STATEMENT = re.compile(r"^(?:import |from \w|def |class |async def |@)", re.MULTILINE)  # starts a program behind words
OUTPUT_AND_INPUT = frozenset({"print", "input", "open", "stdin", "stdout"})


def program_of(text: str, needs: Needs = (), *, ended: bool = False) -> str | None:
    """The program of a completion; None if there is none.

    `ended`: the completion was not cut off, so an unclosed last block counts as closed.
    """
    # Thoughts that never end have no answer, except for a text in front of them.
    answer = _without_quoted_tags(text).rpartition("</think>")[2].partition("<think>")[0]
    tagged = last_tagged(answer)
    if tagged is None and ended and "<answer>" in answer:
        tagged = answer.rpartition("<answer>")[2]
    if tagged is not None:
        tagged = tagged.replace(QUOTED, "<")
        program = _choice(blocks(tagged, True), needs) or _without_blocks(tagged, needs, is_tagged=True)
        if program is not None:
            return program
    answer = answer.replace(QUOTED, "<")
    program = _choice(blocks(answer, ended), needs)
    if program is None and ended:
        program = _without_blocks(answer, needs, is_tagged=False)
    return program


def _without_quoted_tags(text: str) -> str:
    """The text with `QUOTED` for the first character of each tag that a program or a word in backticks holds."""
    if not TAG.search(text):
        return text
    lines, ranges = fenced_ranges(QUOTED_TAG.sub(f"`{QUOTED}", text))
    for start, end in ranges:
        source = "".join(lines[start:end])
        # A block that is no program may lack its end, and go on in the answer.
        if TAG.search(source) and parsed(source) is not None:
            lines[start:end] = [TAG.sub(f"{QUOTED}\\1", line) for line in lines[start:end]]
    return "".join(lines)


def _choice(found: Sequence[Block], needs: Needs) -> str | None:
    """The program among the blocks of a text."""
    candidates = [block for block in found if block.language in ("python", "unnamed")][-MAX_BLOCKS:]
    if len(candidates) < 2:
        return _without_magic(candidates[0].text) if candidates else None
    parts = _without_repeated_imports([_Part.of(block) for block in candidates])
    named = [part for part in parts if part.block.language == "python"]
    program = _definitions(named, needs) or _definitions(parts, needs) if needs else _script(parts)
    program = program or [next((part for part in reversed(named or parts) if part.tree), (named or parts)[-1])]
    return "\n".join(part.text for part in program)


def _without_repeated_imports(parts: Sequence[_Part]) -> list[_Part]:
    """The parts; a name that a part imports from another file and another part defines is no definition of the first.

    Such a part is often a test file: `from solution import add`.
    """
    defined = {name for part in parts for name in part.defines - part.imports}
    return [replace(part, defines=part.defines - (part.imports & defined)) for part in parts]


def _definitions(parts: Sequence[_Part], needs: Needs) -> list[_Part]:
    """The last blocks that define the needed names, and the earlier blocks that define names these blocks use."""
    program: list[_Part] = []
    for part in reversed(parts):
        if any(names & part.defines for names in needs):
            program.insert(0, part)
            needs = [names for names in needs if not names & part.defines] + [{name} for name in part.uses]
    return program


def _script(parts: Sequence[_Part]) -> list[_Part]:
    """The last script, with the earlier blocks whose names it uses. Scripts that read and have a language go first."""
    scripts: list[tuple[bool, bool, int, list[_Part]]] = []
    for index, part in enumerate(parts):
        if part.acts and not part.block.transcript:
            helpers = _definitions(parts[:index], [{name} for name in part.uses])
            if part.reads or not any(helper.acts and helper.reads for helper in helpers):  # else an example of a call
                reads = any(block.reads for block in (*helpers, part))
                scripts.append((reads, part.block.language == "python", index, [*helpers, part]))
    return max(scripts, key=lambda script: script[:3])[3] if scripts else []


def _without_blocks(text: str, needs: Needs, *, is_tagged: bool) -> str | None:
    """The program in a text without fences: all of it, its lines from a statement or an empty line on, its indented
    blocks, or inline code. Words behind such lines are left out.

    None for any other text, such as `42`. Outside of answer tags a script must also read its input.
    """
    body = LABEL.sub("", text.strip("\n"), count=1) + "\n"
    starts = [0, *(match.start() for match in islice(STATEMENT.finditer(body), 1))]
    texts = [body[start:] for start in starts]
    if len(body) <= MAX_BARE_CHARS:
        starts += [match.end() for match in islice(PARAGRAPH.finditer(body), MAX_STARTS)]
        texts = [without_prose(body[start:]) for start in starts]
    inline = [Block("python", match[2]) for match in INLINE.finditer(text)][-MAX_BLOCKS:]
    bare = [Block("python", text) for text in texts]
    for block in (*bare, *reversed(indented_blocks(text)[-MAX_BLOCKS:]), *reversed(inline)):
        part = _Part.of(block)
        fits = any(names & part.defines for names in needs) if needs else part.acts and (is_tagged or part.reads)
        if fits:
            return part.text
    return None


def _without_magic(source: str) -> str:
    if MAGIC.search(source) and parsed(source) is None and parsed(rest := MAGIC.sub("", source)) is not None:
        return rest
    return source


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """A block and its names: `defines` at its top level; `uses` and binds nowhere."""

    block: Block
    text: str
    tree: ast.Module | None
    defines: frozenset[str]
    imports: frozenset[str]  # names in `defines` from modules outside the standard library
    uses: frozenset[str]
    acts: bool  # calls a function of the block, prints or reads, outside of definitions
    reads: bool  # reads standard input somewhere

    @classmethod
    def of(cls, block: Block) -> _Part:
        text = _without_magic(block.text)
        tree = parsed(text)
        nodes = list(ast.walk(tree)) if tree else []
        loaded, uses = names_in(nodes)
        outside = list(outside_of_definitions(tree)) if tree else []
        functions = {node.name for node in outside if isinstance(node, ast.FunctionDef | ast.ClassDef)}
        calls = (node for node in outside if isinstance(node, ast.Call))
        return cls(
            block=block,
            text=text,
            tree=tree,
            defines=frozenset(name for node in outside if not _is_stub(node) for name in bound_names(node)),
            imports=frozenset(name for node in outside if _is_foreign(node) for name in bound_names(node)),
            uses=frozenset(uses),
            acts=any(_words(call) & (functions | uses | OUTPUT_AND_INPUT) for call in calls),
            reads="input" in loaded or "stdin" in text or "open(0" in text or "fileinput" in text,
        )


def _is_foreign(node: ast.AST) -> bool:
    """True for `from … import` of a module outside the standard library."""
    return isinstance(node, ast.ImportFrom) and (node.module or "").partition(".")[0] not in sys.stdlib_module_names


def _is_stub(node: ast.AST) -> bool:
    """True for a function whose body is a docstring, `...` or `pass`."""
    return isinstance(node, ast.FunctionDef) and all(
        isinstance(statement, ast.Pass)
        or (isinstance(statement, ast.Expr) and isinstance(statement.value, ast.Constant))
        for statement in node.body
    )


def _words(call: ast.Call) -> set[str]:
    """The names in a call: of the function, and of arguments, such as `Thread(target=main)`."""
    words: set[str] = {argument.id for argument in (*call.args, *(keyword.value for keyword in call.keywords))
                       if isinstance(argument, ast.Name)}  # fmt: skip
    node: ast.AST = call.func
    while isinstance(node, ast.Attribute | ast.Call | ast.Subscript):
        words |= {node.attr} if isinstance(node, ast.Attribute) else set()
        node = node.func if isinstance(node, ast.Call) else node.value
    return words | ({node.id} if isinstance(node, ast.Name) else set())
