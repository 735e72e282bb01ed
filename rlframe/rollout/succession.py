"""A worker in the place of a lost one: it learns what every worker knows, and reads what the lost one has logged."""

from __future__ import annotations

import asyncio
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from rlframe.rollout.seated import Seated, ask


@dataclass(slots=True, kw_only=True)
class Knowledge:
    """What every episode worker must know. It may change while a worker starts."""

    epoch: Path | None = None  # folder of the log's present epoch; None: the run keeps no log
    version: int = 0  # newest one of the policy that was announced


async def open_segment(worker: Seated, epoch: Path) -> None:
    """Lets a worker write into the folder of an epoch from now on. Raises RunFailed."""
    worker.epoch = epoch
    worker.segments.append(epoch / f"{worker.name}.log")
    await ask(worker, "open_segment", worker.segments[-1])


async def announce(worker: Seated, version: int) -> None:
    worker.version = version
    await ask(worker, "announce", version)


async def join_engine(worker: Seated, engine: str, seats: Seated) -> None:
    worker.join(seats.engines[engine])
    await ask(worker, "join_engine", seats.engines[engine])


async def leave_engine(worker: Seated, engine: str, hand_over: bool = False) -> None:
    worker.leave(engine)
    await ask(worker, "leave_engine", engine, hand_over)


async def take_over(successor: Seated, lost: Seated, known: Knowledge, keys: Collection[str]) -> None:
    """Brings a new worker to where orders can go on; `keys`: of orders that the lost worker had, or may have got."""
    await catch_up(successor, lost, known)
    await ask(successor, "adopt", lost.segments, list(keys))
    await catch_up(successor, lost, known)


def is_behind(worker: Seated, lost: Seated, known: Knowledge) -> bool:
    """True for a living worker that was not told all that `catch_up` tells."""
    knows = (worker.epoch, worker.version, worker.engines.keys()) == (known.epoch, known.version, lost.engines.keys())
    return not worker.lost and not knows


async def catch_up(successor: Seated, lost: Seated, known: Knowledge) -> None:
    """Tells a new worker what it must know, until nothing has changed meanwhile, or it is lost itself."""
    while is_behind(successor, lost, known):
        if known.epoch is not None and successor.epoch != known.epoch:
            await open_segment(successor, known.epoch)
        elif successor.version != known.version:
            await announce(successor, known.version)
        elif joined := lost.engines.keys() - successor.engines.keys():
            await asyncio.gather(*[join_engine(successor, engine, lost) for engine in sorted(joined)])
        else:
            left = successor.engines.keys() - lost.engines.keys()
            await asyncio.gather(*[leave_engine(successor, engine) for engine in left])
