"""Held-out questions, recognised by runs of words and by numbers."""

from pathlib import Path

import pytest

from rlframe.select.heldout import HeldOut, read_questions

TOM = "Tom has 12 red apples and buys 7 more at the market on Monday."


def holds(question: str, held_out: list[str], *, ngram: int = 10, values: bool = False) -> bool:
    return HeldOut([held_out], ngram, values=values).holds(question)


def test_ten_words_in_a_row_are_held_out_in_any_case() -> None:
    assert holds("Today TOM has 12 red apples, and buys 7 more at noon!", [TOM])
    assert not holds("Tom has 12 red apples and buys 8 more at the market on Monday.", [TOM])


def test_ten_characters_of_a_script_without_spaces_are_held_out() -> None:
    question = "小明有12个红苹果，又在市场上买了7个，他现在一共有多少个苹果？"
    assert holds(f"应用题。{question}请写出答案。", [question])
    assert not holds("小红有5个梨，吃了2个，还剩多少个梨？", [question])
    assert holds("โจทย์: แม่มีแอปเปิลสีแดงสิบสองผล", ["แม่มีแอปเปิลสีแดงสิบสองผล และซื้อเพิ่ม"])


def test_a_short_question_is_compared_as_a_whole() -> None:
    assert holds("what is 28 + 37", ["What is 28 + 37?"])
    assert not holds("What is 28 - 37?", ["What is 28 + 37?"])
    assert not holds("So what is 28 + 37?", ["What is 28 + 37?"])


def test_a_question_in_a_templates_words_is_compared_as_a_whole() -> None:
    words = "{} Answer with a number, and with nothing else before or behind it."
    held_out = HeldOut([["What is 28 + 37?"]], 10, values=False, rendered=[words.format("What is 28 + 37?")])
    assert held_out.holds(words.format("what is 28 +  37"))
    assert not held_out.holds(words.format("What is 11 + 37?"))  # ten words are the same: 37 and the template's


def test_values_find_the_same_numbers_in_other_words() -> None:
    assert holds("Combien font 37 + 28 ?", ["What is 28 + 37?"], values=True)
    assert not holds("Combien font 37 + 29 ?", ["What is 28 + 37?"], values=True)
    assert not holds("What is half of 28?", ["Double 28."], values=True)  # one number tells too little


def test_words_that_most_held_out_questions_share_do_not_count() -> None:
    frame = "Think step by step and write the answer alone at the end: {} + {}"
    questions = [frame.format(number, number) for number in range(10, 20)]
    assert not holds(frame.format(77, 78), questions)
    assert holds(frame.format(12, 12), questions)


def test_no_held_out_set_holds_nothing() -> None:
    assert not HeldOut([], 10, values=True).holds(TOM)


def test_questions_are_read_from_rows_and_from_plain_fields(tmp_path: Path) -> None:
    file = tmp_path / "held.jsonl"
    file.write_text(
        '{"question": "One?"}\n\n{"prompt": [{"role": "user", "content": "Two?"}]}\n'
        '{"messages": [{"role": "user", "content": "Three?"}, {"role": "assistant", "content": "3"}]}\n'
    )
    assert list(read_questions(str(file))) == ["One?", "Two?", "Three?"]


def test_a_held_out_line_without_a_question_is_named(tmp_path: Path) -> None:
    file = tmp_path / "held.jsonl"
    file.write_text('{"question": "One?"}\n{"answer": "2"}\n')
    with pytest.raises(ValueError, match=r"held\.jsonl, line 2: no question; a held-out line has messages, question"):
        list(read_questions(str(file)))


def test_a_question_that_many_lines_of_a_set_repeat_is_held_out() -> None:
    question = "How many apples are left over when nine children share thirty of them?"
    assert HeldOut([[question] * 8], 10, values=False).holds(question)


@pytest.mark.parametrize(
    "message", ['{"from": "human", "value": "q"}', '{"role": "user"}', '{"role": "user", "content": [1]}']
)
def test_held_out_messages_of_another_shape_are_named(tmp_path: Path, message: str) -> None:
    file = tmp_path / "held.jsonl"
    file.write_text(f'{{"question": "One?"}}\n{{"messages": [{message}]}}\n')
    with pytest.raises(ValueError, match=r"held\.jsonl, line 2: no question"):
        list(read_questions(str(file)))
