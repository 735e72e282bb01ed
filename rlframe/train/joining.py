"""The wait for Ray at a run's start, and the imports that the driver makes meanwhile."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Thread
from typing import TYPE_CHECKING

from rlframe.actors.collector import collector_paused

if TYPE_CHECKING:
    from rlframe.config.train import ClusterConfig


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
