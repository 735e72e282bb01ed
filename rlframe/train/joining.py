"""The wait for Ray at a run's start, and the imports that the driver makes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING

from rlframe.actors.collector import collector_paused
from rlframe.cluster import start as cluster

if TYPE_CHECKING:
    from rlframe.cluster.placement import Role
    from rlframe.cluster.start import JoinedCluster
    from rlframe.config.keys import SharedKeys
    from rlframe.config.train import ClusterConfig
    from rlframe.record.console import Console
    from rlframe.train.signals import StopSignals


def join(
    stack: ExitStack, run: SharedKeys, roles: tuple[Role, ...], console: Console, signals: StopSignals
) -> JoinedCluster:
    """Joins or makes the cluster of a run's actors, which `stack` ends."""
    with console.phase(joining(run.cluster)), transformers_meanwhile():
        joined = stack.enter_context(cluster.join(run, roles))
        signals.listen()  # Ray has installed other handlers
    return joined


def joining(config: ClusterConfig) -> str:
    """The console's words for the wait."""
    return "starting a Ray cluster on this machine" if config.address is None else "joining the Ray cluster"


@contextmanager
def transformers_meanwhile() -> Iterator[None]:
    """Imports transformers in a thread, for the tokenizer and the self-test that follow.

    Ray's processes take two seconds to answer, and so does the import. Ray imports no module of transformers, so the
    two threads never wait for each other's modules.
    """
    thread = Thread(target=_import_transformers, name="import transformers")
    with collector_paused():
        thread.start()
        try:
            yield
        finally:
            thread.join()  # also after an error: an interpreter that ends during an import may crash


def _import_transformers() -> None:
    with suppress(Exception):  # the next import of the module raises the error again
        from transformers import AutoModelForCausalLM, AutoTokenizer  # noqa: F401
