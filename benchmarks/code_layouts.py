"""Layouts of right programs, and traps: prints how many completions the code reward reads as a programmer would.

    python benchmarks/code_layouts.py

Each layout presents a right program and must score 1. Each trap presents none, or a wrong one, and must score 0.
"""

from __future__ import annotations

import json
import sys

from rlframe.reward import build
from rlframe.types import Completion, Prompt

ADD = "def add(a, b):\n    return a + b\n"
WRONG = "def add(a, b):\n    return a - b\n"
SUM = "a, b = map(int, input().split())\nprint(a + b)\n"
TEST_FILE = "import pytest\nfrom solution import add\n\ndef test_add():\n    assert add(1, 2) == 3\n"
SESSION = ">>> add(1, 2)\n3\n"
ASSERTS = "assert add(1, 2) == 3\nassert add(0, 0) == 1\n"
INDENTED_3, INDENTED_2 = (ADD.rstrip().replace("\n", "\n" + " " * indent) for indent in (3, 2))
FUNCTION = {"function": "add", "cases": [{"args": [1, 2], "returns": 3}, {"args": [-5, 7], "returns": 2}]}
SCRIPT = {"cases": [{"stdin": "1 2\n", "stdout": "3\n"}, {"stdin": "-5 7\n", "stdout": "2\n"}]}


def fenced(program: str, info: str = "python", fence: str = "```") -> str:
    return f"{fence}{info}\n{program.rstrip()}\n{fence}\n"


LAYOUTS = {
    "a fence called python": fenced(ADD),
    "a fence called py": fenced(ADD, "py"),
    "a fence called Python3": fenced(ADD, "Python3"),
    "a fence called python3.11": fenced(ADD, "python3.11"),
    "a fence without a name": fenced(ADD, ""),
    "a fence with a title": fenced(ADD, 'python title="add.py" linenums="1"'),
    "a fence with braces": fenced(ADD, "{python}"),
    "a fence with Pandoc's attributes": fenced(ADD, "{.python .numberLines startFrom=1}"),
    "a fence with a space before its name": fenced(ADD, " python "),
    "a fence called by its file": fenced(ADD, "add.py"),
    "tildes": fenced(ADD, "python", "~~~"),
    "four backticks": fenced(ADD, "python", "````"),
    "a longer closing fence": f"```python\n{ADD}`````\n",
    "an answer in tags": f"<think>first\n{fenced(WRONG)}</think>\n<answer>\n{fenced(ADD)}</answer>",
    "thoughts with a wrong draft": f"<think>\n{fenced(WRONG)}no</think>\n{fenced(ADD)}",
    "a test file behind the program": f"{fenced(ADD)}\n{fenced(TEST_FILE)}",
    "words and plain code in tags": f"<answer>\nHere it is:\n\n{ADD}\nIt adds.\n</answer>",
    "plain code in tags": f"<answer>\n{ADD}</answer>",
    "a corrected program": f"First:\n\n{fenced(WRONG)}\nThis subtracts. Corrected:\n\n{fenced(ADD)}",
    "C++ first": f"In C++:\n\n{fenced('int add(int a, int b) { return a + b; }', 'cpp')}\nin Python:\n\n{fenced(ADD)}",
    "Python first, then C++": f"{fenced(ADD)}\nIn C++:\n\n{fenced('int add(int a, int b);', 'cpp')}",
    "a shell block between": f"{fenced('pip install nothing', 'bash')}\nThen\n\n{fenced(ADD)}\nand run it.",
    "an output behind the program": f"{fenced(ADD)}\nOutput:\n\n{fenced('3', '')}",
    "a named output behind it": f"{fenced(ADD)}\nOutput:\n\n{fenced('3', 'text')}",
    "a call behind the program": f"{fenced(ADD)}\nUse it so:\n\n{fenced('print(add(1, 2))')}",
    "a session behind the program": f"{fenced(ADD)}\n{fenced(SESSION)}",
    "tests behind the program": f"{fenced(ADD)}\nTests:\n\n{fenced(ASSERTS)}",
    "an interactive session": fenced(">>> def add(a, b):\n...     return a + b\n...\n>>> add(1, 2)\n3\n", "pycon"),
    "a helper in a block before": (
        "from operator import add as plus\n\ndef helper(a, b):\n    return plus(a, b)\n",
        "def add(a, b):\n    return helper(a, b)\n",
    ),
    "an import in a block before": ("import operator\n", "def add(a, b):\n    return operator.add(a, b)\n"),
    "a list item": f"1. Write it:\n\n   ```python\n   {INDENTED_3}\n   ```\n\n2. Run it.\n",
    "a fence behind a list's mark": f"- ```python\n  {INDENTED_2}\n  ```\n",
    "a quote": "".join(f"> {line}\n" for line in fenced(ADD).splitlines()),
    "Windows line ends": fenced(ADD).replace("\n", "\r\n"),
    "a last fence that is never closed": f"Here it is:\n\n```python\n{ADD}",
    "an open fence at the answer's end": f"<answer>\n```python\n{ADD}</answer>",
    "a fence behind words": f"The program is: ```python\n{ADD}```\n",
    "a closing fence behind the code": f"```python\n{ADD.rstrip()}```\nIt adds.",
    "fences in a docstring": fenced(
        'def add(a, b):\n    """Adds.\n    ```\n    add(1, 2)\n    ```\n    """\n    return a + b\n'
    ),
    "a forgotten closing fence": f"```python\n{WRONG}\nBetter:\n\n```python\n{ADD}```\n",
    "HTML": f'<pre><code class="language-python">{ADD}</code></pre>',
    "HTML with entities": "<pre><code>def add(a, b):\n    return a + b if a &lt; b else b + a\n</code></pre>",
    "Llama's tags": f"[PYTHON]\n{ADD}[/PYTHON]\n",
    "a block of Markdown": f"````markdown\n# Solution\n\n{fenced(ADD)}````\n",
    "a label in place of a name": fenced(f"python\n{ADD}", ""),
    "a notebook's command": fenced(f"%timeit\n{ADD}", "ipython"),
    "prose between blocks": f"{fenced('{}', 'json')}\nThe function add(a, b) is this:\n\n{fenced(ADD)}\nIt's done.",
    "nothing but the program": ADD,
    "words before a program in tags": f"<answer>\nHere is the program:\n\n{ADD}</answer>",
    "indented lines": "The function:\n\n    def add(a, b):\n        return a + b\n\nIt adds.",
    "a repeated signature": f"{fenced(ADD)}\nIts signature:\n\n{fenced('def add(a, b): ...')}",
    "prose behind a fence that is never closed": f"```python\n{ADD}\nThis function adds two numbers.\n",
    "LaTeX": f"\\begin{{lstlisting}}[language=Python]\n{ADD}\\end{{lstlisting}}\n",
    "a boxed program": f"\\boxed{{```python\n{ADD}```}}",
    "a script": fenced(SUM),
    "a script with its input behind it": f"{fenced(SUM)}\nInput:\n{fenced('1 2', '')}\nOutput:\n{fenced('3', '')}",
    "a script in two blocks": ("def main():\n    print(sum(map(int, input().split())))\n", "main()\n"),
    "an example of a script's function": (f"{ADD}print(add(*map(int, input().split())))\n", "print(add(1, 2))\n"),
}
SCRIPTS = ("a script", "an example of a script")  # beginnings of the names above
TRAPS = {
    "no program": "The sum of both numbers.",
    "thoughts with the only program": f"<think>\n{fenced(ADD)}</think>\nThe program above adds.",
    "thoughts that never end": f"<think>\n{fenced(ADD)}But wait, let me check the task again.",
    "prose in tags": "<answer>def add: return the sum</answer>",
    "a wrong program": fenced(WRONG),
    "right in the thoughts, wrong in the answer": f"<think>{fenced(ADD)}</think><answer>{fenced(WRONG)}</answer>",
    "right first, then made wrong": f"{fenced(ADD)}\nNo, the task wants:\n\n{fenced(WRONG)}",
    "C++ alone": fenced("int add(int a, int b) { return a + b; }\n", "cpp"),
    "Python called text": fenced(ADD, "text"),
    "code in prose": "The function is def add(a, b): return a + b and nothing more.",
    "a call alone": fenced("print(3)\n"),
    "cut off": f"```python\n{ADD}",
}
CUT_OFF = ("cut off", "right, then cut off")


def completion(text: str | tuple[str, ...], finish_reason: str) -> Completion:
    if isinstance(text, tuple):
        text = "\nand then\n\n".join(map(fenced, text))
    return Completion(token_ids=[1], logprobs=[], versions=[], text=text, finish_reason=finish_reason)  # pyright: ignore[reportArgumentType]


def main() -> int:
    code = build(
        {
            "name": "code", "weight": 1.0, "partial": False, "min_isolation": "landlock", "case_s": 2.0,
            "program_s": 6.0, "memory_mib": 256, "output_bytes": 10_000, "max_chars": 50_000,
        }
    )  # fmt: skip
    code.start()
    wrong: list[str] = []
    for expected, texts in ((1.0, LAYOUTS), (0.0, TRAPS)):
        for name, text in texts.items():
            tests = SCRIPT if name.startswith(SCRIPTS) else FUNCTION
            prompt = Prompt(id=name, messages=[], token_ids=[], reference=json.dumps(tests), task="code")
            verdict = code(prompt, completion(text, "length" if name in CUT_OFF else "stop"))
            if verdict.score != expected:  # pyright: ignore[reportAttributeAccessIssue]
                wrong.append(f"{name}: {verdict}")
    code.close()
    misread = sum(line.partition(":")[0] in LAYOUTS for line in wrong)
    print(f"layouts read as a programmer would: {len(LAYOUTS) - misread} of {len(LAYOUTS)}")
    print(f"traps that pass: {len(wrong) - misread} of {len(TRAPS)}")
    print("\n".join(wrong))
    return int(bool(wrong))


if __name__ == "__main__":
    sys.exit(main())
