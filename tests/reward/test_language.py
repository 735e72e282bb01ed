"""The language reward on labelled thoughts (tests/reward/language_cases.jsonl) and on evasions.

A case's share is the share of its words that are in the target language, counted by hand, with Chinese divided into
words. Mathematics, code and names do not count. language_short.jsonl has sentences of a few words; the word lists were
not changed after the `unseen` ones were written.
"""

import json
import time
from pathlib import Path

import pytest
from pydantic import ValidationError

from rlframe.reward.language import Language
from rlframe.types import Completion, Message, Prompt, Verdict

CASES = [json.loads(line) for line in (Path(__file__).parent / "language_cases.jsonl").read_text().splitlines()]
SHORT = [json.loads(line) for line in (Path(__file__).parent / "language_short.jsonl").read_text().splitlines()]


def judge(language: str, text: str, *messages: Message) -> float | Verdict:
    reward = Language.model_validate({"name": "language", "weight": 1.0, "language": language})
    prompt = Prompt(id="p", messages=list(messages), token_ids=[], reference="", task="math")
    return reward(prompt, Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop"))


def score(language: str, text: str, *messages: Message) -> float:
    result = judge(language, text, *messages)
    assert isinstance(result, float)
    return result


def user(content: str) -> Message:
    return {"role": "user", "content": content}


@pytest.mark.parametrize("kind", sorted({case["kind"] for case in CASES}))
def test_95_percent_of_each_kind_of_thought_score_within_a_tenth(kind: str):
    cases = [case for case in CASES if case["kind"] == kind]
    wrong = [case for case in cases if abs(score(case["target"], case["text"]) - case["share"]) > 0.1]
    assert len(wrong) <= 0.05 * len(cases), wrong


def test_95_percent_of_pure_thoughts_score_exactly_one_or_zero():
    pure = [case for case in CASES if case["share"] in (0, 1)]
    exact = [case for case in pure if score(case["target"], case["text"]) == case["share"]]
    assert len(pure) >= 80
    assert len(exact) >= 0.95 * len(pure), [case for case in pure if case not in exact]


def test_the_set_has_100_cases_and_30_mixed_cases():
    assert len(CASES) >= 100
    assert sum(0 < case["share"] < 1 for case in CASES) >= 30


@pytest.mark.parametrize(
    ("text", "share"),
    [
        ("<think>We add the two.</think> 答案是五。", 1.0),
        ("We add the two.</think> 答案是五。", 1.0),
        ("好的。<think>We add the two.</think>答案是五。", 1.0),
        ("<think>We add the two.", 1.0),
        ("We add the two.", 1.0),
        ("<think>我们先把两个数相加。</think>The answer is five.", 0.0),
        ("<think>We add</think>我们先把两个数相加。</think>The answer is five.", 2 / (2 + 9 / 1.65)),
    ],
)
def test_the_thought_spans_the_first_opening_to_the_last_closing_tag(text: str, share: float):
    assert score("en", text) == pytest.approx(share)


@pytest.mark.parametrize("language", sorted({case["language"] for case in SHORT}))
def test_short_sentences_are_in_their_language(language: str):
    cases = [case for case in SHORT if case["language"] == language]
    wrong = [case for case in cases if judge(language, case["text"]) != 1.0]
    assert sum(not case["unseen"] for case in wrong) == 0, wrong
    assert len(wrong) <= 0.2 * sum(case["unseen"] for case in cases), wrong


def test_nine_in_ten_short_sentences_are_in_no_other_language():
    def others(case: dict) -> bool:
        languages = {other["language"] for other in SHORT} - {case["language"]}
        return any(judge(language, case["text"]) == 1.0 for language in languages)

    wrong = [case for case in SHORT if others(case)]  # mostly Spanish that is Portuguese too
    assert len(wrong) <= 0.1 * len(SHORT), wrong


def test_terse_french_is_french():
    thought = "D'abord 38 + 45 = 83. Ensuite 83 + 2 = 85."
    question = user("Combien font 38 + 45 + 2 ?")
    assert (score("prompt", thought, question), score("fr", thought), score("en", thought)) == (1.0, 1.0, 0.0)


@pytest.mark.parametrize("language", ["en", "fr", "zh"])
def test_words_that_tell_no_language_score_zero_in_all(language: str):
    result = judge(language, "Gabra 38 + 45 = 83. Hoba gabra 85.")
    assert isinstance(result, Verdict)
    assert (result.score, result.detail) == (0.0, "the thought's words tell no language")


def test_a_word_of_several_languages_is_in_the_target_language():
    assert [score(language, "Total: 85.") for language in ("en", "fr", "es", "ru")] == [1.0, 1.0, 1.0, 0.0]


@pytest.mark.parametrize("text", ["Addition: 2 + 3 = 5", "Question: 2 + 3", "Solution: 5", "2 + 3 euros"])
def test_letters_do_not_overrule_a_word_of_several_languages(text: str):
    assert [score(language, text) for language in ("en", "fr", "ru")] == [1.0, 1.0, 0.0]


@pytest.mark.parametrize(
    ("question", "thought"),
    [
        ("Quanto é 2 + 3?", "A soma é 5."),
        ("Quanto é 2 + 3?", "La somma è 5."),
        ("Calcule 2 + 3.", "A soma é 5."),
        ("Wat is 2 + 3?", "De som is 5."),
    ],
)
def test_a_question_of_two_languages_takes_the_thoughts(question: str, thought: str):
    assert score("prompt", thought, user(question)) == 1.0


def test_a_question_without_language_takes_the_thoughts():
    assert score("prompt", "Ensuite 83 + 2 = 85.", user("Gabra 83?")) == 1.0


def test_a_chinese_word_is_1_65_characters():
    assert score("zh", "所以答案是 the sum of the digits") == pytest.approx((5 / 1.65) / (5 / 1.65 + 5))


@pytest.mark.parametrize(
    "text",
    ["", "<think></think>5", "<think>\n$2 + 3 = 5$\n</think>5", "```\nall of it in code\n```", "2 + 3 = 5", "Bob"],
)
def test_a_thought_without_words_scores_zero_and_says_why(text: str):
    result = judge("en", text)
    assert isinstance(result, Verdict)
    assert (result.score, result.status, result.detail) == (0.0, "unparseable", "the thought has no words")


@pytest.mark.parametrize(
    "hidden", ["$我们先把两个数相加$", "$$我们先把两个数相加$$", r"\[我们先把\]", r"\(我们先把\)", r"$\text{我们先把}$"]
)
def test_chinese_does_not_hide_in_a_formula(hidden: str):
    assert score("en", f"We add the two numbers. {hidden}") < 0.8


def test_prices_are_not_a_formula():
    assert score("en", "Das kostet $5 und das andere kostet nicht mehr als $10 und ist gut.") == 0.0


@pytest.mark.parametrize(
    ("question", "thought", "share"),
    [
        ("How many apples are left?", "We add the two.", 1.0),
        ("How many apples are left?", "我们先把两个数相加。", 0.0),
        ("还剩多少个苹果？", "我们先把两个数相加。", 1.0),
        ("还剩多少个苹果？", "We add the two.", 0.0),
        ("Combien de pommes reste-t-il ?", "On ajoute les deux nombres.", 1.0),
        ("Combien de pommes reste-t-il ?", "We add the two.", 0.0),
        ("Berechne $2 + 3$.", "Wir addieren die zwei Zahlen.", 1.0),
        ("Сколько яблок осталось?", "Мы складываем два числа.", 1.0),
        ("りんごはいくつ残りますか。", "我们先把两个数相加。", 0.0),
        ("2 + 3 =", "我们先把两个数相加。", 1.0),  # no words: the thought's commonest language
        ("2 + 3 =", "所以答案是 the sum of the digits", 5 / (5 / 1.65 + 5)),
    ],
)
def test_the_last_user_message_sets_the_prompts_language(question: str, thought: str, share: float):
    messages = [{"role": "system", "content": "请用中文回答。"}, user("Bonjour, ça va ?"), user(question)]
    assert score("prompt", thought, *messages) == pytest.approx(share)


def test_words_that_the_prompt_quotes_from_another_script_do_not_count():
    english, thought = user("What does 谢谢 mean, and who is 小明?"), "The word 谢谢 means thanks, and 小明 is a boy."
    assert score("prompt", thought, english) == 1.0
    assert score("en", thought, user("What does it mean?")) < 0.85
    assert score("prompt", "所以 banana 是香蕉。", user("请问 banana 是什么？")) == 1.0
    assert score("prompt", "所以 banana 是香蕉。", user("请问这是什么？")) < 0.85


def test_a_prompt_in_another_language_than_the_target_excuses_no_words():
    assert score("en", "我们先把两个数相加。", user("我们先把两个数相加。")) == 0.0


@pytest.mark.parametrize(
    "piece",
    [
        "$",
        "$$",
        "$x ",
        r"\[",
        r"\(",
        "`",
        "```",
        r"\begin{",
        "a",
        "a(",
        "= a ",
        "A ",
        "é",
        "中",
        "の",
        "中$",
        "<think>",
    ],
)
def test_a_hundred_thousand_equal_pieces_take_linear_time(piece: str):
    started = time.process_time()
    judge("en", piece * 100_000)
    assert time.process_time() - started < 10  # a quadratic reader takes minutes


def test_an_unknown_target_language_is_refused():
    with pytest.raises(ValidationError, match="language"):
        judge("klingon", "")
