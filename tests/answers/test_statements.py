"""Answers inside sentences: of words, dates and times, and of other languages. A denial is never right."""

import pytest

from tests.answers.same import is_right


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("convex", "The function is convex.", True),
        ("convex", "It is a convex function", True),
        ("convex", "It is not convex", False),
        ("convex", "It is neither convex nor concave", False),
        ("north", "They are heading to the north.", True),
        ("north", "She was facing north", True),
        ("north", "to the north", True),
        ("north", "north-east", False),
        ("no", "No, since 9 is odd.", True),
        ("no", "No; but if n is odd, yes.", False),
        ("no", "Yes, because no other number works", False),
        ("15", "There are fifteen of them.", True),
        ("15", "It equals fifteen", True),
        ("15", "It is less than fifteen", False),
        ("15", "fifteen times two", False),
        ("15", "fifteen metres", True),
        (r"\frac{3}{4}", "The probability is three quarters.", True),
        (r"7\frac{2}{3}", "seven and two thirds", True),
        (r"7\frac{2}{3}", "7 and 2/3", True),
        ("7, 2/3", "7 and 2/3", True),
        (r"4\sqrt{5}", "4 times the square root of 5", True),
        ("18", "18 (that is, 9 + 9)", True),
        ("18", "He eats 7 and sells 11, for a total of 18.", True),
        ("18", "36 / 2 = 18, so 18", True),
        ("18", "36 / 2 = 18, so 19", False),
        ("x^2 - 4", "It is x^2 - 4.", True),
        (r"x \le 7", "x is less than or equal to 7", True),
        (r"x \le 7", "x is less than 7", False),
        ("a = 1, b = 2", "(a) 1 (b) 2", True),
        ("(a) 1; (b) 2", "a) 2, b) 1", False),
        (r"\emptyset", "The equation has no real solutions.", True),
        ("infinitely many", "There are infinitely many solutions", True),
    ],
)
def test_a_statement_is_what_it_states(reference: str, answer: str, right: bool):
    assert is_right(reference, answer) is right


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("9:20 AM", "The bus leaves at 9:20 AM.", True),
        ("9:20 AM", "The bus does not leave at 9:20 AM.", False),
        ("9:20 AM", "The bus leaves before 9:20 AM.", False),
        ("9:20", "The bus leaves after 9:20", False),
        ("9:20 AM", "twenty past nine in the morning", True),
        ("9:20 AM", "twenty to nine in the morning", False),
        ("5:30 PM", "half past five in the afternoon", True),
        ("5:30 PM", "half past five in the morning", False),
        ("11:45 PM", "a quarter to twelve at night", True),
        ("May 1, 2020", "They met on May 1, 2020.", True),
        ("May 1, 2020", "2020年5月1日", True),
        ("May 1, 2020", "2020年1月5日", False),
        ("Friday", "It was a Friday.", True),
        ("Friday", "It was on Thursday.", False),
    ],
)
def test_dates_and_times_are_read_in_sentences(reference: str, answer: str, right: bool):
    assert is_right(reference, answer) is right


@pytest.mark.parametrize(
    ("reference", "answer", "right"),
    [
        ("7.5", "Das Ergebnis ist 7,5.", True),
        ("7.5", "La solución es 7,5", True),
        ("7.5", "Le résultat est $7{,}5$", True),
        ("7.5", "Das Ergebnis ist nicht 7,5.", False),
        ("17", "17 ist falsch", False),
        ("17", "答案是17。", True),
        ("17", "一共17只", True),
        ("17", "不是17", False),
        ("17", "大于17", False),
        ("17", "负17", False),
        ("17", "17万", False),
        ("17", "Всего 17 книг", True),
        ("17", "Не меньше 17", False),
        ("17", "17 тысяч", False),
        ("17", "17 Tausend", False),
        ("17", "총 17명입니다", True),
        ("17", "17이 아니다", False),
        ("17", "答えは17または18", False),
        ("C", "选C", True),
        ("C", "选D", False),
        ("(4, 5)", "交点为（4，5）", True),
        ("(4, 5)", "(4|5)", True),
        (r"\frac{1}{6}", "Ответ: 0,1(6)", True),
        ("17", "१७", True),  # digits of Devanagari
        ("17", "𝟏𝟕", True),
        ("x + 1", "𝑥 + 1", True),
    ],
)
def test_words_of_any_language_stand_around_an_answer(reference: str, answer: str, right: bool):
    try:
        verdict = is_right(reference, answer)
    except Exception:  # math-verify does not read the text
        verdict = False
    assert verdict is right
