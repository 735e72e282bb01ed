"""Rows as tokens: the prompt that an engine gets, and the completion that it would sample."""

from pathlib import Path

import pytest

from rlframe.batch.records import to_record
from rlframe.prompts.rendering import Renderer
from rlframe.prompts.template import ChatTemplate
from rlframe.rows.tokens import RowEncoder, end_token_ids, tokenizer_digest
from rlframe.rows.types import Demonstration
from rlframe.types import Completion, Message, Prompt, RolloutGroup, ScoredGroup, Trajectory
from tests.tiny.models import byte_tokenizer
from tests.tiny.templates import QWEN3, QWEN3_APART, R1_DISTILL, SMOLLM2

ASK: Message = {"role": "user", "content": "What is 2 + 3?"}
MORE: Message = {"role": "user", "content": "And 4 more?"}


def say(content: str) -> Message:
    return {"role": "assistant", "content": content}


def encoder(template: str | None = SMOLLM2, turns="last", raw: bool = False, **kwargs: object) -> RowEncoder:
    chat_template = ChatTemplate(chat_template=template, chat_template_kwargs=kwargs or None, raw=raw)
    tokenizer = byte_tokenizer()
    return RowEncoder(tokenizer, chat_template, turns, {tokenizer.eos_token_id})


def row(answer: str, *before: Message, **changes) -> Demonstration:
    fields = {"id": "r", "messages": list(before) or [ASK], "answer": answer, "task": "math", "source": "r"}
    return Demonstration(**(fields | changes))


def texts(trajectory: Trajectory) -> list[tuple[str, str]]:
    """Observed and completed text of each turn."""
    decode = byte_tokenizer().decode
    return [(decode(turn.observed.tolist()), decode(turn.completion.token_ids.tolist())) for turn in trajectory.turns]


def test_smollm2_s_prompt_has_its_system_message_and_the_answer_its_end() -> None:
    prompt = "<|system|>You are a helpful AI assistant.<|end|><|user|>What is 2 + 3?<|end|><|assistant|>"
    assert texts(encoder().trajectory(row("5"))) == [(prompt, "5<|end|>")]


def test_with_qwen3_s_thinking_on_the_thoughts_are_completed() -> None:
    ((prompt, completion),) = texts(encoder(QWEN3).trajectory(row("<think>\n2+3\n</think>\n\n5")))
    assert prompt.endswith("<|assistant|>")
    assert completion == "<think>\n2+3\n</think>\n\n5<|end|>"


def test_with_qwen3_s_thinking_off_the_empty_thoughts_are_the_prompt_s() -> None:
    ((prompt, completion),) = texts(encoder(QWEN3, enable_thinking=False).trajectory(row("5")))
    assert prompt.endswith("<|assistant|><think>\n\n</think>\n\n")
    assert completion == "5<|end|>"


@pytest.mark.parametrize("opening", ["<think>\n", "<think>", ""])
def test_r1_s_prompt_opens_the_thoughts_and_the_completion_does_not(opening: str) -> None:
    ((prompt, completion),) = texts(encoder(R1_DISTILL).trajectory(row(f"{opening}2+3\n</think>\n\n5")))
    assert prompt.endswith("<|assistant|><think>\n")
    assert completion == "2+3\n</think>\n\n5<|end|>"


def test_thoughts_beside_the_content_are_spelled_as_the_template_does() -> None:
    ((_, completion),) = texts(encoder(QWEN3_APART).trajectory(row("5", reasoning="2+3")))
    assert completion == "<think>\n2+3\n</think>\n\n5<|end|>"


def test_a_raw_answer_follows_its_question() -> None:
    assert texts(encoder(None, raw=True).trajectory(row(" 5"))) == [("What is 2 + 3?", " 5<|end|>")]


def test_sampled_tokens_are_kept_where_the_tokenizer_is_the_same() -> None:
    sampled = [20, 21, 22]
    same = row("5", token_ids=sampled, tokenizer=tokenizer_digest(byte_tokenizer()))
    assert encoder().trajectory(same).completion.token_ids.tolist() == sampled
    other = row("5", token_ids=sampled, tokenizer="another")
    assert texts(encoder().trajectory(other))[0][1] == "5<|end|>"


def sampled_row(answer: str) -> Demonstration:
    tokenizer = byte_tokenizer()
    token_ids = [*tokenizer(answer, add_special_tokens=False)["input_ids"], tokenizer.eos_token_id]
    return row(answer, token_ids=token_ids, tokenizer=tokenizer_digest(tokenizer))


def test_thoughts_sampled_under_a_template_that_does_not_open_them_are_opened_once() -> None:
    ((prompt, completion),) = texts(encoder(R1_DISTILL).trajectory(sampled_row("<think>\n2+3</think>5")))
    assert prompt.endswith("<think>\n") and completion == "2+3</think>5<|end|>"


@pytest.mark.parametrize(
    ("template", "answer", "problem"),
    [
        (SMOLLM2, "2+3</think>5", "closes thoughts that neither it nor the prompt opens"),
        (R1_DISTILL, "5", "and the answer never closes it"),
    ],
)
def test_sampled_thoughts_that_contradict_the_prompt_are_refused(template: str, answer: str, problem: str) -> None:
    with pytest.raises(ValueError, match=problem):
        encoder(template).trajectory(sampled_row(answer))


def test_an_empty_block_of_thoughts_that_was_sampled_is_kept() -> None:
    ((_, completion),) = texts(encoder(QWEN3).trajectory(sampled_row("<think>\n\n</think>\n\n5")))
    assert completion == "<think>\n\n</think>\n\n5<|end|>"


@pytest.mark.parametrize("token_id", [-5, 999_999, 10**12])
def test_a_token_that_the_tokenizer_lacks_is_refused(token_id: int) -> None:
    known = tokenizer_digest(byte_tokenizer())
    with pytest.raises(ValueError, match=rf"^row r: token_ids holds {token_id}, which is none of the tokenizer's"):
        encoder().trajectory(row("5", token_ids=[20, token_id], tokenizer=known))


def test_all_turns_of_a_kept_conversation_are_one_sequence() -> None:
    trajectory = encoder(turns="all").trajectory(row("9", ASK, say("5"), MORE))
    assert texts(trajectory)[1] == ("<|user|>And 4 more?<|end|><|assistant|>", "9<|end|>")
    (path,) = sequences(trajectory)
    assert [turn.parent for turn in trajectory.turns] == [None, 0]
    assert path.trained == [(0, 4)]  # "5", its end, "9", its end


def test_turns_whose_thoughts_are_stripped_later_are_apart() -> None:
    first, second = "<think>\n2+3\n</think>\n\n5", "<think>\n5+4\n</think>\n\n9"
    trajectory = encoder(QWEN3, turns="all").trajectory(row(second, ASK, say(first), MORE))
    (_, completion), (prompt, last) = texts(trajectory)
    assert completion == f"{first}<|end|>" and last == f"{second}<|end|>"
    assert prompt == "<|user|>What is 2 + 3?<|end|><|assistant|>5<|end|><|user|>And 4 more?<|end|><|assistant|>"
    assert len(sequences(trajectory)) == 2


def test_the_last_turn_alone_is_trained_on_by_default() -> None:
    trajectory = encoder().trajectory(row("9", ASK, say("5"), MORE))
    assert [completion for _, completion in texts(trajectory)] == ["9<|end|>"]


def test_the_prompt_is_the_engine_s_token_by_token() -> None:
    template = ChatTemplate(chat_template=QWEN3, chat_template_kwargs={"enable_thinking": False}, raw=False)
    prompt = encoder(QWEN3, enable_thinking=False).trajectory(row("5")).turns[0].observed
    assert prompt.tolist() == Renderer(byte_tokenizer(), template).token_ids([ASK])


@pytest.mark.parametrize(
    ("template", "kwargs", "answer", "problem"),
    [
        (R1_DISTILL, {}, "5", "opens <think> in the prompt, and the answer never closes it"),
        (R1_DISTILL, {}, "<think>\n</think>5", "begins with an empty block of thoughts"),
        (QWEN3, {}, "<think>\n\n</think>\n\n5", "begins with an empty block of thoughts"),
        (QWEN3, {"enable_thinking": False}, "<think>2+3</think>5", "the prompt ends with a closed block of thoughts"),
        (QWEN3, {}, "2+3\n</think>\n\n5", "closes thoughts that neither it nor the prompt opens"),
        (SMOLLM2, {}, "5<|end|>", "the answer holds the token that ends it"),
    ],
)
def test_an_answer_that_contradicts_its_prompt_is_refused(template, kwargs, answer, problem) -> None:
    with pytest.raises(ValueError, match=r"^row r: ") as refused:
        encoder(template, **kwargs).trajectory(row(answer))
    assert problem in str(refused.value)


@pytest.mark.parametrize("answer", ["<div></div> is empty", "<p></p>", "see <thinking></thinking>"])
def test_an_empty_element_of_html_is_an_answer(answer: str) -> None:
    assert encoder(SMOLLM2).trajectory(row(answer)).turns[-1].completion.text == answer


def test_a_conversation_that_the_chat_template_refuses_is_named_by_its_row() -> None:
    strict = (
        "{% if messages[0]['role'] == 'user' and messages[0]['content'] != '?' %}{{ raise_exception('no') }}{% endif %}"
    )
    with pytest.raises(ValueError, match=r"^row r: the chat template fails on a conversation of user: no\."):
        encoder(strict + SMOLLM2).trajectory(row("5"))


@pytest.mark.parametrize(("template", "kwargs"), [(SMOLLM2, {}), (QWEN3_APART, {"enable_thinking": False})])
def test_thoughts_without_a_place_in_the_prompt_are_refused(template, kwargs) -> None:
    with pytest.raises(ValueError, match="the chat template has no place for reasoning_content behind this prompt"):
        encoder(template, **kwargs).trajectory(row("5", reasoning="2+3"))


def test_the_end_token_is_the_one_that_the_template_writes(tmp_path: Path) -> None:
    tokenizer = byte_tokenizer()
    (tmp_path / "generation_config.json").write_text('{"eos_token_id": [257, 260]}')
    stops = end_token_ids(tmp_path, tokenizer)
    assert stops == {257, 260, tokenizer.eos_token_id}
    template = SMOLLM2.replace("{{ message['content'] }}<|end|>", "{{ message['content'] }}<|user|>")
    user_id = tokenizer.convert_tokens_to_ids("<|user|>")
    chat_template = ChatTemplate(chat_template=template, chat_template_kwargs=None, raw=False)
    assert RowEncoder(tokenizer, chat_template, "last", stops | {user_id}).end_id == user_id
    assert RowEncoder(tokenizer, chat_template, "last", {tokenizer.eos_token_id}).end_id == tokenizer.eos_token_id


def test_an_answer_that_holds_another_end_token_is_refused() -> None:
    tokenizer = byte_tokenizer()
    stop_ids = {tokenizer.eos_token_id, tokenizer.convert_tokens_to_ids("<|user|>")}
    chat_template = ChatTemplate(chat_template=SMOLLM2, chat_template_kwargs=None, raw=False)
    with pytest.raises(ValueError, match="the answer holds the token that ends it"):
        RowEncoder(tokenizer, chat_template, "last", stop_ids).trajectory(row("5<|user|>"))


def test_a_digest_tells_tokenizers_with_other_ids_apart() -> None:
    tokenizer = byte_tokenizer()
    digest = tokenizer_digest(tokenizer)
    assert tokenizer_digest(byte_tokenizer()) == digest
    tokenizer.add_tokens(["<new>"])
    assert tokenizer_digest(tokenizer) != digest


def sequences(trajectory: Trajectory):
    prompt = Prompt(id="p", messages=[], token_ids=trajectory.turns[0].observed.tolist(), reference="", task="")
    group = RolloutGroup(prompt=prompt, trajectories=[trajectory])
    record = to_record(ScoredGroup(group=group, rewards=[1.0], verdicts={}), body=None, worker="")
    assert isinstance(trajectory.completion, Completion)
    return record.trajectories[0].sequences
