"""Event loops without sockets: asyncio wakes its loops through a socket pair, and a sandbox has none.

A finder waits for the import of `asyncio.selector_events`, so a program without asyncio pays nothing. No stand-in
replaces `socket.socketpair` itself.
"""

import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from types import ModuleType
    from typing import Any

MODULE = "asyncio.selector_events"


class Finder:
    """An entry of `sys.meta_path` for the module that makes socket pairs."""

    def find_spec(self, name: str, path: "Any" = None, target: "ModuleType | None" = None) -> "Any":
        if name != MODULE:
            return None
        from importlib.machinery import PathFinder

        spec = PathFinder.find_spec(name, path)
        if spec and (loader := spec.loader):
            execute = loader.exec_module

            def exec_module(module: "ModuleType") -> None:
                execute(module)
                module.BaseSelectorEventLoop._make_self_pipe = make_alarm  # pyright: ignore[reportAttributeAccessIssue]

            loader.exec_module = exec_module
        return spec


def install() -> None:
    sys.meta_path.insert(0, Finder())


def make_alarm(loop: "Any") -> None:
    """Gives a new event loop an alarm that other threads sound, in place of a socket pair that they write to."""
    import threading

    alarm, selector = threading.Event(), loop._selector
    poll = selector.select

    def select(timeout: "float | None" = None) -> "list[Any]":
        if timeout is None or timeout > 0:
            alarm.wait(timeout)
        alarm.clear()  # what woke the loop is in its queue by now
        return poll(0) if selector.get_map() else []

    selector.select, loop._write_to_self, loop._close_self_pipe = select, alarm.set, lambda: None
