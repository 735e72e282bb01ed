"""Calls between a program and its tests, which run in two sandboxes. The worker carries the lines between them.

    tests                                          program
    assert add(1, 2) == 3   ── call add, (1, 2) ─▶
                            ◀── return 3 ─────────  add(1, 2)

Arguments and results are values (see `values`). Any other object of the program is a `Remote` in the tests: calls,
attributes, items, iteration, len and str reach the object. No object of the program can claim to be an expected value:

- `Remote` and value: never equal, and without order. Arithmetic, as in `2 * Vec(1, 2)`, must result in a `Remote`.
- `Remote` and `Remote`: the program's own operators decide, as both objects are the program's. A program gains nothing
  by a false `__eq__`: its constructor may return the same object for all arguments. Yet an `__eq__` that reads nothing
  of its objects decides nothing (see `equals` in `exchange_program`).

Functions and objects that the tests pass as arguments are `Remote` in the program: it can call these functions, and use
public attributes of these objects.

Both sides run this module in a session. A program can change its own copy; it then sends other lines, and a line can
only be a value, an object or an exception.
"""

from rlframe.sandbox.values import decode, encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Iterator
    from typing import Any, NoReturn

TESTS = "tests"  # the module of the tests, and of classes that they define
MAX_BASES = 32  # of an exception's class
MUTABLE = (list, dict, set)
ARITHMETIC = ("add", "sub", "mul", "truediv", "floordiv", "mod", "pow", "matmul", "and", "or", "xor")
ORDER = ("lt", "le", "gt", "ge")
UNARY = ("neg", "pos", "invert")
TYPES = frozenset(("int", "float", "complex", "str", "bytes", "bool", "list", "tuple", "dict", "set", "frozenset"))


class BadAnswer(Exception):
    """The far side sent a line that is no answer."""


class Unsupported(BaseException):
    """The tests need something that this exchange does not carry: no verdict on the program."""


class Peer:
    """A side of the exchange: sends calls, waits for answers, and serves the calls of the far side meanwhile."""

    def __init__(self, receive: "Callable[[], str]", reply: "Callable[[str], object]", functions: "dict[str, Any]"):
        """`functions`: by name, what the far side may call beside the functions that it was given."""
        self.receive, self.reply, self.functions = receive, reply, functions
        self.is_program = "names" in functions
        self.calls = 0
        self._objects: list[Any] = []  # that the far side has numbers of
        self._numbers: dict[int, int] = {}  # id of an object -> its number
        self._exceptions: dict[str, type[BaseException]] = {}
        self._tuples: dict[Any, Any] = {}  # classes of named tuples

    def call(self, function: "Any", *args: "Any", **kwargs: "Any") -> "Any":
        """The result of a call on the far side. Raises the exception that the call raised there."""
        self.calls += 1
        self.reply(self._encode(["call", function, args, kwargs]))
        while True:
            match self._decode(self.receive()):
                case ["return", result, changed]:
                    _update([*args, *kwargs.values()], changed)
                    return result
                case ["raise", names, args_of_error, text]:
                    raise self._exception(names, args_of_error, text)
                case ["call", wanted, args_of_call, kwargs_of_call]:
                    self.serve(wanted, args_of_call, kwargs_of_call)
                case _:
                    raise BadAnswer("the program broke off the exchange")

    def serve(self, function: "Any", args: "Any", kwargs: "Any") -> None:
        """Makes a call for the far side and sends its result, with the arguments that the call changed."""
        try:
            function = self._callable(function)
            passed = [*args, *kwargs.values()]
            before = [self._encode(item) if isinstance(item, MUTABLE) else None for item in passed]
            result = function(*args, **kwargs)
            changed = [
                item if text is not None and self._encode(item) != text else None
                for item, text in zip(passed, before, strict=True)
            ]
            answer = self._encode(["return", result, changed])
        except BaseException as error:
            names = [base.__name__ for base in type(error).__mro__][:MAX_BASES]
            try:
                answer = self._encode(["raise", names, error.args, str(error)])
            except Exception:
                answer = self._encode(["raise", names, (), type(error).__name__])
        self.reply(answer)

    def _callable(self, function: "Any") -> "Any":
        """The object to call. A program can call the functions that it was given, and no others of the tests."""
        if isinstance(function, str) and function in self.functions:
            return self.functions[function]
        if self.is_program or any(function is item for item in self._objects):
            return function
        raise AttributeError("a program can call functions of the tests, and use objects of their classes")

    def serve_forever(self) -> "NoReturn":
        while True:
            match self._decode(self.receive()):
                case ["call", function, args, kwargs]:
                    self.serve(function, args, kwargs)

    def _encode(self, message: "Any") -> str:
        return encode(message, self._describe)

    def _decode(self, line: str) -> "Any":
        try:
            return decode(line, self._resolve)
        except ValueError as error:
            raise BadAnswer(f"the program sent no value: {error}") from None

    def _describe(self, value: "Any") -> "dict[str, Any]":
        """An object that is no value, as the far side reads it."""
        import builtins

        if isinstance(value, Remote):
            return {"$yours": value._number}
        name = getattr(value, "__name__", None)
        if isinstance(name, str) and getattr(builtins, name, None) is value and (name in TYPES or not self.is_program):
            return {"$builtin": name}
        if isinstance(value, tuple) and (fields := getattr(value, "_fields", None)):
            return {"$named": [type(value).__name__, [*fields], self._encode([*value])]}
        if isinstance(value, type) and issubclass(value, BaseException):
            return {"$exception": [base.__name__ for base in value.__mro__][:MAX_BASES]}
        if not self.is_program and not callable(value) and type(value).__module__ != TESTS:
            raise Unsupported(f"the tests cannot pass an object of type {type(value).__name__} to the program")
        if id(value) not in self._numbers:
            self._numbers[id(value)] = len(self._objects)
            self._objects.append(value)
        base = next((base.__name__ for base in (list, dict, set, tuple, frozenset) if isinstance(value, base)), "")
        return {"$mine": [self._numbers[id(value)], base]}

    def _resolve(self, entries: "dict[str, Any]") -> "Any":
        """The object that the far side described. Raises ValueError, TypeError."""
        import builtins

        match entries:
            case {"$yours": int(number)} if 0 <= number < len(self._objects):
                return self._objects[number]
            case {"$mine": [int(number), str(base)]}:
                return Remote(self, number, base)
            case {"$builtin": str(name)} if self.is_program or name in TYPES:
                return getattr(builtins, name)
            case {"$exception": list(names)}:
                return self._exception_class(names)
            case {"$named": [str(name), list(fields), str(line)]}:
                from collections import namedtuple

                key = (name, *fields)
                if key not in self._tuples:
                    self._tuples[key] = namedtuple(name, fields)
                return self._tuples[key](*self._decode(line))
        raise ValueError(f"{next(iter(entries))} is no kind of object")

    def _exception(self, names: "Any", args: "Any", text: "Any") -> BaseException:
        """An exception of the far side: of the same builtin class, or of a class with the same name."""
        kind = self._exception_class(names if isinstance(names, list) else [])
        try:
            error = kind(*args)
        except Exception:  # a class with other arguments
            error = kind.__new__(kind)
            error.args = (text,)
        if kind.__name__ in self._exceptions:
            error.text = str(text)  # pyright: ignore[reportAttributeAccessIssue]
        return error

    def _exception_class(self, names: "list[Any]") -> "type[BaseException]":
        import builtins

        if not names or not isinstance(names[0], str):
            return Exception
        kind = self._exceptions.get(names[0]) or getattr(builtins, names[0], None)
        if isinstance(kind, type) and issubclass(kind, BaseException):
            return kind
        base = self._exception_class(names[1:])
        self._exceptions[names[0]] = type(names[0], (base,), {"__str__": lambda self: self.text, "text": ""})
        return self._exceptions[names[0]]


class Remote:
    """An object of the far side."""

    def __init__(self, peer: Peer, number: int, base: str) -> None:
        """`base`: the builtin container that the object extends, or an empty text."""
        self.__dict__.update(_peer=peer, _number=number, _base=base)

    def __call__(self, *args: "Any", **kwargs: "Any") -> "Any":
        return self._peer.call(self, *args, **kwargs)

    def __getattr__(self, name: str) -> "Any":
        if name.startswith("__") and name.endswith("__"):  # Python looks for methods that the object may lack
            raise AttributeError(name)
        return self._peer.call("getattr", self, name)

    def __setattr__(self, name: str, value: "Any") -> None:
        self._peer.call("setattr", self, name, value)

    def __len__(self) -> int:
        return self._peer.call("len", self)

    def __iter__(self) -> "Iterator[Any]":
        iterator = self._peer.call("iter", self)
        while True:
            try:
                item = next(iterator) if isinstance(iterator, Remote) else self._peer.call("next", iterator)
            except StopIteration:
                return
            yield item

    def __next__(self) -> "Any":
        return self._peer.call("next", self)

    def __getitem__(self, key: "Any") -> "Any":
        return self._peer.call("getitem", self, key)

    def __setitem__(self, key: "Any", value: "Any") -> None:
        self._peer.call("setitem", self, key, value)

    def __delitem__(self, key: "Any") -> None:
        self._peer.call("delitem", self, key)

    def __str__(self) -> str:
        return self._peer.call("str", self)

    def __repr__(self) -> str:
        return self._peer.call("repr", self)

    def __bool__(self) -> bool:
        return self._peer.call("bool", self) is True

    def __enter__(self) -> "Any":
        return self._peer.call("enter", self)

    def __exit__(self, *error: "Any") -> bool:
        return bool(self._peer.call("exit", self, *(error if error[0] is None else (Exception, None, None))))

    def __instancecheck__(self, instance: "Any") -> bool:
        return isinstance(instance, Remote) and self._peer.call("isinstance", instance, self) is True

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Remote):
            is_same = self._number == other._number
            return is_same or (not self._peer.is_program and self._peer.call("equals", self, other) is True)
        return bool(self._base) and self._peer.call(self._base, self) == other

    def __hash__(self) -> int:
        return self._number if self._peer.is_program else self._peer.call("hash", self)


def _operator(name: str, *, is_reflected: bool = False) -> "Callable[..., Any]":
    """The method of `Remote` for an operator. With a value, only another `Remote` can be its result."""

    def method(self: Remote, *others: "Any") -> "Any":
        if not self._peer.is_program:
            result = self._peer.call(f"operator {name}", *((*others, self) if is_reflected else (self, *others)))
            if isinstance(result, Remote) or (others and isinstance(others[0], Remote)):
                return result
        if others:
            return NotImplemented
        raise TypeError(f"the operator {name} does not make a value of an object of the program")

    return method


for name in (*ARITHMETIC, *ORDER, *UNARY):
    setattr(Remote, f"__{name}__", _operator(name))
for name in ARITHMETIC:
    setattr(Remote, f"__r{name}__", _operator(name, is_reflected=True))


def _update(arguments: "list[Any]", changed: "Any") -> None:
    """Changes the arguments of a call as the call did on the far side. None: the argument is unchanged."""
    if isinstance(changed, list) and len(changed) == len(arguments):
        for argument, content in zip(arguments, changed, strict=True):
            if content is not None and type(content) is type(argument):
                _assign(argument, content)


def _assign(target: "Any", content: "Any") -> None:
    """Gives a container the content of another. Inner lists stay the same objects where they can."""
    if isinstance(target, list):
        if len(target) == len(content):
            for index, (old, new) in enumerate(zip(target, content, strict=True)):
                if type(old) is type(new) and isinstance(old, MUTABLE):
                    _assign(old, new)
                else:
                    target[index] = new
        else:
            target[:] = content
    elif isinstance(target, dict | set):
        target.clear()
        target.update(content)
