"""The tests' side of an exchange with a program in another sandbox (see `exchange`)."""

from rlframe.sandbox.exchange import TESTS, Peer, Remote, Unsupported
from rlframe.sandbox.values import PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from types import ModuleType
    from typing import Any

FILENAME = "<tests>"
FUNCTIONS = ("getattr", "setattr", "bool", "str", "repr")  # that a program may call on objects of the tests


def run_tests(
    receive: "Callable[[], str]",
    reply: "Callable[[str], object]",
    setup: str,
    cases: "list[str]",
    names: "list[str]",
    modules: "list[str]",
) -> None:
    """Runs the setup once, and the case of each message, its index. The tests find `names` of the program.

    The answer to an index starts with `=`: passed or not, whether the program had a part in it, and the error. Any
    other line is for the program.
    """
    import importlib
    import json

    peer = Peer(receive, reply, {name: _guarded(name) for name in FUNCTIONS})
    module, solution = _new_module(TESTS), _new_module(PROGRAM)
    are_remote: bool | None = None  # the program defines every name, as a function or class; None: before the setup
    while True:
        case = cases[int(receive())]
        try:
            if are_remote is None:
                answer = peer.call("names", names)
                # Only these names: the program must not replace `abs` in the tests.
                found = {name: answer[name] for name in names if name in answer}
                are_remote = len(found) == len(names) and all(isinstance(item, Remote) for item in found.values())
                solution.__dict__.update(found)
                module.__dict__.update(found)
                module.__dict__.update({name: importlib.import_module(name) for name in modules})
                peer.calls = 0
                _execute(setup, module)
            _execute(case, module)
            answer = [True, True, ""]
        except Unsupported as error:
            answer = [False, False, str(error)]
        except BaseException as error:
            answer = [False, bool(peer.calls) or not are_remote, _description(error)]
        reply("=" + json.dumps(answer))


def _guarded(name: str) -> "Callable[..., Any]":
    """A builtin function for objects of classes that the tests define. Functions lead to the tests' own variables."""
    import builtins

    def guarded(target: "Any", *args: "Any") -> "Any":
        if type(target).__module__ != TESTS or (args and str(args[0]).startswith("_")):
            raise AttributeError(f"a program cannot call {name} on this object of the tests")
        return getattr(builtins, name)(target, *args)

    return guarded


def _execute(source: str, module: "ModuleType") -> None:
    """Runs a part of the tests, and what it defines: functions `test…` without parameters, and classes of unittest."""
    import sys

    before = dict(module.__dict__)
    exec(compile(source, FILENAME, "exec"), module.__dict__)
    unittest = sys.modules.get("unittest")
    for name, item in list(module.__dict__.items()):
        code = getattr(item, "__code__", None)
        if before.get(name) is item:
            continue
        if name.startswith("test") and code and not code.co_argcount:
            item()
        elif unittest and isinstance(item, type) and issubclass(item, unittest.TestCase):
            unittest.defaultTestLoader.loadTestsFromTestCase(item).debug()


def _description(error: BaseException) -> str:
    import traceback

    lines = [frame.lineno for frame in traceback.extract_tb(error.__traceback__) if frame.filename == FILENAME]
    place = f", line {lines[-1]} of the test" if lines else ""
    return f"{type(error).__name__}: {error}".removesuffix(": ") + place


def _new_module(name: str) -> "ModuleType":
    import sys

    module = sys.modules[name] = type(sys)(name)
    return module
