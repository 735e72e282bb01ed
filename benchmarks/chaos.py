"""Faults over one run, in real processes: kill -9, SIGSTOP, SIGTERM, a full disk, failed calls of Ray, and more.

    python benchmarks/chaos.py                                  # 200 faults, at most 40 minutes on two cores
    python benchmarks/chaos.py --faults 20 --seed 3
    python benchmarks/chaos.py --plan "kill driver, kill learner, stop rollout"

The run is the one of `rlframe train ... resume=auto`, started again each time its driver ends: two ranks of DeepSpeed
on a tiny model, 2 to 4 engines, 2 episode workers and 2 reward workers. Engines are timed ones, so each token's number
is its place in the completion. Everything else is real. Without root the disk is never filled.

A line tells each fault. At the end come the seconds until the next step, by kind of fault, the growth of long-lived
processes, and whatever does not hold: exit code 1 then. docs/failures.md lists what must hold.
"""

from __future__ import annotations

import argparse
import random
import shutil
import signal
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.chaos_parts import faults
from benchmarks.chaos_parts.balance import balance
from benchmarks.chaos_parts.disk import SmallDisk
from benchmarks.chaos_parts.drivers import Drivers
from benchmarks.chaos_parts.report import conclude, recovery_table
from benchmarks.chaos_parts.settings import overrides
from benchmarks.chaos_parts.storm import Storm, newest_step
from tests.tiny.models import make_llama

DISK_MIB = 256
LAST_STEPS = 10  # that the last driver takes, to the end of the run
END_S = 300.0  # for that


def main() -> int:
    arguments = parse()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit("SIGTERM"))  # the run's processes are ended on the way out
    folder = arguments.folder or Path(tempfile.mkdtemp(prefix="chaos-"))
    folder.mkdir(parents=True, exist_ok=True)
    return conclude(storm(arguments, folder), folder, keep=arguments.folder is not None)


def storm(arguments: argparse.Namespace, folder: Path) -> list[str]:
    """Lets a run weather all faults -> whatever does not hold."""
    random_source = random.Random(arguments.seed)
    model = make_llama(folder / "model", tie_word_embeddings=True)
    with tempfile.TemporaryDirectory(prefix="chaos-ray-") as ray_folder, SmallDisk(folder / "run", DISK_MIB) as disk:
        planned = arguments.plan or faults.plan(arguments.faults, random_source, small_disk=disk.mounted)
        room = f"a disk of {DISK_MIB} MiB" if disk.mounted else "no disk that may be filled (only root mounts one)"
        print(f"seed {arguments.seed}, {len(planned)} faults, {room}")
        drivers = Drivers(overrides(model, disk.folder), folder, Path(ray_folder), random_source)
        run = Storm(drivers, disk, random_source, lambda line: print(line, flush=True))
        drivers.start()
        try:
            run.strike_all(planned, time.monotonic() + 60 * arguments.minutes)
            finish(run, drivers)
            found = balance(disk.folder, drivers.consoles())
        finally:
            for life in drivers.lives:
                for process in [life.process, *life.left()]:
                    if process.is_running():
                        process.kill()
        keep(disk, folder)
    print(f"\n{found.line()}\n")
    print("\n".join(recovery_table(run.struck)))
    print("\nlong-lived processes, at the begin, after a quarter, ...\n" + "\n".join(run.usage.table()))
    missed = len(planned) - len(run.struck)
    late = [f"{missed} of {len(planned)} faults were left out"] if missed > len(planned) // 20 else []
    return run.wrong + found.wrong + run.usage.leaks() + run.shared_memory.leaks() + late


def finish(run: Storm, drivers: Drivers) -> None:
    """Ends the run by a signal, then lets it go on to its last step, and waits for orphans."""
    run.until_step()
    run.until(drivers.goes_on)
    drivers.living = False
    drivers.terminate()
    run.until(lambda: drivers.life.poll() is not None)
    drivers.complete(newest_step(run.files) + LAST_STEPS)
    end = time.monotonic() + END_S
    run.until(lambda: drivers.life.poll() is not None or time.monotonic() > end)
    if drivers.life.poll() is None:
        run.wrong.append(f"the run has not ended within {END_S:.0f} s")
        drivers.kill()
    run.until(drivers.all_looked_at)


def keep(disk: SmallDisk, folder: Path) -> None:
    """Copies the run's files, which the small disk would take along."""
    if disk.mounted:
        shutil.copytree(disk.folder, folder / "files", ignore=shutil.ignore_patterns("checkpoints"))


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--faults", type=int, default=200)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument(
        "--minutes", type=float, default=40.0, help="no fault after this time; what follows takes 2 more"
    )
    parser.add_argument("--plan", type=faults.parse, help='faults in their order, such as "kill driver, stop rollout"')
    parser.add_argument("--folder", type=Path, help="for all files, kept at the end; default: a temporary one")
    return parser.parse_args()


if __name__ == "__main__":
    sys.exit(main())
