"""The program's side of an exchange with tests in another sandbox (see `exchange`)."""

from rlframe.sandbox.exchange import Peer
from rlframe.sandbox.values import PROGRAM

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BUILTINS = ("getattr", "setattr", "len", "iter", "next", "str", "repr", "bool", "isinstance")
BUILTINS += ("list", "dict", "set", "tuple", "frozenset")
OPERATORS = ("getitem", "setitem", "delitem")


def serve_program(receive: "Callable[[], str]", reply: "Callable[[str], object]", source: str) -> None:
    """Runs the program as the module `solution`, then serves the calls of the tests."""
    import builtins
    import operator

    from rlframe.sandbox.runner import execute

    functions: dict[str, Any] = {name: getattr(builtins, name) for name in BUILTINS}
    functions |= {name: getattr(operator, name) for name in OPERATORS}
    functions["enter"] = lambda manager: manager.__enter__()
    functions["exit"] = lambda manager, *error: manager.__exit__(*error)
    functions["names"] = lambda names: {name: namespace[name] for name in names if name in namespace}
    peer = Peer(receive, reply, functions)
    namespace = execute(source, PROGRAM)
    peer.serve_forever()
