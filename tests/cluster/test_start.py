"""What actors' processes are given."""

from __future__ import annotations

import subprocess
import sys

from rlframe.cluster.start import _environment


def faults(environment: dict[str, str]) -> int:
    """Pages that a process was given which takes 32 MiB twenty times over, and lets go of them each time."""
    code = "import resource\nfor size in [32 << 20] * 20: b'x' * size\nprint(resource.getrusage(0).ru_minflt)"
    return int(subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True).stdout)


def test_memory_that_an_actor_on_a_cpu_lets_go_of_is_there_when_it_takes_as_much_again() -> None:
    pages = (32 << 20) // 4096
    assert faults(_environment(1, gpus=0)) < 3 * pages < 20 * pages < faults(_environment(1, gpus=1))
