"""The door of a running cluster's jobs API: its address, its token, and what it answers before anything is sent."""

from __future__ import annotations

import os
import platform
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import ray
import requests
from ray._private.authentication.http_token_authentication import get_auth_headers_if_auth_enabled
from ray._raylet import AuthenticationTokenLoader, Config  # pyright: ignore[reportAttributeAccessIssue]

from rlframe.cluster.machine import is_this_machine
from rlframe.errors import ConfigError

KEY = "cluster.address"
ANSWER_S = 10.0
METADATA = "/api/v0/cluster_metadata"  # versions; behind the token like everything else
NODES = "/api/v0/nodes"
DEFAULT_TOKEN = Path("~/.ray/auth_token")  # where Ray looks last
HOW_TO_REACH = "give the address of its dashboard, such as http://head:8265 (kubectl port-forward, ssh -L)"
HOW_TO_SIGN_IN = "set RAY_AUTH_TOKEN_PATH to a file of mode 0600 with the token that the cluster was started with"


@dataclass(frozen=True, slots=True, kw_only=True)
class Dashboard:
    """A cluster whose jobs API this process may use."""

    address: str  # URL without a slash at its end
    headers: dict[str, str]  # with the token; empty for a cluster that asks for none
    warnings: list[str]


def open_dashboard(address: str, *, allow_open: bool) -> Dashboard:
    """Asks the cluster at `address` for its versions. Nothing of the user's is sent.

    Raises ConfigError where nothing or something else answers, where the token is missing or refused, where a cluster
    of another machine asks for no token, and where Ray or Python have another version than here.
    """
    address = _url(address)
    answer = _ask(address, {})
    headers, warnings = {}, []
    if answer.status_code == 200:
        if not allow_open and not _is_of_this_machine(address):
            raise ConfigError(
                f"{KEY}: {address} asks for no token, so everybody who reaches it can run code on all of its nodes; "
                "start the cluster with RAY_AUTH_MODE=token and a token, or set cluster.allow_open=true"
            )
    elif answer.status_code == 401:
        headers = _token_headers(address)
        warnings = _token_file_warnings()
        answer = _ask(address, headers)
        if answer.status_code in (401, 403):
            raise ConfigError(f"{KEY}: {address} refuses the token of this machine; {HOW_TO_SIGN_IN}")
    _check_versions(address, answer)
    return Dashboard(address=address, headers=headers, warnings=warnings)


def _is_of_this_machine(address: str) -> bool:
    """True if the address and the cluster's nodes are of this machine: a tunnel's near end alone is not enough."""
    hosts = [urlsplit(address).hostname or ""]
    try:
        nodes = requests.get(address + NODES, timeout=ANSWER_S).json()["data"]["result"]["result"]
        hosts += [node["node_ip"] for node in nodes]
    except (requests.RequestException, ValueError, KeyError, TypeError):
        pass  # no cluster, which the check of versions says
    return all(map(is_this_machine, hosts))


def _url(address: str) -> str:
    parts = urlsplit(address)
    try:
        usable = parts.scheme in ("http", "https") and parts.hostname and (parts.port or True)
    except ValueError:  # a port that is no number
        usable = False
    if not usable:
        raise ConfigError(f"{KEY}: {address} is no address of Ray's jobs API; {HOW_TO_REACH}")
    return address.rstrip("/")


def _ask(address: str, headers: dict[str, str]) -> requests.Response:
    try:
        return requests.get(address + METADATA, headers=headers, timeout=ANSWER_S, allow_redirects=False)
    except requests.RequestException as error:
        raise ConfigError(
            f"{KEY}: nothing answers at {address} within {ANSWER_S:g} s ({_reason(error)}); {HOW_TO_REACH}"
        ) from None


def _reason(error: BaseException) -> str:
    """The innermost reason of an error of requests, such as `Connection refused`."""
    while (inner := error.__cause__ or error.__context__) is not None:
        error = inner
    return getattr(error, "strerror", None) or type(error).__name__


def _token_headers(address: str) -> dict[str, str]:
    os.environ["RAY_AUTH_MODE"] = "token"  # as the cluster wants
    Config.initialize("")
    AuthenticationTokenLoader.instance().reset_cache()
    try:
        headers = get_auth_headers_if_auth_enabled({})
    except Exception as error:  # a file that is missing or empty
        raise ConfigError(
            f"{KEY}: {address} asks for a token ({str(error).splitlines()[0]}); {HOW_TO_SIGN_IN}"
        ) from None
    if not headers:
        raise ConfigError(f"{KEY}: {address} asks for a token, and this machine has none; {HOW_TO_SIGN_IN}")
    return headers


def _token_file_warnings() -> list[str]:
    """A line for a file of the token that other users of this machine may read, as Ray itself writes it."""
    if os.environ.get("RAY_AUTH_TOKEN"):
        return []
    file = Path(os.environ.get("RAY_AUTH_TOKEN_PATH", DEFAULT_TOKEN)).expanduser()
    if file.is_file() and file.stat().st_mode & 0o077:
        return [f"{file}: other users of this machine may read the cluster's token; chmod 600 {file}"]
    return []


def _check_versions(address: str, answer: requests.Response) -> None:
    try:
        there: dict[str, Any] = answer.json()["data"]
        ray_there, python_there = str(there["rayVersion"]), str(there["pythonVersion"])
    except (ValueError, KeyError, TypeError):
        raise ConfigError(
            f"{KEY}: {address} is no dashboard of a Ray cluster (it answers {answer.status_code}); {HOW_TO_REACH}"
        ) from None
    ray_here, python_here = ray.__version__, platform.python_version()
    if ray_there != ray_here or _minor(python_there) != _minor(python_here):
        raise ConfigError(
            f"{KEY}: {address} runs Ray {ray_there} with Python {python_there}, and this machine has Ray {ray_here} "
            f"with Python {python_here}; use the environment that the cluster's image was built from"
        )


def _minor(version: str) -> list[str]:
    return version.split(".")[:2]
