r"""The table of spellings: each row replaces a pattern, and shows an example before and after.

`spelling.plain` applies the rows in order, to references and answers alike. Patterns look at bounded neighbourhoods, so
the time is linear.
"""

from __future__ import annotations

import re
from typing import NamedTuple

GROUP = r"\{(?:[^{}]|\{[^{}]*\})*\}"  # braces with braces inside
NUMBER = r"[0-9]+(?:\.[0-9]+)?"
FUNCTIONS = r"arcsin|arccos|arctan|sinh|cosh|tanh|sin|cos|tan|cot|sec|csc|ln|log|lg|exp"
GREEK_WORDS = "pi|alpha|beta|gamma|delta|theta|lambda|mu|sigma|omega|phi"
LEAD = (
    r"(?:(?:\\therefore(?![a-z])|(?:so|in total|altogether|thus|hence|therefore|finally|then|and|i think|okay"
    r"|we (?:get|have|find|obtain)|this (?:gives|means|is)|which (?:gives|is))\b(?: that)?)[,:]? *)"
)
# "The answer is" in other languages, beside English.
FOREIGN_ANSWER = (
    r"(?:antwort|lösung|ergebnis|respuesta|solución|resultado|réponse|solution|résultat|resposta|solução|risposta"
    r"|soluzione|risultato|antwoord|odpowiedź|cevap|svar|đáp án|đáp số|jawaban)"
)
SUBJECT = "(?:it|this|that|the|there|here|our|his|her|their|its|he|she|they|we|each|every|all)"


class Row(NamedTuple):
    """A spelling: `re.sub(pattern, replacement)` turns `before` into `after`. Every match contains `literal`."""

    pattern: re.Pattern[str]
    replacement: str
    before: str
    after: str
    literal: str


COMMAND = re.compile(r"\(*\\\\([A-Za-z]+)(?![A-Za-z|?*])")


def row(pattern: str, replacement: str, before: str, after: str, flags: int = 0) -> Row:
    command = COMMAND.match(pattern)
    literal = "\\" + command[1] if command else ""
    return Row(re.compile(pattern, flags | re.DOTALL), replacement, before, after, literal)


I = re.IGNORECASE  # noqa: E741

# Characters outside of ASCII, beside CHARACTERS. √ is replaced before its argument is known to be braced.
UNICODE = [
    row(r"√ *\(", r"\\sqrt(", "√(x+1)", r"\sqrt(x+1)"),
    row(rf"√ *({NUMBER}|[A-Za-z]|\\pi)", r"\\sqrt{\1}", "3√2", r"3\sqrt{2}"),
    row(r"√", r"\\sqrt", r"√{2}", r"\sqrt{2}"),
]

# Wrappers and phrases around an answer.
PHRASES = [
    row(r"^\\text\{([A-Za-z ,']*(?:\bis|\bare|:|=)) *\} *", r"\1 ", r"\text{The answer is } 5", "The answer is 5"),
    row(r"^[\s`\"_]+|[\s`\"_]+$", "", "`34`", "34"),
    row(r"^[-*•] +(?=[A-Za-z])", "", "- Total: 72", "Total: 72"),
    row(r"^[A-Za-z].*[ ,](?:for|in|making|gives|is) (?:a|the) total of (?=[^ ]+$)", "",
        "He has 3 and 4, for a total of 7", "7"),
    row(r",? (?:so|hence|thus|therefore)(?: the answer is| it is)? (?=[-+$\\0-9][^ ]*$)", "; ",
        "6/2 = 3, so 3", "6/2 = 3; 3"),
    row(r" \((?:that is|i\.e\.|since|because|namely)\b[^()]*\)$", "", "72 (that is, 48 + 24)", "72"),
    row(r"^(?:the |an? )?(?=[a-z])(?:point |vertex |focus |cent(?:er|re) )+(?=[(A-Z$\\])", "",
        "the point (1, 2)", "(1, 2)", I),
    row(r"^\*\*([^*]+)\*\*([.!]?)$", r"\1\2", "**34**", "34"),
    row(r"\*\*([A-Za-z ]+:)\*\* *", r"\1 ", "**Answer:** 34", "Answer: 34"),
    row(r"\*\*([^*]+)\*\*(?![*\w(])", r"\1", "the sum is **34** cm", "the sum is 34 cm"),
    row(rf"^{LEAD}+", "", "Therefore, x = 5", "x = 5", I),
    row(rf"^(?:[^\W\d_]{{1,8}} ){{0,2}}{FOREIGN_ANSWER} *(?:(?:ist|lautet|est|es|é|è|är|jest|là|adalah)\b|:) *:? *", "",
        "La respuesta es 3,5", "3,5", I),
    row(r"^[A-Za-z ,']*\b(?:answers?|solutions?|results?)\b[^\n.:=]{0,60}?(?:\b(?:is|are|equals?|be)\b:?|[:=]) *(?=\S)",
        "", "The final answer is $34$", "$34$", I),
    row(rf"^{LEAD}+", "", "So we get 5", "5", I),
    row(r"^(?:(?:simply|just|exactly|equal to|therefore|thus|given by)[,:]? +)+", "", "exactly 5", "5", I),
    row(r"^(?:about|approximately|roughly|around|nearly|approx\.?) +(?=[-+$\\0-9])", "", "about 7", "7", I),
    row(r" \((?:approximately|approx\.?|rounded|nearest)[^()]*\)$", "", "7 (approximately)", "7", I),
    row(r"^\$?([A-Za-z])\$?\s+(?:is|equals|is equal to)\s+(?=[-+$\\0-9(\[])", r"\1 = ", "x equals 5", "x = 5"),
    row(r"^(?:=|\\approx|\\sim(?![a-z])|~|\$ *(?:=|\\approx) *(?=[^$]*\$$)) *", "", "= 5", "5"),
    row(r" is (?:the|our|my) (?:final |correct )?(?:answer|solution|result)[.!]?$", "", "5 is the answer.", "5", I),
    row(r"^(?:final )?answer:? +(?=[-+$\\0-9(\[])", "", "Answer 5", "5", I),
    row(r"^it (?:is|equals) (?=[a-z0-9][^a-z]*[-+*/^])", "", "It is x^2 - 3", "x^2 - 3", I),
    row(rf"^{SUBJECT}\b[A-Za-z ,'()$+\\{{}}^_*/|-]{{0,80}}? (?:is|are|was|were|equals?|will be|must be|would be)\b:? *"
        r"(?:(?:at|equal to|exactly|given by|approximately) )?"
        r"(?=[-+$\\0-9(\[{|])", "", "The sum is $5$", "$5$", I),
    row(r"^(?=[A-Za-z ]*[A-Za-z]{3})[A-Za-z ]{3,60}: *(?=[-+$\\0-9(\[{])", "", "Area: 5", "5"),
    row(r"(?<=[^.])[.,;]$|(?<=[a-z]{2})!$", "", "34.", "34"),
]  # fmt: skip

LATEX = [
    row(r"(?<!\\)\\[()\[\]]", " ", r"\(x\)", " x "),
    row(r"\\(?:left|right|middle)(?![A-Za-z])\s*\.?|\\[bB]igg?[lrm]?(?![A-Za-z])", "", r"\left(1\right)", "(1)"),
    row(r"(?<!\\)\\!\s*", "", r"32,\!000", "32,000"),
    row(r"(?<=[0-9])(?:\\,|\\ )(?=(?:[0-9]{3}(?:\\,|\\ ))*[0-9]{3}\{,\})", "", r"1\,234{,}5", "1234{,}5"),
    row(r"(?<=[0-9])(?:\{,\}|\\,|\\ |~|\\:|\\;|_)(?=[0-9]{3}(?![0-9]))", ",", r"10\,000", "10,000"),
    row(r"\{:\}", ":", "5{:}30", "5:30"),
    row(r"\s*\{\s*,\s*\}\s*", ",", "1{,}2", "1,2"),
    row(r"\\(?:quad|qquad|displaystyle|textstyle|limits|nolimits|hfill|noindent)(?![A-Za-z])|(?<!\\)\\[,;:> ]|~", " ",
        r"\displaystyle 5\,x", "  5 x"),
    row(r"\\(?:text(?:bf|it|rm|normal|sf|tt|sc|up|md)?|math(?:rm|bf|it|sf|tt|normal)|mbox|hbox|emph|underline|boldsymbol|bm)\s*\{",
        r"\\text{", r"\mathrm{cm}", r"\text{cm}"),
    row(r"\{\\(?:rm|bf|it)\s+([^{}]*)\}", r"\\text{\1}", r"{\rm cm}", r"\text{cm}"),
    row(r"\\text\s*\{\s*([,;]?\s*(?:and|or|,|;))\s*\}", r" \1 ", r"1\text{ and }2", "1 and 2", I),
    row(r"\\[dtc]frac(?![A-Za-z])", r"\\frac", r"\dfrac{1}{2}", r"\frac{1}{2}"),
    row(r"\\frac\s*([0-9A-Za-z])", r"\\frac{\1}", r"\frac12", r"\frac{1}2"),
    row(r"\\frac\s*(\\(?:pi|alpha|beta|theta)(?![A-Za-z]))", r"\\frac{\1}", r"\frac\pi2", r"\frac{\pi}2"),
    row(rf"(\\frac)\s*({GROUP})\s*([0-9A-Za-z])", r"\1\2{\3}", r"\frac{1}2", r"\frac{1}{2}"),
    row(rf"(\\frac)\s*({GROUP})\s*\{{", r"\1\2{", r"\frac {1} {2}", r"\frac{1}{2}"),
    row(r"\\sqrt\s*([0-9]+|[A-Za-z])", r"\\sqrt{\1}", r"\sqrt 2", r"\sqrt{2}"),
    row(r"(\\sqrt\[[^\[\]]*\])\s*([0-9]+|[A-Za-z])", r"\1{\2}", r"\sqrt[3]2", r"\sqrt[3]{2}"),
    row(r"\\sqrt\s+(?=[{\[])", r"\\sqrt", r"\sqrt {2}", r"\sqrt{2}"),
    row(r"\\sqrt\{\s*([^{}\s]+)\s*\}", r"\\sqrt{\1}", r"\sqrt{ 2 }", r"\sqrt{2}"),
    row(r"\\(?:leqslant|leqq|leq)(?![A-Za-z])", r"\\le", r"x \leq 3", r"x \le 3"),
    row(r"\\(?:geqslant|geqq|geq)(?![A-Za-z])", r"\\ge", r"x \geq 3", r"x \ge 3"),
    row(r"\\lt(?![A-Za-z])", "<", r"x \lt 3", "x < 3"),
    row(r"\\gt(?![A-Za-z])", ">", r"x \gt 3", "x > 3"),
    row(r"\\neq(?![A-Za-z])", r"\\ne", r"x \neq 3", r"x \ne 3"),
    row(r"\\(?:lvert|rvert|vert)(?![A-Za-z])", "|", r"\lvert x\rvert", "| x|"),
    row(r"\\lbrace(?![A-Za-z])", r"\\{", r"\lbrace 1", r"\{ 1"),
    row(r"\\rbrace(?![A-Za-z])", r"\\}", r"1 \rbrace", r"1 \}"),
    row(r"\\(?:varnothing|oslash)(?![A-Za-z])|\\\{\s*\\\}", r"\\emptyset", r"\varnothing", r"\emptyset"),
    row(r"\\backslash(?![A-Za-z])", r"\\setminus", r"A \backslash B", r"A \setminus B"),
    row(r"\s*(?:\^\s*(?:\{\s*\\circ\s*\}|\\circ)|\\degrees?|\\textdegree)(?![A-Za-z])",
        r"^{\\circ}", r"90^\circ", r"90^{\circ}"),
    row(r"\s*\^\s*(?:\{\s*\\prime\s*\\prime\s*\}|\\prime\s*\\prime)", "''", r"y^{\prime\prime}", "y''"),
    row(r"\s*\^\s*(?:\{\s*\\prime\s*\}|\\prime)", "'", r"f^{\prime}(x)", "f'(x)"),
    row(r"\\(?:dots|cdots|dotsc|dotsb)(?![A-Za-z])", r"\\ldots", r"1,\dots,n", r"1,\ldots,n"),
    row(r"\\(?:operatorname\*?|text)\{ *(arc)?(a?)(sin|cos|tan|tg|cot|ctg|sec|csc|sinh|cosh"
        r"|tanh|ln|log|lg|exp|gcd|lcm|max|min|abs"
        r"|cis|floor|ceil) *\}(?![A-Za-z])", r" \1\2\3", r"\operatorname{arctg} 2", " arctg 2"),
    row(r"^\{\s*\}$", r"\\emptyset", "{}", r"\emptyset"),
    row(r"\\lbrack(?![A-Za-z])", "[", r"\lbrack 1", "[ 1"),
    row(r"\\rbrack(?![A-Za-z])", "]", r"1\rbrack", "1]"),
    row(r"\\bigcup(?![A-Za-z]) *(?![_^])", r"\\cup ", r"A\bigcup B", r"A\cup B"),
    row(r" *\\lor(?![A-Za-z]) *| *\\vee(?![A-Za-z]) *", " or ", r"x=2 \lor x=3", "x=2 or x=3"),
    row(r" *\\l?wedge(?![A-Za-z]) *| *\\land(?![A-Za-z]) *", " and ", r"x=2 \land y=3", "x=2 and y=3"),
    row(r"\\text *\{ ?to ?\}", " to ", r"\sqrt{2}\text{ to }1", r"\sqrt{2} to 1"),
    row(r"\\frac\{ ?(\\text\{[^{}]*\}(?:\^\{?[0-9]\}?)?) ?\}\{ ?(\\text\{[^{}]*\}(?:\^\{?[0-9]\}?)?) ?\}", r"\1/\2",
        r"9.8 \frac{\text{m}}{\text{s}^2}", r"9.8 \text{m}/\text{s}^2"),
    row(r"\{ *([^{}]+?) *\\choose *([^{}]+?) *\}", r"\\binom{\1}{\2}", r"{n \choose 2}", r"\binom{n}{2}"),
    row(r"(?<![A-Za-z\\])f: *([a-z]) *\\(?:mapsto|to)(?![A-Za-z])", r"f(\1) = ", r"f:x\mapsto x^2", "f(x) =  x^2"),
    row(r"\\div(?![A-Za-z])", "/", r"6 \div 2", "6 / 2"),
    row(r"\\(?:ast|bullet)(?![A-Za-z])", r"\\cdot", r"2 \ast 3", r"2 \cdot 3"),
    row(r"\\colon(?![A-Za-z])", ":", r"2\colon 3", "2: 3"),
    row(r"(?<![0-9A-Za-z)\]}]) *\+ *\\infty", r"\\infty", r"(0, +\infty)", r"(0,\infty)"),
    row(r"[\[(]\s*\\begin\{array\}\s*(?:\[[^\]]*\])?\{[^{}]*\}",
        r"\\begin{pmatrix}", r"[\begin{array}{cc}1&2", r"\begin{pmatrix}1&2"),
    row(r"\\end\{array\}\s*[\])]", r"\\end{pmatrix}", r"1&2\end{array}]", r"1&2\end{pmatrix}"),
    row(r"\\(begin|end)\{(?:small|[bB])?matrix\}", r"\\\1{pmatrix}", r"\begin{bmatrix}", r"\begin{pmatrix}"),
    row(r"\\(?:mathbb|Bbb)\s*([A-Z])(?![A-Za-z])", r"\\mathbb{\1}", r"\mathbb R", r"\mathbb{R}"),
    row(r"_\{\s*\\(max|min)\s*\}", r"_{\1}", r"m_{\max }", "m_{max}"),
    row(r"\\%", "%", r"5\%", "5%"),
]  # fmt: skip

CODE = [
    row(r"<=|=<|≤", r"\\le ", "x <= 3", r"x \le  3"),
    row(r">=|=>", r"\\ge ", "x >= 3", r"x \ge  3"),
    row(r"(?<![0-9n)])!=", r"\\ne ", "x != 3", r"x \ne  3"),
    row(r"==", "=", "x == 3", "x = 3"),
    row(r"\+ ?/ ?-|\+-", r"\\pm ", "+/- 2", r"\pm  2"),
    row(r"\*\*", "^", "x**2", "x^2"),
    row(r"\^\{?0?\.5\}?(?![0-9])", r"^{1/2}", "5^0.5", "5^{1/2}"),
    row(r"(?<![A-Za-z])(?:math|np|numpy|sympy|sp|cmath|fractions)\.(?=[A-Za-z])", "", "math.sqrt(2)", "sqrt(2)"),
    row(r"(?<![A-Za-z])(?:Rational|Fraction|frac)\((-?[0-9]+), ?([0-9]+)\)", r"\\frac{\1}{\2}", "Rational(3,4)",
        r"\frac{3}{4}"),
    row(r"(?<![\\A-Za-z])(?:lambda ([a-z])|([a-z]) *(?:\\mapsto|->)) *:? *", "", "lambda x: x+1", "x+1"),
    row(r"(?<![\\A-Za-z])(?:arctg|atan|tan\^\{?-1\}?)(?![A-Za-z])", "arctan", "atan(2)", "arctan(2)"),
    row(r"(?<![\\A-Za-z])a(sin|cos)(?=[ (])", r"arc\1", "asin(1)", "arcsin(1)"),
    row(r"(?<![\\A-Za-z])tg(?= *[(A-Za-z\\])(?! *t?g)(?![A-Za-z])|\\tg(?![A-Za-z])", "tan", "tg x", "tan x"),
    row(r"(?<![\\A-Za-z])ctg(?![A-Za-z])|\\ctg(?![A-Za-z])", "cot", "ctg x", "cot x"),
    row(r"(?<![\\A-Za-z])Abs(?=\()", "abs", "Abs(x)", "abs(x)"),
    row(r"(?<![\\A-Za-z])cis *(\\frac\{[^{}]*\}\{[^{}]*\}|[^\s()]+)", r"e^{i \1}",
        r"cis \frac{\pi}{3}", r"e^{i \frac{\pi}{3}}"),
    row(r"(?<![\\A-Za-z])cis *\(([^()]*)\)", r"e^{i (\1)}", "cis(2)", "e^{i (2)}"),
    row(r"^([-+0-9./ ]*[0-9] ?\*? ?|[-+0-9./ ]*[-+] ?)[jI]$", r"\1i", "3 + 4*I", "3 + 4*i"),
    row(rf"(?<![A-Za-z0-9._\\{{])({NUMBER})[eE]([+-]?)0*([0-9]+)(?![0-9.A-Za-z])", r"\1 \\cdot 10^{\2\3}",
        "1e-10", r"1 \cdot 10^{-10}"),
    row(r"\^\s*\{?\s*\+\s*([0-9])", r"^{\1", "10^{+5}", "10^{5}"),
    row(r"(?<![\\A-Za-z])sqrt *\(", r"\\sqrt(", "sqrt(2)", r"\sqrt(2)", I),
    row(r"(?<![\\A-Za-z])cbrt *\(", r"\\sqrt[3](", "cbrt(2)", r"\sqrt[3](2)", I),
    row(r"(?<![\\A-Za-z])sqrt *\{", r"\\sqrt{", "sqrt{2}", r"\sqrt{2}", I),
    row(r"(?<![\\A-Za-z])sqrt *([0-9]+|[A-Za-z](?![A-Za-z]))", r"\\sqrt{\1}", "sqrt2", r"\sqrt{2}"),
    row(rf"(?<![\\A-Za-z])({FUNCTIONS})(?=[ ({{^_0-9\\])", r"\\\1", "sin(x)", r"\sin(x)"),
    row(rf"(?<![\\A-Za-z])({GREEK_WORDS})(?![A-Za-z])", r"\\\1", "2pi", r"2\pi", I),
    row(r"(?<![\\A-Za-z])(?:infinity|inf|oo)(?![A-Za-z])", r"\\infty", "-infinity", r"-\infty", I),
    row(r" *\*", r" \\cdot", "2*x", r"2 \cdotx"),
    row(r"(\\(?:sin|cos|tan|cot|ln|log)) ?([A-Za-z0-9])(?= ?\\(?:cdot|times)(?![A-Za-z]))", r"\1(\2)", r"\sin x\cdot 2",
        r"\sin(x)\cdot 2"),
    row(r"(/ ?[0-9]+) +(?=[A-Za-z](?![A-Za-z]))", r"\1 \\cdot ", "1/2 x", r"1/2 \cdot x"),
    row(r"\\cdot(?=[A-Za-z])", r"\\cdot ", r"2 \cdotx", r"2 \cdot x"),
    row(r"\^ *(-?[0-9]+|[A-Za-z])(?!\})", r"^{\1}", "x^2", "x^{2}"),
    row(r"\\log_ *([0-9]+)(?=[ (A-Za-z\\])", r"\\log_{\1}", r"\log_10 5", r"\log_{10} 5"),
    row(r"(?<!\\log)_ *([0-9]+|[A-Za-z])(?![}0-9])", r"_{\1}", "a_1", "a_{1}"),
]  # fmt: skip

WORDS = [
    row(r"([0-9][0-9A-F]*) *(?:\(? *(?:in )?base *([0-9]+) *\)?)$", r"\1_{\2}", "1011 (base 2)", "1011_{2}"),
    row(r"_\{\(([0-9]+)\)\}", r"_{\1}", "101_{(2)}", "101_{2}"),
    row(r"^0b([01]+)$", r"\1_{2}", "0b101", "101_{2}"),
    row(r"^0o([0-7]+)$", r"\1_{8}", "0o17", "17_{8}"),
    row(r"^0x([0-9a-fA-F]+)$", r"\1_{16}", "0x1A", "1A_{16}"),
    row(r"\\text\{([0-9A-F]+)\}(?=[0-9A-F]*_\{?[0-9])", r"\1", r"1\text{A}3_{16}", "1A3_{16}"),
    row(r" (?:is )?(?:greater|more|larger) than or equal to ", r" \\ge ",
        "x is greater than or equal to 3", r"x \ge 3", I),
    row(r" (?:is )?(?:less|smaller) than or equal to ", r" \\le ", "x is less than or equal to 3", r"x \le 3", I),
    row(r"(?<![A-Za-z])([a-z]) is (?:greater|more|larger) than (?=[-0-9\\])", r"\1 > ", "x is greater than 3", "x > 3"),
    row(r"(?<![A-Za-z])([a-z]) is (?:less|smaller) than (?=[-0-9\\])", r"\1 < ", "x is less than 3", "x < 3"),
    row(r"(?<![A-Za-z])([a-z]) (?:is|equals) (?=[-0-9\\])", r"\1 = ", "if a is 3", "if a = 3"),
    row(r"(?:^|(?<=[;,.] )|(?<=[0-9}]) +)\(?([a-e])\) +(?=[-0-9\\])", r"; \1 = ", "(a) 3 (b) 5", "; a = 3; b = 5"),
    row(r"% of (?:the |all )?[A-Za-z]+$", "%", "25% of the students", "25%"),
    row(r"^(?:the |this )?(?:system|equation|problem|inequality|it|there) (?:has|have|are|is) (?=no |infinitely )", "",
        "The system has no solution", "no solution", I),
    row(r"(?<=[0-9]) times (?=[0-9\\(]|the (?:square|cube) root)", r" \\cdot ", "2 times 3", r"2 \cdot 3"),
    row(r"\b(?:the )?cube root of ([0-9]+|[a-z])\b", r"\\sqrt[3]{\1}", "the cube root of 4", r"\sqrt[3]{4}", I),
    row(r"^([a-z]) *\\in *\\mathbb\{R\} *(?:,|and|such that|:|\\mid)? *(?=\1(?![A-Za-z]))", "",
        r"x\in\mathbb{R}, x > 0", "x > 0"),
    row(r"^[a-z] *\\in *\\mathbb\{R\}$", r"(-\\infty, \\infty)", r"x \in \mathbb{R}", r"(-\infty, \infty)"),
    row(r"(?<=[0-9A-Za-z)}\]]) *\( *[a-z] *"
        r"(?:\\(?:ge|in|ne)(?! *\\(?:mathbb|text)\{Z)(?![a-z])|>|=)[^()]*(?:\([^()]*\))?\)$", "",
        r"2n - 1 (n \ge 1)", "2n - 1"),
    row(r"^(?:\\text\{ *)?(angle|triangle)(?: *\})? *(?=\$?[A-Z]{3}$)", r"\\\1 ", "triangle ABC", r"\triangle ABC", I),
    row(r"\s*(?:\\text\s*\{\s*(?:percent|per cent|percentage|pct\.?|%)\s*\}"
        r"|(?<![A-Za-z])(?:percent|per cent|percentage|pct)(?![A-Za-z])\.?)",
        "%", "28 percent", "28%", I),
    row(r"\s+%", "%", "28 %", "28%"),
    row(r"(?<=[0-9}i]) ?(?:\\text\s*\{\s*)?degrees?\b(?!\s*(?:[CFK]\b|celsius|fahrenheit|kelvin))(?:\s*\})?",
        r"^{\\circ}",
        "90 degrees", r"90^{\circ}", I),
    row(r"\(? *(?:\\[pb]?|(?<![A-Za-z\\]))mod *\{? *([0-9]+) *\}? *\)?", r" \\pmod{\1}", "3 (mod 5)", r"3  \pmod{5}"),
    row(r"\b(?:plus or minus|plus/minus)\b", r"\\pm", "plus or minus 2", r"\pm 2", I),
    row(r"(?<=[0-9A-Za-z)}\]]),? (?:\\text *\{ *)?(?:for (?:all|any|every|each|some)|where)\b [^=<>]*?(?= and |$)", "",
        "f(x) = x for all x", "f(x) = x"),
    row(r"(?<=.), *(?:\\text\{ *(?:for|where)? *\} *)?\(?[a-z] *\\in *\\mathbb\{[NR]\}\)?$", "",
        r"f(x) = x, x \in \mathbb{R}", "f(x) = x"),
    row(r"(?<=[0-9]) *\\Omega(?![A-Za-z])", r"\\text{ ohms}", r"25 \Omega", r"25\text{ ohms}"),
    row(r"^[\[(](.*)[\])]\^\{?(?:T|\\top|\\text\{T\})\}?$", r"(\1)", "[1, 2]^T", "(1, 2)"),
    row(r"^(?:[A-Z])?\(([-0-9., /]+)\|([-0-9., /]+)\)$", r"(\1; \2)", "S(1|2)", "(1; 2)"),
    row(r"^\{(.*)\}$", r"\\{\1\\}", "{x | x < 1}", r"\{x | x < 1\}"),
    row(r"^([a-z](?:\([a-z]\))?) *\\equiv *(?=[0-9]+ *$|[0-9]+ +and )", r"\1 = ", r"f(x) \equiv 0", "f(x) = 0"),
    row(r"([0-9]+)\^\{\\circ\} ([0-9]+) minutes?$", r"\1^{\\circ} \2'", r"45^{\circ} 30 minutes", r"45^{\circ} 30'"),
    row(r"\{\s*1 *\+ *([a-z])\s*\}", r"{\1+1}", "a_{1+n}", "a_{n+1}"),
    row(r"^all real numbers (?:except|but|other than)(?: for)? (?:x *(?:=|\\ne) *)?(?=[-0-9\\])", r"x \\ne ",
        "all real numbers except 2", r"x \ne 2", I),
    row(r"\b(?:minus|negative) +(?=[0-9\\(])", "-", "negative 5", "-5", I),
    row(r"(?<=[0-9)}]) squared\b", "^{2}", "5 squared", "5^{2}", I),
    row(r"\bthe square root of ([0-9]+|[a-z])\b|\bsquare root of ([0-9]+|[a-z])\b",
        r"\\sqrt{\1\2}", "square root of 2", r"\sqrt{2}", I),
    row(r"^(?:\\text\{\s*)?(?:(?:the )?(?:set of )?all real numbers|all reals|(?:the )?real numbers)(?: ?x)?(?:\s*\})?$"
        r"|^\\mathbb\{R\}$",
        r"(-\\infty, \\infty)", "all real numbers", r"(-\infty, \infty)", I),
    row(r"^(?:\\text\{\s*)?(?:(?:the )?empty set"
        r"|(?:there (?:are|is) )?no (?:real |such )?(?:solutions?|roots?)(?: exists?)?)(?:\s*\})?(?: *: *\\emptyset)?$",
        r"\\emptyset", "no solution", r"\emptyset", I),
    row(r"^(?:\\text\{\s*)?does not exist(?:\s*\})?$", "DNE", "does not exist", "DNE", I),

]  # fmt: skip

SPACES = [
    row(r"\s+", " ", "x  +\n1", "x + 1"),
    row(r"\}(?=\d)", "} ", r"\frac{1}{2}3", r"\frac{1}{2} 3"),
]

# Intervals that open outwards: ]0, 1[ is (0, 1).
ENDS = r"([^\[\](){},;]+[,;][^\[\](){},;]+)"
INTERVALS = [
    row(rf"(?<![0-9A-Za-z)}}])\]{ENDS}\[", r"(\1)", "]0, 1[", "(0, 1)"),
    row(rf"\[{ENDS}\[", r"[\1)", "[0, 1[", "[0, 1)"),
    row(rf"(?<![0-9A-Za-z)}}])\]{ENDS}\]", r"(\1]", "]0, 1]", "(0, 1]"),
]

SPELLINGS = [*UNICODE, *PHRASES, *LATEX, *CODE, *INTERVALS, *WORDS, *SPACES]
