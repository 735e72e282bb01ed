"""The code reward: right programs pass, and no wrong program does, however it cheats."""

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from rlframe.reward import build
from rlframe.reward.code import Code
from rlframe.reward.solution import program_of
from rlframe.types import Completion, Prompt, Verdict

TERM = {
    "name": "code", "weight": 1.0, "partial": False, "min_isolation": "landlock", "case_s": 2.0, "program_s": 6.0,
    "memory_mib": 256, "output_bytes": 10_000, "max_chars": 5_000,
}  # fmt: skip
ADD = {"function": "add", "cases": [{"args": [1, 2], "returns": 3}, {"args": [40, 2], "returns": 42}]}
SUM = {"cases": [{"stdin": "1 2\n", "stdout": "3\n"}, {"stdin": "40 2\n", "stdout": "42\n"}]}


@pytest.fixture(scope="module")
def code() -> Iterator[Code]:
    reward = build(TERM)
    assert isinstance(reward, Code)
    reward.start()
    yield reward
    reward.close()


def judge(code: Code, source: str, tests: dict[str, Any]) -> Verdict:
    prompt = Prompt(id="p", messages=[], token_ids=[], reference=json.dumps(tests), task="code")
    text = f"<think>so</think><answer>\n```python\n{source}\n```\n</answer>"
    return code(prompt, Completion(token_ids=[1], logprobs=[], versions=[], text=text, finish_reason="stop"))


RIGHT = [
    ("def add(a, b):\n    return a + b", ADD),
    ("class Solution:\n    def add(self, a, b):\n        return a + b", {**ADD, "function": "Solution.add"}),
    ("print(sum(map(int, input().split())))", SUM),
    (
        "import sys\na, b = sys.stdin.read().split()\nsys.stdout.write(str(int(a) + int(b)))",
        SUM,
    ),  # no newline at the end
    ("import os\nprint(sum(map(int, input().split())), flush=True)\nos._exit(0)", SUM),
    ("print('debug')\ndef add(a, b):\n    print(a)\n    return a + b", ADD),  # output is not a result
]


@pytest.mark.parametrize(("source", "tests"), RIGHT)
def test_a_right_program_scores_one(code: Code, source: str, tests: dict[str, Any]):
    verdict = judge(code, source, tests)
    assert (verdict.score, verdict.status, verdict.detail) == (1.0, "scored", "2 of 2 cases")


FORGED_FUNCTIONS = {
    "wrong": "def add(a, b): return a - b",
    "ends with success": "import os\ndef add(a, b): os._exit(0)",
    "ends with success at once": "import os; os._exit(0)",
    "SystemExit": "raise SystemExit(0)",
    "says PASS": "print('PASS'); print('2 of 2 cases')\ndef add(a, b): print('PASS')",
    "equals everything": (
        "class E(int):\n    def __eq__(self, o): return True\n    __hash__ = int.__hash__\ndef add(a, b): return E(0)"
    ),
    "an object that equals everything": "class E:\n    def __eq__(self, o): return True\ndef add(a, b): return E()",
    "a float": "def add(a, b): return float(a + b)",
    "a text": "def add(a, b): return str(a + b)",
    "a list": "def add(a, b): return [a + b]",
    "true for 1": "def add(a, b): return True",
    "NaN": "def add(a, b): return float('nan')",
    "infinity": "def add(a, b): return float('inf')",
    "None": "def add(a, b): return None",
    "one case is right": "def add(a, b): return 3",
    "forges lines": "import os\ndef add(a, b):\n    os.write(3, b'3\\n')\n    os._exit(0)",
    "forges too many lines": (
        "import os\ndef add(a, b):\n    for n in range(100): os.write(3, str(n).encode() + b'\\n')\n    return 1"
    ),
    "writes to every descriptor": (
        "import os\ndef add(a, b):\n    for fd in range(64):\n        try: os.write(fd, b'true\\n\"PASS\"\\n')\n"
        "        except OSError: pass\n    os._exit(0)"
    ),
    "replaces json": "import json; json.dumps = lambda *a, **k: 'true'\ndef add(a, b): return a",
    "replaces the comparison": (
        "import builtins, json\nbuiltins.all = lambda *a: True\nbuiltins.map = lambda *a: [True]\n"
        "def add(a, b): return 0"
    ),
    "at exit": "import atexit, os\natexit.register(lambda: os.write(3, b'3\\n42\\n'))\ndef add(a, b): return 0",
    "walks the stack": (
        "import sys\ndef add(a, b):\n    frame, found = sys._getframe(), []\n    while frame:\n"
        "        found += [v for v in list(frame.f_locals.values()) if isinstance(v, dict) and 'returns' in v]\n"
        "        frame = frame.f_back\n    return found[0]['returns'] if found else None"
    ),
    "searches memory": (
        "import gc\ndef add(a, b):\n    for o in gc.get_objects():\n"
        "        if isinstance(o, dict) and 'returns' in o and o.get('args') == [a, b]:\n"
        "            return o['returns']\n    return None"
    ),
    "traces": "import sys\nsys.settrace(lambda *a: None); sys.setprofile(lambda *a: None)\ndef add(a, b): return None",
    "reads its tests": (
        "import glob\ndef add(a, b):\n    return [open(p).read() for p in glob.glob('/**/*test*', recursive=True)][:1]"
    ),
    "loops": "def add(a, b):\n    while True: pass",
    "deep": "def add(a, b):\n    x = []\n    for _ in range(900): x = [x]\n    return x",
    "does not parse": "def add(a, b) return a + b",
    "has another name": "def plus(a, b): return a + b",
}
FORGED_PROGRAMS = {
    "wrong": "print(3)",
    "both answers": "print(3); print(42)",
    "says PASS": "print('PASS')",
    "nothing": "",
    "success": "import os; os._exit(0)",
    "right and then fails": "print(sum(map(int, input().split()))); raise SystemExit(1)",
    "a traceback": "print(sum(map(int, input().split()))); 1 / 0",
    "right, then killed": "import ctypes\nprint(sum(map(int, input().split())), flush=True); ctypes.string_at(0)",
    "right, then loops": "print(sum(map(int, input().split())), flush=True)\nwhile True: pass",
    "NUL": "print(str(sum(map(int, input().split()))) + '\\0')",
    "too much": "print(sum(map(int, input().split()))); print(' ' * 20000)",
    "on stderr": "import sys; print(sum(map(int, input().split())), file=sys.stderr)",
}


@pytest.mark.parametrize("name", FORGED_FUNCTIONS)
def test_no_cheating_or_wrong_function_passes(code: Code, name: str):
    verdict = judge(code, FORGED_FUNCTIONS[name], ADD)
    assert verdict.score == 0.0, verdict


@pytest.mark.parametrize("name", FORGED_PROGRAMS)
def test_no_cheating_or_wrong_program_passes(code: Code, name: str):
    verdict = judge(code, FORGED_PROGRAMS[name], SUM)
    assert verdict.score == 0.0, verdict


def test_the_detail_names_the_first_case_that_fails_and_how(code: Code):
    assert judge(code, "def add(a, b): return 3", ADD).detail == "1 of 2 cases; case 1: returned 3, not 42"
    assert judge(code, "print(3)", SUM).detail == "1 of 2 cases; case 1: printed '3\\n', not '42\\n'"
    raised = judge(code, "def add(a, b): return 1 / 0", ADD).detail
    assert raised.startswith("0 of 2 cases; case 0: raised: ") and "ZeroDivisionError" in raised


def test_partial_credit_is_the_share_of_passed_cases():
    partial = build({**TERM, "partial": True})
    assert isinstance(partial, Code)
    assert judge(partial, "print(3)", SUM).score == 0.5
    partial.close()


def test_a_program_that_loops_scores_zero_with_status_timeout(code: Code):
    verdict = judge(code, "while True: pass", SUM)
    assert (verdict.score, verdict.status) == (0.0, "timeout")


def test_a_missing_or_overlong_program_is_unparseable(code: Code):
    prompt = Prompt(id="p", messages=[], token_ids=[], reference=json.dumps(SUM), task="code")
    bare = Completion(token_ids=[1], logprobs=[], versions=[], text="print(3)", finish_reason="stop")
    assert (code(prompt, bare).score, code(prompt, bare).status) == (0.0, "unparseable")
    assert judge(code, "x = 1 #" + "y" * 5000, SUM).status == "unparseable"


@pytest.mark.parametrize(
    ("text", "program"),
    [
        ("```python\na\n```\nand\n```py\nb\n```", "b\n"),
        ("<answer>```python\na\n```</answer> or ```\nb\n```", "a\n"),
        ("```python\na\n```<answer>5</answer>", "a\n"),
        ("```\r\na\r\n```", "a\r\n"),
        ("```python\na", None),
        ("<answer>5</answer>", None),
    ],
)
def test_the_program_is_the_last_block_of_the_answer_else_of_the_text(text: str, program: str | None):
    assert program_of(text) == program


def test_floats_may_differ_by_the_tolerance_of_the_tests(code: Code):
    tests = {"function": "add", "cases": [{"args": [0.1, 0.2], "returns": 0.3}]}
    assert judge(code, "def add(a, b): return a + b", tests).score == 0.0
    assert judge(code, "def add(a, b): return a + b", {**tests, "tolerance": 1e-9}).score == 1.0


@pytest.mark.parametrize(
    ("reference", "what"),
    [
        ("print(3)", "its tests are no JSON: Expecting value"),
        ("[]", "should be a valid dictionary"),
        ('{"cases": []}', "cases: List should have at least 1 item"),
        ('{"cases": [{"stdin": "1"}]}', "cases.0.stdout: is missing"),
        (
            '{"cases": [{"stdin": "1", "stdout": "2"}, {"stdin": 1, "stdout": "2"}]}',
            "cases.1.stdin: Input should be a valid",
        ),
        ('{"function": "f", "cases": [{"args": [1]}]}', "cases.0.returns: is missing"),
        ('{"function": "f", "cases": [{"args": 1, "returns": 2}]}', "cases.0.args: Input should be a valid list"),
        (
            '{"function": "f", "cases": [{"stdin": "1", "returns": 2}]}',
            "cases.0.stdin: is nothing of a function's test case",
        ),
        ('{"cases": [{"stdin": "1", "stdout": "2", "name": "x"}]}', "cases.0.name: Extra inputs are not permitted"),
    ],
)
def test_wrong_tests_are_refused_by_case_and_field(code: Code, reference: str, what: str):
    with pytest.raises(ValueError, match=what.replace(".", r"\.")):
        code.check(reference)


def test_the_isolation_level_is_a_fact(code: Code):
    assert code.facts() == {"isolation": 2.0}  # bubblewrap, which the lock installs


def test_packages_of_programs_are_requirements_of_pip():
    with pytest.raises(ValueError, match=r"(?s)packages.*'/etc/passwd' is no package with versions"):
        build({**TERM, "packages": ["/etc/passwd"]})


def test_a_relative_folder_of_packages_holds_in_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    reward = build(TERM | {"packages_folder": "packages"})
    assert isinstance(reward, Code) and reward.packages_folder == str(tmp_path / "packages")
