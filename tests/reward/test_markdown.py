"""Blocks of Markdown: lines that open and close a block, and their cost on hostile texts."""

import time

import pytest

from rlframe.reward.markdown import blocks, indented_blocks, language_of


def read(text: str, ended: bool = True) -> list[tuple[str, str]]:
    return [(block.language, block.text) for block in blocks(text, ended)]


@pytest.mark.parametrize(
    ("info", "language"),
    [
        ("", "unnamed"), ("python", "python"), (" Python3 ", "python"), ("py", "python"), ("python3.11", "python"),
        ('python title="a.py"', "python"), ("{python}", "python"), ("{.python .numberLines}", "python"),
        ("python,editable", "python"), ("main.py", "python"), ("pycon", "python"), ("python-repl", "python"),
        ("text", "other"), ("output", "other"), ("json", "other"), ("pythonista", "other"), ("c++", "other"),
        ("md", "markdown"),
    ],
)  # fmt: skip
def test_an_info_string_names_the_language(info: str, language: str):
    assert language_of(info) == language


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("```python\na\n```\n", [("python", "a\n")]),
        ("~~~py\na\n```\n~~~", [("python", "a\n```\n")]),
        ("````\n```\na\n````", [("unnamed", "```\na\n")]),
        ("```\na\n`````", [("unnamed", "a\n")]),
        ("```cpp\na\n```\nprose\n```\nb\n```", [("other", "a\n"), ("unnamed", "b\n")]),
        ("`a` and ```b``` are inline", []),
        ("1. x\n\n   ```py\n   if a:\n       b\n   ```", [("python", "if a:\n    b\n")]),
        ("> ```py\n> a\n>\n> b\n> ```\nc", [("python", "a\n\nb\n")]),
        ("> ```py\n> a\nb", [("python", "a\n")]),
        ("- ```py\n  a\n  ```", [("python", "a\n")]),
        ("```py\r\na\r\n```\r\n", [("python", "a\r\n")]),
        ("so: ```python\na\n```", [("python", "a\n")]),
        ("```python\na```\nb", [("python", "a\n")]),
        ("```python\na\n```python\nb\n```", [("python", "a\n"), ("python", "b\n")]),
        ('```py\n"""\n```\na\n```\n"""\n```\nb', [("python", '"""\n```\na\n```\n"""\n')]),
        ("```py\n>>> a = 1\n>>> def f():\n...     a\n1\n```", [("python", "a = 1\ndef f():\n    a\n")]),
        ("```\npython\na\n```", [("python", "a\n")]),
        ("<pre><code>a &lt; b\n</code></pre>", [("unnamed", "a < b\n")]),
        ('<pre><code class="language-python">a</code></pre>', [("python", "a")]),
        ('<pre><code class="language-java">a</code></pre>', [("other", "a")]),
        ("x [PYTHON]\na < b\n[/PYTHON]", [("python", "\na < b\n")]),
        ("````md\n```py\na\n```\n````", [("python", "a\n")]),
        ("```\n\n```", []),
        ("\\boxed{```python\na\n```}", [("python", "a\n")]),
        ("\\begin{lstlisting}[language=Python]\na\n\\end{lstlisting}", [("python", "\na\n")]),
        ("\\begin{minted}{python}\na\n\\end{minted}", [("python", "\na\n")]),
        ("\\begin{verbatim}\na\n\\end{verbatim}", [("unnamed", "\na\n")]),
    ],
)
def test_blocks_are_read_as_a_reader_would(text: str, found: list[tuple[str, str]]):
    assert read(text) == found


def test_prose_behind_an_unclosed_block_is_left_out():
    assert read("```py\na = 1\n\nb = 2\n\nThis sets both.\n\nDone!") == [("python", "a = 1\n\nb = 2\n")]
    assert read("```py\na = = 1\n\nb") == [("python", "a = = 1\n\nb")]


def test_lines_with_four_spaces_behind_an_empty_line_are_a_block():
    text = "So:\n\n    def f():\n        return 1\n\n    f()\n\nand\n    no\n\n\tx"
    assert [block.text.strip("\n") for block in indented_blocks(text)] == ["def f():\n    return 1\n\nf()", "x"]


def test_an_unclosed_block_counts_if_the_text_ended():
    assert read("```py\na") == [("python", "a")]
    assert read("```py\na", ended=False) == []


HOSTILE = [
    "`" * 10**6, "```\n" * 250_000, "~~~a\n" * 200_000, "> " * 500_000, "- " * 500_000, " " * 10**6 + "x",
    "```py\n" + "'''\n```\n" * 120_000, "<pre>" * 200_000, "<pre " * 200_000, "```md\n" * 150_000,
    "````md\n```md\n" * 70_000, "a```" * 250_000, "[PYTHON]\n" * 100_000, "```py\n" + " x\n" * 300_000,
    "\n".join("`" * length for length in range(3, 1400)),
]  # fmt: skip


@pytest.mark.parametrize("text", HOSTILE, ids=[text[:12] for text in HOSTILE])
def test_a_megabyte_of_fences_costs_linear_time(text: str):
    start = time.process_time()
    blocks(text, ended=True)
    assert time.process_time() - start < 8  # 1.5 on a quiet core; a quadratic reader takes minutes
