"""`DiskThread`: an episode worker's thread for files, so that its event loop never waits for the disk."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from typing import TypeVar

from rlframe.errors import RunFailed

T = TypeVar("T")


class DiskThread:
    """Runs actions on files one after the other. For one event loop."""

    def __init__(self, worker: str, name: str) -> None:
        """`worker`: for errors. `name`: of the thread."""
        self.worker = worker
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix=name)

    async def run(self, doing: str, action: Callable[[], T]) -> T:
        """The action's result. Raises RunFailed in place of OSError: the worker "cannot" `doing`."""
        try:
            return await asyncio.get_running_loop().run_in_executor(self._thread, action)
        except OSError as error:
            raise RunFailed(
                f"{self.worker} cannot {doing}: {error}; run_dir must have free space, and be a folder that all "
                "machines share"
            ) from error

    def close(self) -> None:
        """Ends the thread after the actions so far."""
        self._thread.shutdown()
