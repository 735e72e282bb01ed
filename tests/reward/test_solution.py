"""The program in a completion: the choice that a careful reader makes."""

import time

import pytest

from rlframe.reward.solution import program_of
from rlframe.reward.syntax import parsed

ADD = "def add(a, b):\n    return a + b\n"


def fenced(program: str, info: str = "python") -> str:
    return f"```{info}\n{program}```\n"


def test_the_last_python_block_goes_before_blocks_without_a_language():
    assert program_of(fenced("print(1)\n") + fenced("print(2)\n") + fenced("print(3)\n", "")) == "print(2)\n"
    assert program_of(fenced("print(1)\n", "") + fenced("3\n", "")) == "print(1)\n"
    assert program_of(fenced("int main() {}\n", "cpp") + "prose\n" + fenced("{}\n", "json")) is None


def test_the_answer_goes_before_the_text():
    draft, final = fenced("print(1)\n"), fenced("print(2)\n")
    assert program_of(f"<think>{draft}</think>{final}<answer>{draft}</answer>") == "print(1)\n"
    assert program_of(f"<think>\n{draft}</think>\n{final}") == "print(2)\n"
    assert program_of(f"<think>\n{draft}</think>\n{final}<answer></answer>") == "print(2)\n"


@pytest.mark.parametrize(
    "text",
    [
        "<think>\n{}</think>\nIt adds.",
        "{}</think>\nIt adds.",
        "<think>\n{}</think>\n<answer></answer>",
        "<think>\n{}But wait, what of huge numbers?",
        "<think>\n<answer>\n{}</answer>\nBut wait",
        "<think>so</think>\n<think>\n{}",
    ],
)
def test_a_program_in_the_thoughts_alone_is_no_answer(text: str):
    assert program_of(text.format(fenced("print(int(input()))\n")), ended=True) is None


def test_tags_that_a_program_prints_are_no_tags():
    tagged = 'print("<think>", input(), "</think>")\nprint("<answer>")\n'
    assert program_of(f"<think>so</think>\n<answer>\n{fenced(tagged)}</answer>") == tagged
    assert program_of(f"I write `<think>` and `</think>`:\n{fenced(tagged)}") == tagged
    assert program_of(f"<think>\n{fenced(tagged)}</think>\nDone.", ended=True) is None


def test_thoughts_end_inside_a_block_that_they_never_closed():
    assert program_of("<think>\n```python\nx = 1\nSo.\n</think>\n" + fenced("print(2)\n")) == "print(2)\n"


@pytest.mark.parametrize(
    "usage",
    ["print(add(1, 2))\n", "assert add(1, 2) == 3\n", "result = add(1, 2)\n", ">>> add(1, 2)\n3\n", "3\n", "add(\n"],
)
def test_a_use_of_the_function_is_no_program(usage: str):
    assert program_of(fenced(ADD) + fenced(usage), [{"add"}]) == ADD


TEST_FILES = [
    "import pytest\nfrom solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n",
    "import unittest\nfrom add import add\n\nclass T(unittest.TestCase):\n    def test(self): add(1, 2)\n",
]


@pytest.mark.parametrize("test_file", TEST_FILES)
def test_a_test_file_behind_the_program_is_no_program(test_file: str):
    assert program_of(fenced(ADD) + fenced(test_file), [{"add"}]) == ADD
    assert program_of(fenced(test_file) + fenced(ADD), [{"add"}]) == ADD


def test_an_import_from_the_standard_library_is_a_definition():
    gcd = "from math import gcd\n"
    assert program_of(fenced("def gcd(a, b): return a\n") + fenced(gcd), [{"gcd"}]) == gcd


def test_blocks_that_build_on_each_other_are_joined():
    helper, main = "import math\n\ndef area(r):\n    return math.pi * r\n", "def add(a, b):\n    return area(a) + b\n"
    unused = "def area2():\n    pass\n"
    assert program_of(fenced(helper) + fenced(unused) + fenced(main), [{"add"}]) == f"{helper}\n{main}"
    stack, queue = "class Stack:\n    pass\n", "class Queue:\n    pass\n"
    assert program_of(fenced(stack) + fenced(queue), [{"Stack"}, {"Queue"}]) == f"{stack}\n{queue}"
    method = "class Solution:\n    def add(self, a, b):\n        return a + b\n"
    assert program_of(fenced(ADD) + fenced(method), [{"Solution", "add"}]) == method


def test_a_script_reads_its_input():
    script = "def solve(n):\n    return n + 1\n\nprint(solve(int(input())))\n"
    assert program_of(fenced(script) + fenced("print(solve(3))\n")) == script
    functions, call = "def main():\n    print(int(input()) + 1)\n", 'if __name__ == "__main__":\n    main()\n'
    assert program_of(fenced(functions) + fenced(call)) == f"{functions}\n{call}"
    alias = "import sys\nsys.setrecursionlimit(10**6)\ninput = sys.stdin.readline\n\ndef main():\n    print(input())\n"
    assert program_of(fenced(alias) + fenced("main()\n")) == f"{alias}\nmain()\n"


@pytest.mark.parametrize(
    ("answer", "needs", "program"),
    [
        (f"\n{ADD}", [{"add"}], ADD), ("`print(1)`", [], "print(1)"), ("```python print(1)```", [], "print(1)"),
        ("42", [], None), ("yes", [], None), ("x = 5", [], None), ("print the sum", [], None),
        ("print(3)", [{"f"}], None),
    ],
)  # fmt: skip
def test_an_answer_without_a_fence_is_a_program_if_it_reads_as_one(answer: str, needs: list, program: str | None):
    found = program_of(f"<answer>{answer}</answer>", needs)
    assert (found and found.strip()) == (program and program.strip())


def test_a_completion_that_is_a_program_as_a_whole_counts():
    assert program_of(ADD, [{"add"}], ended=True) == ADD
    assert program_of(f"<think>so</think>\n{ADD}", [{"add"}], ended=True) == ADD
    assert program_of("print(int(input()) + 1)", ended=True) == "print(int(input()) + 1)\n"
    assert program_of("print(3)", ended=True) is None and program_of(ADD, [{"add"}]) is None
    assert program_of(f"<answer>python\n{ADD}</answer>", [{"add"}]) == ADD
    assert program_of(f"<answer>So:\n{ADD}</answer>", [{"add"}]) == ADD


SCRIPT = "a, b = map(int, input().split())\nprint(a + b)\n"


@pytest.mark.parametrize(
    "words", ["Here is my solution:\n\n{}", "So:\n{}", "{}\nIt is linear.", "I add.\n\n{}\nIt is done."]
)
def test_a_bare_program_between_words_counts(words: str):
    assert program_of(f"<answer>\n{words.format(SCRIPT)}\n</answer>").strip() == SCRIPT.strip()
    assert program_of(words.format(SCRIPT), ended=True).strip() == SCRIPT.strip()


def test_a_line_of_inline_code_counts_if_it_reads_or_defines():
    assert program_of("A line does it: `print(int(input()) + 1)`", ended=True) == "print(int(input()) + 1)"
    assert program_of("Take `add = lambda a, b: a + b`.", [{"add"}], ended=True) == "add = lambda a, b: a + b"
    assert program_of("It prints `print(3)`", ended=True) is None
    assert program_of("Call `add(1, 2)`", [{"add"}], ended=True) is None


def test_a_function_without_a_body_is_no_definition():
    stub = 'def add(a, b):\n    """Adds."""\n    ...\n'
    assert program_of(fenced(ADD) + fenced(stub), [{"add"}]) == ADD


def test_an_unclosed_block_counts_unless_the_completion_was_cut_off():
    assert program_of("```python\nprint(1)\n", ended=True) == "print(1)\n"
    assert program_of("```python\nprint(1)\n") is None
    assert program_of("<answer>\n```python\nprint(1)\n</answer>") == "print(1)\n"
    assert program_of(f"<think>x</think><answer>\n{ADD}", [{"add"}], ended=True) == ADD


def test_a_notebooks_commands_are_left_out():
    assert program_of(fenced("%pip install x\nprint(1)\n")) == "\nprint(1)\n"
    assert program_of(fenced("print(7\n% 4)\n")) == "print(7\n% 4)\n"


HOSTILE = [
    "(" * 50_000,
    "-" * 50_000 + "1",
    "a" + ".b" * 25_000,
    "{a:" * 99 + "x x",
    "lambda:" * 7000 + "1",
    "f'{" * 9999,
]


@pytest.mark.parametrize("source", HOSTILE, ids=[source[:8] for source in HOSTILE])
def test_hostile_programs_are_parsed_or_refused_in_seconds(source: str):
    start = time.process_time()
    parsed(source)
    program_of(fenced(source + "\n") * 10, [{"f"}])
    program_of("\n\n".join([source] * 10), [{"f"}], ended=True)
    assert time.process_time() - start < 10
