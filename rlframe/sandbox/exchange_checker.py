"""A session that judges the outputs of a program by a checker of the data set. The program runs in another sandbox."""

from rlframe.sandbox.values import decode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import NoReturn

FILENAME = "<checker>"


def run_checker(receive: "Callable[[], str]", reply: "Callable[[str], object]", source: str) -> "NoReturn":
    """Answers each message, `[input, output, expected]`, by `[true or false, text]`."""
    import json

    namespace: dict = {"__name__": "checker"}
    exec(compile(source, FILENAME, "exec"), namespace)
    check = namespace["check"]
    while True:
        case = decode(receive())
        try:
            result = check(*case)
            answer = [result is True or result == 1, f"{result!r:.200}"]
        except BaseException as error:
            answer = [False, f"{type(error).__name__}: {error}"[:200]]
        reply(json.dumps(answer))
