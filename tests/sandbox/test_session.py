"""A session answers one message after the other, and ends at the first broken rule or bound, at each level."""

import time

import pytest

from rlframe.sandbox import Limits, Outcome, Program, Sandbox, SessionEnded

LIMITS = Limits(case_s=1.0, program_s=4.0, memory_mib=256, output_bytes=1000)
SQUARES = "while True: reply(str(int(receive()) ** 2))"


def end(sandbox: Sandbox, source: str, *messages: str) -> Outcome:
    """The outcome that ends a session: all messages but the last get a reply."""
    with sandbox.session(source, max_asks=100) as session:
        for message in messages[:-1]:
            session.ask(message)
        with pytest.raises(SessionEnded) as ended:
            session.ask(messages[-1])
        with pytest.raises(SessionEnded):  # an ended session stays ended
            session.ask(messages[-1])
    [outcome] = sandbox.run(Program(source="print(1)", function=None, inputs=[""]))
    assert outcome.output == b"1\n"
    return ended.value.outcome


def test_a_session_keeps_its_state_between_messages(sandbox: Sandbox) -> None:
    source = "total = 0\nwhile True:\n    total += int(receive())\n    reply(str(total))"
    with sandbox.session(source, max_asks=100) as session:
        assert [session.ask(text) for text in ("1", "20", "300")] == ["1", "21", "321"]


def test_long_messages_and_replies_arrive_whole(sandbox: Sandbox) -> None:
    with sandbox.session("while True: text = receive(); reply(str(len(text)) + text[-990:])", 10) as session:
        assert session.ask("é" * 300_000 + "x" * 990) == "300990" + "x" * 990


ENDS = {
    "a reply before its message": ("import os; os.write(3, b'9\\n')\n" + SQUARES, ["3"], "raised", "no message"),
    "half a reply before its message": ("import os; os.write(3, b'9')\n" + SQUARES, ["3"], "raised", "no message"),
    "two replies": (
        "import os\nreply(receive()); os.write(3, b'9\\n')\n" + SQUARES,
        ["3", "4"],
        "raised",
        "no message",
    ),
    "the token of an earlier message": (
        "import os\nreceive(); token = receive.__self__._token; reply('1')\nreceive(); os.write(3, token + b' 9\\n')",
        ["3", "4"],
        "raised",
        "no message",
    ),
    "a reply to half a message": (
        "import os\ntoken = os.read(4, 20).split()[0]; os.write(3, token + b' 9\\n')\nos.read(5, 1)",
        ["x" * 200_000],
        "raised",
        "no message",
    ),
    "a partial line": ("import os, time\nreceive(); os.write(3, b'9'); time.sleep(60)", ["3"], "timeout", ""),
    "no reply": ("while True: receive()", ["3"], "timeout", ""),
    "an end without a reply": ("reply(receive())", ["3", "4"], "raised", "without a reply"),
    "an exception": (SQUARES, ["3", "x"], "raised", "ValueError: invalid literal"),
    "a syntax error": ("while True print(1)", ["3"], "raised", "SyntaxError"),
    "a crash": ("import ctypes\nreply(receive()); ctypes.string_at(0)", ["3", "4"], "died", "SIGSEGV"),
    "a long reply": ("receive(); reply('x' * 1001)", ["3"], "output", "1000 bytes"),
    "an endless reply": ("import os\nwhile True: os.write(3, b'x' * 1000)", ["3"], "output", "1000 bytes"),
    "endless prints": ("while True: print('x' * 1000)", ["3"], "timeout", "xxx"),
    "a closed channel": (
        "import os\nreply(receive()); os.closerange(0, 9)\n" + SQUARES,
        ["3", "4"],
        "raised",
        "status",
    ),
    "closed channels and a loop": ("import os\nos.closerange(0, 9)\nwhile True: pass", ["x" * 200_000], "timeout", ""),
    "too much memory": ("reply(receive())\nreceive(); x = bytearray(10**9)", ["3", "4"], "raised", "MemoryError"),
}


@pytest.mark.parametrize("name", ENDS)
def test_a_session_that_breaks_a_rule_is_over_and_says_why(sandbox: Sandbox, name: str) -> None:
    source, messages, status, detail = ENDS[name]
    start = time.monotonic()
    outcome = end(sandbox, source, *messages)
    assert outcome.status == status and detail in outcome.detail, outcome
    assert time.monotonic() - start < 30 and len(outcome.detail) < 2100  # on an idle machine: at most 3
