"""A wait for the end of a process that a test does not own."""

import asyncio

import psutil


async def ended(pid: int, within_s: float = 60.0) -> None:
    """Returns once the process has ended, zombies included. Raises TimeoutError."""
    async with asyncio.timeout(within_s):
        while _runs(pid):
            await asyncio.sleep(0.1)


def _runs(pid: int) -> bool:
    try:
        return psutil.Process(pid).status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False
