"""The program's side of an exchange with tests in another sandbox (see `exchange`)."""

from rlframe.sandbox.exchange import ARITHMETIC, ORDER, UNARY, Peer
from rlframe.sandbox.values import PROGRAM, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

BUILTINS = ("getattr", "setattr", "len", "iter", "next", "str", "repr", "bool", "isinstance", "hash")
BUILTINS += ("list", "dict", "set", "tuple", "frozenset")
OPERATORS = ("getitem", "setitem", "delitem")


def serve_program(receive: "Callable[[], str]", reply: "Callable[[str], object]", source: str) -> None:
    """Runs the program as the module `solution`, then serves the calls of the tests."""
    import builtins
    import operator

    from rlframe.sandbox.runner import execute

    functions: dict[str, Any] = {name: getattr(builtins, name) for name in BUILTINS}
    functions |= {name: getattr(operator, name) for name in OPERATORS}
    functions |= {f"operator {name}": getattr(operator, f"__{name}__") for name in (*ARITHMETIC, *ORDER, *UNARY)}
    functions["equals"] = equals
    functions["enter"] = lambda manager: manager.__enter__()
    functions["exit"] = lambda manager, *error: manager.__exit__(*error)
    functions["names"] = lambda names: {name: namespace[name] for name in names if name in namespace}
    peer = Peer(receive, reply, functions)
    namespace = execute(source, PROGRAM)
    peer.serve_forever()


def equals(value: "Any", other: "Any") -> bool:
    """True for two objects of a class that are equal by its `__eq__`. An `__eq__` that also equals an object without
    attributes reads none; the attributes must then be equal."""
    kind: Any = type(value)
    if kind is not type(other) or (value == other) is not True:
        return False
    try:
        reads_attributes = (value == kind.__new__(kind)) is not True
    except Exception:
        reads_attributes = True
    try:
        return reads_attributes or encode(vars(value)) == encode(vars(other))
    except Exception:
        return False
