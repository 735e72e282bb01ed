r"""Characters outside of ASCII as plain LaTeX: √, ², ½, ≤, full-width digits, Greek letters."""

from __future__ import annotations

import re
import unicodedata

SUPERSCRIPTS = dict(zip("⁰¹²³⁴⁵⁶⁷⁸⁹⁺⁻⁽⁾ⁿⁱˣ", "0123456789+-()nix", strict=True))
SUBSCRIPTS = dict(zip("₀₁₂₃₄₅₆₇₈₉", "0123456789", strict=True))
FRACTIONS = {"½": (1, 2), "⅓": (1, 3), "⅔": (2, 3), "¼": (1, 4), "¾": (3, 4), "⅕": (1, 5), "⅖": (2, 5), "⅗": (3, 5),
             "⅘": (4, 5), "⅙": (1, 6), "⅚": (5, 6), "⅛": (1, 8), "⅜": (3, 8), "⅝": (5, 8), "⅞": (7, 8)}  # fmt: skip
GREEK = dict(
    zip(
        "αβγδεζηθικλμνξρστυφχψωΓΔΘΛΞΣΦΨΩ",
        [
            r"\alpha",
            r"\beta",
            r"\gamma",
            r"\delta",
            r"\epsilon",
            r"\zeta",
            r"\eta",
            r"\theta",
            r"\iota",
            r"\kappa",
            r"\lambda",
            r"\mu",
            r"\nu",
            r"\xi",
            r"\rho",
            r"\sigma",
            r"\tau",
            r"\upsilon",
            r"\phi",
            r"\chi",
            r"\psi",
            r"\omega",
            r"\Gamma",
            r"\Delta",
            r"\Theta",
            r"\Lambda",
            r"\Xi",
            r"\Sigma",
            r"\Phi",
            r"\Psi",
            r"\Omega",
        ],
        strict=True,
    )
)
SIGNS = {
    "×": r"\times", "·": r"\cdot", "⋅": r"\cdot", "∙": r"\cdot", "•": r"\cdot", "π": r"\pi", "𝜋": r"\pi",
    "∞": r"\infty", "≤": r"\le", "⩽": r"\le", "≦": r"\le", "≥": r"\ge", "⩾": r"\ge", "≧": r"\ge", "≠": r"\ne",
    "≈": r"\approx", "∪": r"\cup", "∩": r"\cap", "∈": r"\in", "∉": r"\notin", "∅": r"\emptyset", "⌀": r"\emptyset",
    "∖": r"\setminus", "±": r"\pm", "∓": r"\mp", "…": r"\ldots", "∠": r"\angle", "∘": r"\circ", "∑": r"\sum",
    "∏": r"\prod", "∫": r"\int", "⟨": r"\langle", "⟩": r"\rangle", "⌊": r"\lfloor", "⌋": r"\rfloor", "⌈": r"\lceil",
    "⌉": r"\rceil", "→": r"\to", "⇒": r"\Rightarrow", "⊂": r"\subset", "⊆": r"\subseteq", "≡": r"\equiv", "∣": r"\mid",
    "△": r"\triangle", "∆": r"\Delta", "∨": r"\lor", "∧": r"\land", "↦": r"\mapsto", "∴": r"\therefore",
}  # fmt: skip
CHARACTERS = str.maketrans(
    {sign: f"{latex} " for sign, latex in (SIGNS | GREEK).items()}
    | {chr(code): chr(code - 0xFEE0) for code in range(0xFF01, 0xFF5F)}  # full-width forms
    | {dash: "-" for dash in "−–—‐‑﹣⁃"}
    | {chr(code): " " for code in (0x00A0, *range(0x2000, 0x200B), 0x202F, 0x205F, 0x3000)}
    | {nothing: "" for nothing in "\u200b\u200c\u200d\u2060\ufeff\u00ad\u2061\u2062\u2063"}
    | {letter: rf"\mathbb{{{name}}}" for letter, name in zip("ℝℤℕℚℂ", "RZNQC", strict=True)}
    | {"÷": "/", "∶": ":", "∕": "/", "⁄": "/", "°": r"^{\circ}", "º": r"^{\circ}", "℃": r"^{\circ}C"}
    | {"′": "'", "’": "'", "‘": "'", "″": "''"}
    | {chr(0x2460 + index): rf"\textcircled{{{index + 1}}}" for index in range(20)}
    | {"“": '"', "”": '"', "。": ".", "、": ",", "∛": r"\sqrt[3]"}
)  # fmt: skip
STYLED = re.compile("[\U0001d400-\U0001d7ff]")  # letters and digits in bold, italic and other styles
VULGAR = re.compile("[" + "".join(FRACTIONS) + "]")
RAISED = re.compile("[" + "".join(SUPERSCRIPTS) + "]+")
LOWERED = re.compile("[" + "".join(SUBSCRIPTS) + "]+")


def ascii_only(text: str) -> str:
    r"""Roots stay √, since their argument is not read here.

    >>> ascii_only("x² ≤ ½")
    'x^{2} \\le  \\frac{1}{2}'
    """
    text = RAISED.sub(lambda run: "^{" + "".join(SUPERSCRIPTS[sign] for sign in run[0]) + "}", text)
    text = LOWERED.sub(lambda run: "_{" + "".join(SUBSCRIPTS[sign] for sign in run[0]) + "}", text)
    text = VULGAR.sub(lambda sign: r"\frac{{{}}}{{{}}}".format(*FRACTIONS[sign[0]]), text)
    text = STYLED.sub(lambda letter: unicodedata.normalize("NFKC", letter[0]), text)
    text = re.sub(r"[^\W_a-zA-Z0-9]", lambda sign: str(unicodedata.decimal(sign[0], sign[0])), text)
    return text.translate(CHARACTERS)
