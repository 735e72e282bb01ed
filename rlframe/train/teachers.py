"""`check_teachers`: a teacher must read texts as the same tokens as the student."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from itertools import islice
from typing import TYPE_CHECKING, Any, cast

from rlframe.errors import ConfigError
from rlframe.model import base_model
from rlframe.train.prompts import open_tokenizer
from rlframe.types import Prompt

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlframe.prompts.stream import PromptStream
    from rlframe.rollout.teacher_config import TeacherConfig

TEXTS = 200  # that both tokenizers must read alike
PROMPTS = 60  # of these: prompts of the run
BASES = [
    "The quick brown fox jumps over the lazy dog.",
    "def add(a: int, b: int) -> int:\n    return a + b  # sum\n",
    "for (int i = 0; i < n; ++i) { x[i] <<= 2; }",
    "SELECT name, COUNT(*) FROM t WHERE a >= 3.14 GROUP BY 1;",
    '{"key": [1, 2.5e-3, null, true], "text": "a\\nb"}',
    "\\boxed{\\frac{-7}{12}} = \\sqrt{x^2 + 1} \\le 10^{-9}",
    "0 12 345 6789 1234567890 3.14159 1,000,000 0x1F",
    "I'm, you're, he'll, they've; DON'T!",
    "Füße, façade, naïve, œuvre, Ångström, İstanbul",
    "Быстрая лиса. Γρήγορη αλεπού. שועל מהיר. ثعلب سريع",
    "敏捷的棕色狐狸跳过懒狗。すばやい茶色の狐。빠른 갈색 여우",
    "तेज़ भूरी लोमड़ी สุนัขจิ้งจอกสีน้ำตาล",
    "👩‍👩‍👧 🇫🇷 🏳️‍🌈 ☕️ → ∑ ∞ ≠ ½ ①",
    "e\u0301 \ufb01 \u00a0\u2009\u200b\ufeff \u2028",
    "tabs\tand  double   spaces    four\t\tend ",
    "line\r\nbreak\n\n\n\n  indented\n\t\tdeeper\n",
    "https://example.org/a_b?c=d&e=%20#f user@example.com",
    "<think>Let me see. 2 + 3 = 5</think><answer>5</answer>",
    "aaaaaaaaaaaaaaaaaaaa AbCdEfGhIj !!!???...---___***",
    "Wait, <b>bold</b> & [link](x) | `code` ~ ^ @ $ %",
]


def check_teachers(
    teachers: Mapping[str, TeacherConfig], tokenizer: PreTrainedTokenizerBase, stream: PromptStream
) -> None:
    """Prepares each teacher's model. Raises ConfigError for one that reads a text otherwise than the student."""
    positions = (stream.at(position) for position in range(min(PROMPTS, len(stream))))
    prompts = [str(tokenizer.decode(prompt.token_ids)) for prompt in positions if isinstance(prompt, Prompt)]
    texts = list(islice(dict.fromkeys([*prompts, *variants()]), TEXTS))
    for name, teacher in teachers.items():
        folder = base_model.prepare(teacher.path)
        problem = difference(tokenizer, open_tokenizer(folder), texts)
        vocabulary, largest = base_model.vocabulary_size(teacher.path), max(tokenizer.get_vocab().values())
        if vocabulary <= largest:
            problem = f"it knows {vocabulary} ids, and the student's tokenizer has the id {largest}"
        if problem:
            raise ConfigError(
                f"teachers.{name}.path: {teacher.path} has another tokenizer than model.path: {problem}; let this "
                "teacher answer prompts instead (rlframe draw model.path=TEACHER), and train on its answers "
                "(rlframe tune), or take a teacher with the student's tokenizer"
            )


def difference(student: PreTrainedTokenizerBase, teacher: PreTrainedTokenizerBase, texts: list[str]) -> str:
    """The first difference of two tokenizers: an added token's id, or the ids of a text; empty where there is none."""
    ids: dict[str, int] = cast("Any", student).get_added_vocab()
    others: dict[str, int] = cast("Any", teacher).get_added_vocab()
    for token in sorted(ids.keys() | others.keys(), key=lambda token: (ids.get(token, -1), token)):
        if ids.get(token) != others.get(token):
            return f"the id of {token!r} is {ids.get(token)} for the student and {others.get(token)} for the teacher"
    for text in texts:
        own, other = (tokens.encode(text, add_special_tokens=False) for tokens in (student, teacher))
        if own != other:
            at = next(
                (place for place, pair in enumerate(zip(own, other, strict=False)) if pair[0] != pair[1]),
                min(len(own), len(other)),
            )
            first, second = (
                f"{ids[at : at + 1]} {tokens.convert_ids_to_tokens(ids[at : at + 1])}"
                for tokens, ids in ((student, own), (teacher, other))
            )
            return f"token {at} of {text[:60]!r} is {first} for the student and {second} for the teacher"
    return ""


def variants() -> Iterator[str]:
    """Texts of code, mathematics, many scripts, white space and marks."""
    for base in BASES:
        yield from (base, f" {base}", base.upper(), base.title(), base.swapcase(), base[::-1], base.replace(" ", ""))
        yield from (f"{base}\n\n", f"{base}\t{base}", f"«{base}»", f"(1){base}?", f"\t{base}")
