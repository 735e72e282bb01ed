r"""The math reward on honest spellings of right answers, on wrong answers that look right, and on GSM8K's references.

    python benchmarks/math_spellings.py [--gsm8k FOLDER]

Every spelling is judged in three layouts: in tags, in a box, and behind `####`. It counts as right if all layouts score
1. A look-alike counts as accepted if any layout scores 1. Misses are listed. GSM8K's references are read by `check`
from train.jsonl and test.jsonl in the folder; each must also equal itself in another spelling.
"""

from __future__ import annotations

import argparse
import json
import sys
from collections import Counter
from pathlib import Path
from typing import NamedTuple

sys.path.insert(0, str(Path(__file__).parents[1]))

from rlframe.reward.math import Math
from rlframe.types import Completion, Prompt

LAYOUTS = ["<answer>{}</answer>", r"Therefore \boxed{{{}}}", "so\n#### {}"]

# [kind], then lines "reference => spelling ¦ spelling …" of the same answer. In the last kind, units are compared.
RIGHT = r"""
[sentence]
34  =>  The answer is 34.  ¦  Answer: 34  ¦  **34**  ¦  Therefore, the final answer is $34$ apples.  ¦  `34`
34  =>  = 34  ¦  She has 34 apples left.  ¦  The final answer is: $34$  ¦  So the total is 34.
34  =>  **Answer:** 34
\frac{3}{4}  =>  The probability is $\frac{3}{4}$.  ¦  Final answer: 3/4  ¦  Hence \(\frac34\)
yes  =>  Yes.  ¦  YES  ¦  Yes, it is  ¦  \text{Yes}
Evelyn  =>  \text{Evelyn}  ¦  evelyn  ¦  **Evelyn**  ¦  The answer is Evelyn.
[unicode]
\sqrt{2}  =>  √2  ¦  √(2)  ¦  √{2}
3\sqrt{5}  =>  3√5
\infty  =>  ∞  ¦  +∞  ¦  infinity
x^2  =>  x²
\frac{3}{4}  =>  ¾  ¦  ３/４
\frac{5}{2}  =>  2½
6 x y  =>  6·x·y  ¦  6×x×y
-5  =>  −5  ¦  –5
2\pi  =>  2π  ¦  2 π
90^\circ  =>  90°  ¦  90 degrees
x \le 3  =>  x ≤ 3  ¦  x<=3  ¦  3 ≥ x
(-\infty,1)\cup(2,\infty)  =>  (−∞, 1) ∪ (2, ∞)
12  =>  １２  ¦  12
\emptyset  =>  ∅  ¦  \varnothing  ¦  no solution  ¦  \{\}  ¦  The empty set
\pm 3  =>  ±3  ¦  3, -3  ¦  -3 and 3  ¦  x = \pm 3  ¦  \{-3, 3\}
[code]
2\pi  =>  2*pi  ¦  2 * pi  ¦  pi*2
x^2+1  =>  x**2 + 1  ¦  x^2+1  ¦  1 + x*x
100000  =>  1e5  ¦  10^5  ¦  10**5
\sqrt{2}  =>  sqrt(2)  ¦  2^(1/2)
\sin(x)  =>  sin(x)  ¦  \sin x
\frac{x+1}{2}  =>  (x+1)/2
0.0000000001  =>  1e-10  ¦  1 \times 10^{-10}  ¦  10^{-10}
e^{2x}  =>  e^(2x)  ¦  exp(2x)
\ln 2  =>  ln(2)  ¦  ln 2
[number]
300000000  =>  3\times10^8  ¦  3 \cdot 10^{8}  ¦  3 × 10^8  ¦  300,000,000  ¦  300 000 000  ¦  300\,000\,000
300000000  =>  300 million
1234567  =>  1,234,567  ¦  1{,}234{,}567  ¦  1,\!234,\!567  ¦  1.234.567  ¦  12,34,567  ¦  1'234'567
1234567  =>  1 234 567
0.5  =>  1/2  ¦  \frac12  ¦  .5  ¦  0.50  ¦  50%  ¦  one half  ¦  50\%
\frac{1}{3}  =>  0.\overline{3}  ¦  0.333...  ¦  0.(3)
\frac{5}{2}  =>  2\frac{1}{2}  ¦  2 1/2  ¦  2.5  ¦  \dfrac52
3.14  =>  3,14  ¦  3.140
34  =>  thirty-four  ¦  34.0  ¦  +34
120  =>  5!  ¦  one hundred and twenty  ¦  1.2e2
-\frac{2}{3}  =>  \frac{-2}{3}  ¦  -2/3  ¦  -\tfrac23  ¦  \frac{2}{-3}
1/8  =>  0.125  ¦  2^{-3}  ¦  12.5%
[unit]
5 cm  =>  5  ¦  5\text{ cm}  ¦  5 centimeters  ¦  5\,\mathrm{cm}
18  =>  $18  ¦  \$18  ¦  18 dollars  ¦  $18.00  ¦  18 USD
15\mbox{ cm}^2  =>  15  ¦  15\text{ cm}^2  ¦  15 square centimeters  ¦  15 cm²
60 mph  =>  60 miles per hour  ¦  60
9.8 m/s^2  =>  9.8\ \text{m/s}^2  ¦  9.8 \mathrm{~m} / \mathrm{s}^{2}  ¦  9.8
\frac{\pi}{4}  =>  45^\circ  ¦  π/4 radians
25%  =>  25 percent  ¦  25\%  ¦  0.25  ¦  25
3\sqrt{2}\text{ cm}  =>  3\sqrt2  ¦  3√2 cm
[moment]
3:45  =>  3:45  ¦  3:45 PM  ¦  3:45 p.m.
5:30 PM  =>  5:30 p.m.  ¦  17:30  ¦  5{:}30\text{ p.m.}  ¦  5:30 pm
January 5  =>  Jan 5  ¦  5 January  ¦  January 5th  ¦  Jan. 5
January 5, 2024  =>  2024-01-05  ¦  5 January 2024
Tuesday  =>  tuesday  ¦  Tue  ¦  \text{Tuesday}
[choice]
B  =>  (B)  ¦  \text{B}  ¦  \textbf{(B)}  ¦  B.  ¦  b  ¦  Option B  ¦  (B) 12  ¦  B. 12
\text{(C)}  =>  C  ¦  (C)  ¦  \boxed{C}
[collection]
1, 2  =>  2, 1  ¦  \{1,2\}  ¦  1 and 2  ¦  1 \text{ and } 2  ¦  x = 1 or x = 2  ¦  x=1, x=2  ¦  1; 2
1, 2  =>  x \in \{1, 2\}
(1, 2)  =>  (1,2)  ¦  1, 2  ¦  x = 1, y = 2  ¦  (x, y) = (1, 2)  ¦  \left(1, \frac{4}{2}\right)
(1, 2)  =>  \langle 1, 2\rangle
\frac{1 \pm \sqrt{5}}{2}  =>  \frac{1+\sqrt5}{2}, \frac{1-\sqrt5}{2}  ¦  x = \frac{1 \pm \sqrt{5}}{2}
2:3  =>  2 : 3  ¦  4:6  ¦  2 to 3  ¦  2/3
[interval]
(-\infty, 3]  =>  x \le 3  ¦  x \in (-\infty, 3]  ¦  x <= 3  ¦  ]-∞, 3]
(0,1)  =>  0 < x < 1  ¦  ]0, 1[  ¦  x \in (0,1)
[0, 1)  =>  0 ≤ x < 1  ¦  [0, 1[  ¦  [0;1)  ¦  \{x \mid 0 \le x < 1\}
(-\infty,1)\cup(3,\infty)  =>  x < 1 or x > 3
(-\infty,\infty)  =>  \mathbb{R}  ¦  all real numbers
[algebra]
x^2-1  =>  (x-1)(x+1)  ¦  -1 + x^2
5  =>  x = 5  ¦  2 + 3 = 5  ¦  f(2) = 5
x = 5  =>  5  ¦  5 = x
y = 2x + 1  =>  y = 1 + 2x  ¦  2x+1  ¦  y - 2x = 1  ¦  2x + 1 = y
3 + 4i  =>  4i + 3  ¦  3+4\mathrm{i}
101_2  =>  101_{2}  ¦  101_{\text{two}}
\begin{pmatrix}1 & 2\\3 & 4\end{pmatrix}  =>  \begin{bmatrix}1&2\\3&4\end{bmatrix}
\begin{pmatrix}1 & 2\\3 & 4\end{pmatrix}  =>  \left[\begin{array}{cc}1&2\\3&4\end{array}\right]
\log_2 3  =>  \frac{\ln 3}{\ln 2}
\binom{5}{2}  =>  10
n(n+1)/2  =>  \frac{n^2+n}{2}
f'(x) = 2x  =>  2x
[units: compare]
5 cm  =>  0.05 m  ¦  50 mm  ¦  5
2.5 hours  =>  2 hours 30 minutes  ¦  150 minutes  ¦  2.5 h
36 km/h  =>  10 m/s
$0.50  =>  50 cents
1 L  =>  1000 cm^3  ¦  1000 mL
18  =>  18 apples
"""

# The same for answers that look like the reference and are wrong.
WRONG = r"""
[words]
cat  =>  act  ¦  tac
odd yes  =>  \text{yes odd}
no  =>  on  ¦  yes
east  =>  seat  ¦  west
Evelyn  =>  Angela  ¦  It is not Evelyn  ¦  Evelyn or Angela
even  =>  not even  ¦  even or odd
yes  =>  yes and no  ¦  no
true  =>  false  ¦  true or false
[moment]
2024-01-05  =>  2024-05-01  ¦  2018  ¦  2024-01-06
3:45  =>  45:3  ¦  1:15  ¦  3:54  ¦  1/15
3:45 PM  =>  3:45 AM  ¦  15:54  ¦  4:45 PM
January 5  =>  January 6  ¦  May 1  ¦  5
Tuesday  =>  Thursday
10:30  =>  1/3
[choice]
B  =>  C  ¦  (C)  ¦  A or B  ¦  A, B  ¦  not B  ¦  A. B
B. 12  =>  C. 12
[collection]
(1,2)  =>  (2,1)  ¦  \{1,2\}  ¦  [1,2]  ¦  2, 1  ¦  (1,2,3)
1, 2  =>  1  ¦  2  ¦  1, 2, 3  ¦  1, 3
2:4  =>  2:3  ¦  4:2
\{1,2\}  =>  (1,2)  ¦  {1}
x = 1, y = 2  =>  x = 2, y = 1  ¦  2, 1
\pm 3  =>  3  ¦  -3
[interval]
(0,1)  =>  [0,1]  ¦  (0,1]  ¦  0.5  ¦  0 \le x \le 1
x \le 3  =>  x < 3  ¦  x \ge 3  ¦  3  ¦  y \le 3
(-\infty, 3]  =>  (-\infty, 3)  ¦  [3, \infty)
(-\infty,1)\cup(3,\infty)  =>  (1,3)  ¦  1 < x < 3  ¦  (-\infty,1)
[base and prime]
101_2  =>  101_3  ¦  5  ¦  110_2
101_3  =>  10
f'  =>  f  ¦  f''
5  =>  101_2
y''  =>  y'
[number]
12  =>  1 2  ¦  21  ¦  1.2  ¦  12!  ¦  2
0.5  =>  5  ¦  0.05  ¦  1/3  ¦  5%
1/2  =>  2/1  ¦  1.2  ¦  12
-5  =>  5  ¦  5-
18  =>  18 thousand  ¦  1.8  ¦  0.18
1234567  =>  1234568  ¦  123,4567  ¦  1234,567.1
50  =>  0.5  ¦  5%  ¦  500
0.\overline{3}  =>  0.3  ¦  0.33
2\frac{1}{2}  =>  1  ¦  2/2  ¦  21/2
1000  =>  1.000  ¦  10^4  ¦  1e4
\frac{1}{2^{99}}  =>  \frac{1}{2^{98}}
34  =>  thirty-five  ¦  forty-three
3  =>  1/3  ¦  30%
[hedge]
2  =>  1 or 2  ¦  1, 2  ¦  1 and 2  ¦  either 1 or 2  ¦  \boxed{1} \boxed{2}  ¦  \{1, 2\}  ¦  5 = 2  ¦  [1, 3]
2  =>  not 2  ¦  2 or 3  ¦  at least 2  ¦  1 < x < 3  ¦  0, 1, 2, 3, 4  ¦  \pm 2  ¦  x > 1  ¦  2x
2  =>  less than 2  ¦  The answer is 1 or the answer is 2  ¦  It is not 2  ¦  between 1 and 3  ¦  2?3  ¦  1/2
2  =>  2 1
[algebra]
x^2-1  =>  x^2+1  ¦  (x-1)^2  ¦  x
x = 5  =>  y = 5  ¦  x = 6
y = 2x+1  =>  y = x+2  ¦  2x-1
3+4i  =>  3-4i  ¦  7i  ¦  5
5m  =>  5  ¦  5n
\sqrt{2}  =>  2  ¦  1.41  ¦  -√2
x + y = 1  =>  1
\sin x  =>  \cos x  ¦  \sin y
\frac{1}{3}  =>  0.33  ¦  3
\log_2 3  =>  \log_3 2
[units: compare]
5 cm  =>  5 m  ¦  5 kg  ¦  0.5 m  ¦  5 cm^2
60 mph  =>  60 km/h
$5  =>  5 euros
3 hours  =>  3 minutes
15\text{ cm}^2  =>  15\text{ cm}
"""


class Pair(NamedTuple):
    kind: str
    reference: str
    answer: str


def pairs(table: str) -> list[Pair]:
    found, kind = [], ""
    for line in table.strip().splitlines():
        reference, arrow, answers = line.partition("  =>  ")
        if arrow:
            found += [Pair(kind, reference, answer.strip()) for answer in answers.split("¦")]
        else:
            kind = line.strip("[]")
    return found


def make(units: str = "ignore") -> Math:
    return Math.model_validate({"name": "math", "weight": 1.0, "extract": ["answer", "boxed", "hash"], "timeout_s": 5.0,
                                "max_answer_chars": 512, "units": units})  # fmt: skip


def scores(math: Math, reference: str, answer: str) -> list[float | None]:
    prompt = Prompt(id="p", messages=[], token_ids=[], reference=reference, task="math")
    texts = [layout.format(answer) for layout in LAYOUTS]
    completions = [
        Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop") for text in texts
    ]
    return [math(prompt, completion).score for completion in completions]


def spellings(name: str, table: str, expected: float) -> None:
    sizes, hits, misses = Counter[str](), Counter[str](), list[Pair]()
    rewards = {units: make(units) for units in ("ignore", "compare")}
    for pair in pairs(table):
        math = rewards["compare" if pair.kind == "units: compare" else "ignore"]
        found = scores(math, pair.reference, pair.answer)
        well = all(score == 1.0 for score in found) if expected else 1.0 not in found
        sizes[pair.kind] += 1
        hits[pair.kind] += well
        if not well:
            misses.append(pair)
    for kind, size in sizes.items():
        print(json.dumps({"part": f"{name}: {kind}", "of": size, "judged well": hits[kind]}))
    for pair in misses:
        print(json.dumps({"part": f"{name}: miss"} | pair._asdict(), ensure_ascii=False))
    print(json.dumps({"part": name, "of": sizes.total(), "judged well": hits.total()}), flush=True)
    for math in rewards.values():
        math.close()


def gsm8k(folder: Path) -> None:
    math, read, equal = make(), 0, 0
    for file in ("train.jsonl", "test.jsonl"):
        for line in (folder / file).read_text().splitlines():
            solution = json.loads(line)["answer"]
            math.check(solution)
            read += 1
            number = solution.partition("####")[2].strip().replace(",", "")
            equal += scores(math, solution, f"The answer is ${number}.00")[0] == 1.0
    print(json.dumps({"part": "GSM8K references", "read": read, "equal to another spelling": equal}))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gsm8k", type=Path, help="folder of train.jsonl and test.jsonl")
    args = parser.parse_args()
    spellings("right spellings", RIGHT, 1.0)
    spellings("wrong look-alikes", WRONG, 0.0)
    if args.gsm8k:
        gsm8k(args.gsm8k)


if __name__ == "__main__":
    main()
