"""`RolloutFiles`: the rollouts of each step, which episode workers write, also where a worker is lost meanwhile."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.record import rollouts
from rlframe.record.segments import read_body
from rlframe.rollout.seated import RolloutFile, Seated, ask

if TYPE_CHECKING:
    from rlframe.training import GroupRecord, RatedGroup


class RolloutFiles:
    """Lets workers write their groups. Groups of a lost worker are written here, from their bodies in the log."""

    def __init__(self, ledger: Callable[[], Path | None], warn: Callable[[str], None]) -> None:
        """`ledger`: the log's folder of all epochs, once it is known."""
        self.ledger = ledger
        self.warn = warn

    async def write(
        self,
        workers: dict[str, Seated],
        step: int,
        folder: Path,
        groups: Sequence[GroupRecord],
        rated: Sequence[RatedGroup],
    ) -> None:
        """Lets each worker write its groups of a step; waits only for those of workers that are gone."""
        shares: defaultdict[str, list[tuple[GroupRecord, Any]]] = defaultdict(list)
        for record, rated_group in zip(groups, rated, strict=True):
            shares[record.worker].append((record, rated_group.advantages))
        alone = len(workers) == 1 and workers.keys() == shares.keys()
        files = {name: rollouts.part(folder, step, None if alone else name) for name in shares}
        await asyncio.get_running_loop().run_in_executor(None, rollouts.prepare, folder, step, files.values())
        await asyncio.gather(*[self._write(workers.get(name), step, files[name], shares[name]) for name in shares])

    async def write_rest(self, lost: Seated) -> None:
        """Writes the files that a lost worker has not written, as far as it reported."""
        while lost.unwritten:
            await self._write_from_log(lost.unwritten.popleft())

    async def _write(self, worker: Seated | None, step: int, file: Path, share: list[tuple[GroupRecord, Any]]) -> None:
        located = [(record.location, advantages) for record, advantages in share if record.location is not None]
        rollout_file = RolloutFile(step=step, file=file, groups=located)
        if worker is None or worker.lost:
            return await self._write_from_log(rollout_file)
        worker.add_file(rollout_file)
        await ask(worker, "write", step, file, [(record.body, advantages) for record, advantages in share])

    async def _write_from_log(self, rollout_file: RolloutFile) -> None:
        """A body that the log lacks, or a run without a log, costs the file, and not the run."""
        ledger = self.ledger()

        def write() -> None:
            if ledger is None:
                raise ValueError("the run keeps no log (checkpoint.every=0)")
            groups = [(read_body(ledger, location), advantages) for location, advantages in rollout_file.groups]
            rollouts.write(rollout_file.file, rollout_file.step, groups)

        try:
            await asyncio.get_running_loop().run_in_executor(None, write)
        except (OSError, ValueError) as error:
            self.warn(f"{rollout_file.file} is not written, since its episode worker was lost: {error}")
