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


def test_the_answer_goes_before_the_text_and_the_text_before_the_thoughts():
    draft, final = fenced("print(1)\n"), fenced("print(2)\n")
    assert program_of(f"<think>{draft}</think>{final}<answer>{draft}</answer>") == "print(1)\n"
    assert program_of(f"<think>\n{draft}</think>\n{final}") == "print(2)\n"
    assert program_of(f"<think>\n{draft}</think>\nDone.") == "print(1)\n"


@pytest.mark.parametrize(
    "usage",
    ["print(add(1, 2))\n", "assert add(1, 2) == 3\n", "result = add(1, 2)\n", ">>> add(1, 2)\n3\n", "3\n", "add(\n"],
)
def test_a_use_of_the_function_is_no_program(usage: str):
    assert program_of(fenced(ADD) + fenced(usage), [{"add"}]) == ADD


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
def test_hostile_programs_are_parsed_or_refused_in_a_second(source: str):
    start = time.process_time()
    parsed(source)
    program_of(fenced(source + "\n") * 10, [{"f"}])
    assert time.process_time() - start < 2
