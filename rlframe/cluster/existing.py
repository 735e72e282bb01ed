"""Joins a running Ray cluster. A failure to join is an error with the key and the remedy, within a minute."""

from __future__ import annotations

import os
import socket
from typing import Any

import ray
from ray._private.authentication.authentication_token_setup import ensure_token_if_auth_enabled
from ray._private.services import canonicalize_bootstrap_address_or_die
from ray._raylet import GcsClient  # pyright: ignore[reportAttributeAccessIssue]
from ray.exceptions import AuthenticationError, RpcError

from rlframe.cluster import nodes
from rlframe.cluster.machine import is_this_machine
from rlframe.cluster.nodes import Node
from rlframe.errors import RunFailed

ANSWER_S = 10.0  # for the head to accept a connection
TOKEN = (
    "set RAY_AUTH_MODE=token, and RAY_AUTH_TOKEN_PATH to a file of mode 0600 with the token that the cluster was "
    "started with"
)
HEAD = "give host:port of the head, as `ray start --head` prints it, or auto on a machine of the cluster"


def join(address: str, *, allow_open: bool, **settings: Any) -> None:
    """Connects this process to the cluster at `address`, host:port or "auto"; `settings` are those of `ray.init`.

    Ray alone would try an address without an answer for 14 minutes, and a wrong token for 20 s. Raises RunFailed, also
    for a cluster of other machines that asks for no token, unless `allow_open`.
    """
    try:
        head: str = canonicalize_bootstrap_address_or_die(address)
    except (ConnectionError, ValueError, OSError) as error:
        raise RunFailed(f"cluster.address={address}: {_first_line(error)}; {HEAD}") from None
    key = f"cluster.address={address}" + (f" (the head at {head})" if head != address else "")
    _reach(head, key)
    try:
        ensure_token_if_auth_enabled(create_token_if_missing=False)
        GcsClient(address=head)
    except AuthenticationError as error:
        raise RunFailed(f"{key}: the cluster refuses this process ({_first_line(error)}); {TOKEN}") from None
    except RpcError as error:
        raise RunFailed(f"{key}: the process at this address is no head of a Ray cluster ({error}); {HEAD}") from None
    try:
        ray.init(head, **settings)
    except (ConnectionError, RuntimeError, ValueError) as error:
        raise RunFailed(
            f"{key}: this process cannot join the cluster: {_first_line(error)}. Start the run on a machine of the "
            "cluster, in the environment of its nodes, or submit it: rlframe submit"
        ) from None
    if not allow_open and not asks_for_a_token() and (others := _other_machines()):
        ray.shutdown()
        raise RunFailed(
            f"{key}: the cluster asks for no token, so everybody who reaches its ports can run code on all of its "
            f"nodes, as on {others[0]}; start it with RAY_AUTH_MODE=token and a token, or set cluster.allow_open=true"
        )


def asks_for_a_token() -> bool:
    """True if this process has sent a token. An open cluster lets a process in without one."""
    return os.environ.get("RAY_AUTH_MODE") == "token"


def _other_machines() -> list[str]:
    """Addresses of the cluster's nodes that are no addresses of this machine."""
    addresses = [node["NodeManagerAddress"] for node in ray.nodes() if node["Alive"]]
    return [address for address in addresses if not is_this_machine(address)]


def nodes_at(address: str, *, allow_open: bool) -> list[Node]:
    """The living nodes of the cluster at `address`, which this process joins and leaves. Raises RunFailed."""
    join(address, allow_open=allow_open, log_to_driver=False, logging_level="ERROR")
    try:
        return nodes.living()
    finally:
        ray.shutdown()


def _reach(head: str, key: str) -> None:
    host, _, port = head.rpartition(":")
    try:
        socket.create_connection((host.strip("[]"), int(port)), timeout=ANSWER_S).close()
    except OSError as error:
        raise RunFailed(f"{key}: nothing answers at this address within {ANSWER_S:g} s ({error}); {HEAD}") from None


def _first_line(error: Exception) -> str:
    """The first sentence of Ray's text, which may go on with advice for other programs."""
    return str(error).strip().splitlines()[0].split(". ")[0].rstrip(".")
