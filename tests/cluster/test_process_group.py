"""The process groups of a driver and of the Ray processes that it starts."""

from __future__ import annotations

import subprocess
import sys

# The driver's group has no other process, as in `(rlframe train ... &)`, where the group's leader has ended.
ALONE = """
import os, subprocess
from rlframe.cluster.ray_cluster import _own_process_group

leader = subprocess.Popen(["sleep", "60"], process_group=0)
os.setpgid(0, leader.pid)
leader.kill(); leader.wait()
with _own_process_group():
    inside = os.getpgrp()
print(inside != leader.pid, os.getpgrp() == leader.pid)
"""


def test_a_driver_alone_in_its_group_leaves_it_and_comes_back() -> None:
    found = subprocess.run([sys.executable, "-c", ALONE], capture_output=True, text=True, check=True)
    assert found.stdout.split() == ["True", "True"]
