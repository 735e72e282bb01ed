"""The untrusted end of `Cells`: executes cells one after the other in one namespace, as a notebook does.

This file's text is the source of a session. It runs inside the sandbox, with the standard library only. A cell may
change any object of it: the worker believes nothing that it replies.
"""

import __future__

import _thread
import ast
import builtins
import contextlib
import functools
import io
import json
import linecache
import posix
import sys
import threading
import traceback
import types

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from _typeshed import ReadableBuffer

ALL_CELLS = "cells"  # a file of all cells: `inspect` looks for a class in the file of the class's module
STDOUT = 1
FUTURE_FLAGS = functools.reduce(
    int.__or__, (getattr(__future__, name).compiler_flag for name in __future__.all_feature_names)
)


def serve(receive: "Callable[[], str]", reply: "Callable[[str], None]", max_bytes: int) -> None:
    """Answers a cell's source by the cell's result. Both are JSON; a result has at most `max_bytes`, in UTF-8."""
    notebook = Notebook(max_bytes)
    while True:
        reply(notebook.run(json.loads(receive())))


class Notebook:
    """The namespace of the cells, which is the module `__main__`, and what they print."""

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.sources: list[str] = []
        self.future_flags = 0  # `from __future__ import …` holds for all later cells
        self.main = types.ModuleType("__main__")
        self.main.__dict__["__builtins__"] = builtins
        if sys.version_info < (3, 13):  # later versions know a class's line, but not the cell of the line
            self.main.__file__ = ALL_CELLS
        self.restore_builtins = functools.partial(builtins.__dict__.update, dict(vars(builtins)))
        self.prints = Prints(max_bytes)

    def run(self, source: str) -> str:
        """Executes a cell. Returns its result as JSON."""
        self.sources.append(source)
        file = f"<cell {len(self.sources)}>"
        linecache.cache[file] = (len(source), None, source.splitlines(True), file)
        linecache.cache[ALL_CELLS] = (self._all_sources,)  # called for the first line that somebody asks for
        sys.modules["__main__"] = self.main
        stream = io.TextIOWrapper(self.prints, "utf-8", "backslashreplace", write_through=True)
        sys.stdout = sys.stderr = sys.__stdout__ = sys.__stderr__ = stream
        sys.stdin = sys.__stdin__ = NoInput()
        value = error = None
        self.prints.begin_cell()
        try:
            try:
                value = self._execute(source, file)
            finally:
                self.restore_builtins()  # a call that needs no builtin: the cell may have deleted them all
        except SystemExit as end:
            error = f"SystemExit: {end.code}\n" if end.code else None
        except BaseException as exception:
            error = "".join(traceback.format_exception(type(exception), exception, frames_of_cells(exception)))
        printed, background = self.prints.end_cell()
        texts = {"printed": printed, "background": background, "value": self._text(value), "error": self._text(error)}
        return self._fitted(texts)

    def _execute(self, source: str, file: str) -> "str | None":
        """Returns the last expression's representation; None for a cell without one, or where its value is None."""
        tree = compile(source, file, "exec", ast.PyCF_ONLY_AST | self.future_flags, dont_inherit=True)
        last = tree.body.pop() if tree.body and isinstance(tree.body[-1], ast.Expr) else None
        code = compile(tree, file, "exec", self.future_flags, dont_inherit=True)
        self.future_flags |= code.co_flags & FUTURE_FLAGS
        exec(code, self.main.__dict__)
        if last is None:
            return None
        expression = compile(ast.Expression(last.value), file, "eval", self.future_flags, dont_inherit=True)
        value = eval(expression, self.main.__dict__)
        return None if value is None else repr(value)

    def _text(self, text: "str | None") -> "Text | None":
        if text is None:
            return None
        bounded = Text(self.max_bytes)
        bounded.add(text.encode(errors="backslashreplace"))
        return bounded

    def _fitted(self, texts: "dict[str, Text | None]") -> str:
        """The texts as JSON of at most `max_bytes`. JSON makes six bytes of some characters."""
        max_bytes = self.max_bytes
        while True:
            cut = {name: None if text is None else text.cut(max_bytes) for name, text in texts.items()}
            result = json.dumps(cut, ensure_ascii=False)
            if len(result.encode()) <= self.max_bytes:
                return result
            max_bytes = max_bytes * 3 // 4

    def _all_sources(self) -> str:
        return "\n".join(reversed(self.sources))  # the newest definition of a class is found first


class Text:
    """A text's beginning and its end, in UTF-8.

    >>> text = Text(max_bytes=8)
    >>> text.add(b"0123456789")
    >>> text.cut(max_bytes=4)
    '01\\n[... 6 bytes cut ...]\\n89'
    """

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes, self.total_bytes = max_bytes, 0
        self.head, self.tail = bytearray(), bytearray()

    def add(self, text: bytes) -> None:
        self.total_bytes += len(text)
        head = text[: self.max_bytes - len(self.head)]
        self.head += head
        self.tail += text[max(len(head), len(text) - self.max_bytes) :]
        if len(self.tail) > 2 * self.max_bytes:
            del self.tail[: -self.max_bytes]

    def cut(self, max_bytes: int) -> str:
        """The text; of a text with more than `max_bytes`, which is no more than the text's own bound, both ends."""
        if self.total_bytes <= max_bytes:
            return self.head.decode(errors="replace")
        half = max_bytes // 2
        end = (self.head + self.tail)[-half:] if half else b""
        mark = f"\n[... {self.total_bytes - 2 * half} bytes cut ...]\n"
        return self.head[:half].decode(errors="replace") + mark + end.decode(errors="replace")


class Prints(io.RawIOBase):
    """The file behind stdout and stderr, which never closes. It keeps apart what threads of earlier cells print. A copy
    goes to the worker at once, which shows its end where the session ends before the cell does."""

    name = "<stdout>"

    def __init__(self, max_bytes: int) -> None:
        self.max_bytes = max_bytes
        self.earlier_threads: set[int | None] = set()
        self.cell_is_running = False
        self.printed, self.background = Text(max_bytes), Text(max_bytes)

    def begin_cell(self) -> None:
        self.earlier_threads = {thread.native_id for thread in threading.enumerate()} - {_thread.get_native_id()}
        self.cell_is_running = True

    def end_cell(self) -> "tuple[Text, Text]":
        """The text of the cell, and the text of earlier cells' threads since the last cell's end."""
        self.cell_is_running = False
        texts = self.printed, self.background
        self.printed, self.background = Text(self.max_bytes), Text(self.max_bytes)
        return texts

    def writable(self) -> bool:
        return True

    def write(self, text: "ReadableBuffer", /) -> int:
        content = bytes(text)
        is_of_cell = self.cell_is_running and _thread.get_native_id() not in self.earlier_threads
        (self.printed if is_of_cell else self.background).add(content)
        with contextlib.suppress(OSError):  # the cell closed it
            posix.write(STDOUT, content)
        return len(content)

    def close(self) -> None:
        pass


class NoInput(io.TextIOBase):
    """The stdin of a cell."""

    def readline(self, size: "int | None" = -1, /) -> str:  # pyright: ignore[reportIncompatibleMethodOverride]
        raise EOFError("a cell has no input: write the value into the cell")

    read = readline


def frames_of_cells(error: BaseException) -> "types.TracebackType | None":
    """The error's traceback without the frames of this file."""
    frames, trace = [], error.__traceback__
    while trace:
        if trace.tb_frame.f_globals is not globals():
            frames.append(trace)
        trace = trace.tb_next
    for trace, successor in zip(frames, [*frames[1:], None], strict=False):
        trace.tb_next = successor
    return frames[0] if frames else None
