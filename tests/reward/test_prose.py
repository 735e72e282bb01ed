"""Thoughts that hide from the language reward: in code, formulas, addresses, other forms of letters, lookalikes."""

import time

import pytest

from rlframe.reward.prose import prose_of
from tests.reward.test_language import judge, score

CHINESE = "我们先把两个数相加，然后再除以三，所以答案是五。"  # 22 characters: 13.3 words
FRENCH = "nous avons deux pommes et il faut les donner à tous les enfants avec le pain"
ENGLISH = "We add the two."


def encoded(text: str) -> str:
    return "".join(f"%{byte:02X}" for byte in text.encode())


@pytest.mark.parametrize(
    "hidden",
    [
        f"```\n{CHINESE}\n```",
        f"```python\n# {CHINESE}\nx = 1\n```",
        f"```{CHINESE}```",
        f"```text\n{CHINESE}",  # cut off by the length limit
        f"~~~\n{CHINESE}\n~~~",
        f"~~~python\nprint('{CHINESE}')\n~~~",
        f"    {CHINESE}",
        f"`{CHINESE}`",
        f"``{CHINESE}``",
        f"$\\text{{{CHINESE}}}$",
        f"$${CHINESE}$$",
        f"\\[\\mathrm{{{CHINESE}}}\\]",
        f"https://example.org/{CHINESE}",
        f"https://example.org/?q={encoded(CHINESE)}",
        f"<b>{CHINESE}</b>",
        f'<p title="{CHINESE}">',
        f"<!-- {CHINESE} -->",
        "\u200b".join(CHINESE),
        "".join(f"&#{ord(letter)};" for letter in CHINESE),
        "`" + "".join(f"\\u{ord(letter):04x}" for letter in CHINESE) + "`",
        f"[{CHINESE}](https://example.org)",
        f"|{CHINESE}|",
    ],
)
def test_a_chinese_thought_hides_nowhere_from_an_english_target(hidden: str):
    assert score("en", f"{ENGLISH} {hidden}") < 0.35


@pytest.mark.parametrize(
    "hidden",
    [
        f"```\n{FRENCH}\n```",
        f"```python\n# {FRENCH}\n```",
        f"~~~\n{FRENCH}\n~~~",
        f"`{FRENCH}`",
        f"$\\text{{{FRENCH}}}$",
        f"\\[\\text{{{FRENCH}}}\\]",
        "\u200b".join(FRENCH),
        "\u00ad".join(FRENCH),
        "".join(chr(ord(letter) + 0xFEE0) if "a" <= letter <= "z" else letter for letter in FRENCH),  # full width
        "".join(chr(ord(letter) - ord("a") + 0x1D5BA) if "a" <= letter <= "z" else letter for letter in FRENCH),
        "".join(chr(ord(letter) - ord("a") + 0x24D0) if "a" <= letter <= "z" else letter for letter in FRENCH),
        FRENCH.replace("à", "a\u0300").replace("e", "e\u0332"),
        FRENCH.replace("e", "\u0435").replace("o", "\u043e"),  # Cyrillic
        FRENCH.replace("o", "\u03bf"),  # Greek
        f"<i>{FRENCH}</i>",
        f"<!-- {FRENCH} -->",
    ],
)
def test_a_french_thought_hides_nowhere_from_an_english_target(hidden: str):
    assert score("en", f"{ENGLISH}\n{hidden}") < 0.5


@pytest.mark.parametrize(
    "thought",
    [
        "suoyi women xian ba liangge shu jia qilai, ranhou chu yi san, dengyu wu, zhege shi zuihou daan",
        "kono mondai wa kantan desu kara mazu futatsu no kazu wo tashite sono ato san de warimasu",
        "my dolzhny slozhit dva chisla potom razdelit na tri poluchim pyat eto i est otvet zadachi",
    ],
)
def test_romanised_thoughts_are_not_english(thought: str):
    assert score("en", thought) == 0.0


@pytest.mark.parametrize(
    ("target", "text"),
    [
        ("en", "Wе аdd thе twо numbеrs аnd gеt fivе."),  # Cyrillic е, а, о: a reader sees English
        ("en", "Ｗｅ ａｄｄ ｔｈｅ ｔｗｏ ｎｕｍｂｅｒｓ."),
        ("ru", "Мы cклaдывaeм двa чиcлa и пoлучaeм пять."),  # Latin c, a, e, o
        ("en", "The angle is α, so cosθ and Δx are small and the sum of the two is π."),
        ("en", "Then $\\alpha = \\beta$ and $αβγ = 2$, so `αβ` is two and the rest is zero."),
        ("zh", "我们用 `for item in items: total += item` 求和，然后得到答案。"),
        (
            "zh",
            "写：\n```python\nfrom math import sqrt as root\nif a is not None and b in seen or c:\n  go()\n```\n好。",
        ),
        ("zh", "查询：\n```sql\nSELECT name FROM users WHERE age IS NOT NULL\n```\n就得到答案。"),
        ("zh", "代码：\n```python\n# add the two numbers and return\ndef add(a, b):\n    return a + b\n```\n完成。"),
        ("zh", "参见 https://example.org/how-to-find-the-sum-of-the-two-numbers-in-a-list 的说明。"),
        ("fr", "On appelle `print(total)` et on a la réponse dans le tableau."),
    ],
)
def test_code_formulas_and_lookalikes_change_no_honest_thoughts_language(target: str, text: str):
    assert score(target, text) == 1.0


def test_a_block_of_code_is_prose_if_half_of_its_lines_are_sentences():
    code = "x = f(y)\n" * 3
    sentence = "# we add the two numbers and then we are done\n"  # 10 words
    assert "we add" in prose_of(f"```\n{code}{sentence * 3}```")
    assert "we add" not in prose_of(f"```\n{code}{sentence * 2}```")
    assert "we add" in prose_of(f"```\n{sentence}```")
    assert "we are" not in prose_of("```\n# and then we are done\n```")  # fewer than 8 words


def test_only_code_that_no_reader_reads_leaves_no_words():
    assert prose_of("a `b(c)` d").split() == ["a", "d"]
    result = judge("en", "```python\nfor index in range(10):\n    total = total + index\n```")
    assert (result.score, result.status) == (0.0, "unparseable")


@pytest.mark.parametrize(
    "piece", ["~~~", "&#", "\\u0061", "%E6", "https://%", "ｗ", "а", "аa", "\u200b", "e\u0301", "``\n"]
)
def test_a_hundred_thousand_pieces_take_linear_time(piece: str):
    started = time.process_time()
    judge("en", piece * 100_000)
    assert time.process_time() - started < 10  # a quadratic reader takes minutes
