"""The cluster of a verb that talks to a jobs API: its address, and the text of its refusals."""

from __future__ import annotations

import os
from collections.abc import Callable
from typing import TYPE_CHECKING

from rlframe.cli import exits
from rlframe.errors import ConfigError, RunFailed

if TYPE_CHECKING:
    from rlframe.cluster.jobs import Jobs

DEFAULT = "http://127.0.0.1:8265"
ADDRESS = "--address"


def take_option(arguments: list[str], option: str) -> tuple[str | None, list[str]]:
    """The value of `--option VALUE` or `--option=VALUE`, and the other arguments. Raises ConfigError."""
    value, others, rest = None, [], list(arguments)
    while rest:
        argument = rest.pop(0)
        name, equals, text = argument.partition("=")
        if name != option:
            others.append(argument)
        elif equals:
            value = text
        elif rest:
            value = rest.pop(0)
        else:
            raise ConfigError(f"{option}: has no value")
    return value, others


def take_flag(arguments: list[str], flag: str) -> tuple[bool, list[str]]:
    """True if the flag is there, and the other arguments."""
    return flag in arguments, [argument for argument in arguments if argument != flag]


def address(option: str | None, configured: str | None = None) -> str:
    """The address of `--address`, of the config, of Ray's environment variables, or of this machine's dashboard."""
    from rlframe.cluster.jobs import ADDRESS_VARIABLES

    named = [option, configured, *(os.environ.get(name) for name in ADDRESS_VARIABLES)]
    return next((text for text in named if text and (text in named[:1] or "://" in text)), DEFAULT)


def connect(url: str, *, allow_open: bool) -> Jobs:
    """A client of the cluster's jobs. Raises ConfigError."""
    from rlframe.cluster.dashboard import open_dashboard
    from rlframe.cluster.jobs import Jobs

    dashboard = open_dashboard(url, allow_open=allow_open)
    for warning in dashboard.warnings:
        exits.complain(f"! {warning}")
    return Jobs(dashboard)


def answered(usage: str, headline: str, arguments: list[str], act: Callable[[list[str]], int]) -> int:
    """Prints the usage where it is asked for; else the exit code of `act`, a refusal or failure of which is printed."""
    if {"-h", "--help"} & set(arguments):
        print(usage, end="")
        return 0
    try:
        return act(arguments)
    except ConfigError as error:
        return exits.refuse(headline, str(error))
    except RunFailed as failure:
        exits.complain(str(failure))
        return exits.FAILED
    except OSError as error:  # of requests, too
        exits.complain(f"the cluster does not answer any more: {error}")
        return exits.FAILED
