"""`HeldOut`: questions that no row may have, compared by runs of words and by their numbers."""

from __future__ import annotations

import re
import unicodedata
from collections import Counter
from collections.abc import Iterable, Iterator
from hashlib import blake2b
from pathlib import Path
from typing import Any

from rlframe.record.files import stream_json_lines
from rlframe.select.items import files_of, question_of

# Thai, Lao, Burmese, Khmer, Japanese and Chinese, which put no spaces between words.
SPACELESS = "\u0e00-\u0eff\u1000-\u109f\u1780-\u17ff\u3040-\u30ff\u3400-\u9fff\uf900-\ufaff"
WORD = re.compile(rf"[{SPACELESS}]|[^\W{SPACELESS}]+|[-+*/=<>^%×÷]")  # of a script without spaces, one character
NUMBER = re.compile(r"\d+(?:[.,]\d+)*")
QUESTION_FIELDS = ("question", "prompt", "problem")
LEAST_COMMON = 4  # questions of a set, from which on runs of words in more than half of them are its template


class HeldOut:
    """Digests of held-out questions: 8 bytes and an object of Python for each run of `ngram` words.

    With ngram 3, "Add 28 to 37." is held out beside "Now add 28 to 37!": both have "add 28 to".
    """

    def __init__(
        self, sets: Iterable[Iterable[str]], ngram: int, *, values: bool, rendered: Iterable[str] = ()
    ) -> None:
        """`sets`: the questions of each held-out set. Runs of words that most questions of a set share do not count.

        `rendered`: questions in the words of a template, which are compared as a whole.
        """
        self._ngram = ngram
        self._values = values
        self._digests = {_digest("words", _words(question)) for question in rendered}
        for questions in sets:
            counts: Counter[bytes] = Counter()
            number = 0
            for question in dict.fromkeys(questions):  # a set of completions repeats its questions
                number += 1
                counts.update(self._keys(question))
            most = number / 2 if number >= LEAST_COMMON else number
            self._digests |= {key for key, count in counts.items() if count <= most}

    def holds(self, question: str) -> bool:
        """True if a held-out question has a run of words of `question`, or its numbers."""
        return bool(self._digests) and not self._digests.isdisjoint(self._keys(question))

    def _keys(self, question: str) -> set[bytes]:
        words = _words(question)
        runs = [words[start : start + self._ngram] for start in range(max(1, len(words) - self._ngram + 1))]
        keys = {_digest("words", run) for run in [*runs, words] if run}
        if self._values and len(numbers := sorted(NUMBER.findall(_folded(question)))) > 1:
            keys.add(_digest("numbers", numbers))
        return keys


def read_questions(path: str) -> Iterator[str]:
    """The question in each line of a file or folder. Raises ValueError for a line without one."""
    for file in files_of(Path(path).expanduser()):
        for number, record in stream_json_lines(file):
            yield _question(record, f"{file}, line {number}")


def _question(record: dict[str, Any], where: str) -> str:
    fields = [record[name] for name in ("messages", *QUESTION_FIELDS) if record.get(name)]
    match fields[0] if fields else None:
        case str(text):
            return text
        case [*messages] if all(map(_is_message, messages)):
            if question := question_of(messages):
                return question
    raise ValueError(f"{where}: no question; a held-out line has messages, {', '.join(QUESTION_FIELDS)}")


def _is_message(value: Any) -> bool:
    return isinstance(value, dict) and all(isinstance(value.get(key), str) for key in ("role", "content"))


def _folded(question: str) -> str:
    return unicodedata.normalize("NFKC", question).casefold()


def _words(question: str) -> list[str]:
    return WORD.findall(_folded(question))


def _digest(kind: str, words: list[str]) -> bytes:
    return blake2b("\0".join([kind, *words]).encode(errors="surrogatepass"), digest_size=8).digest()
