"""Ranks meet at the address of rank 0's machine, of either family, also where it is the outer address of a NAT."""

import subprocess
import sys

import pytest

from tests.tiny.addresses import IPV6, OUTER

MEET = """
import sys
from datetime import timedelta
from torch import distributed
from rlframe.actors.sockets import free_address
from rlframe.learner.meeting import meet
meet(free_address(sys.argv[1]), "gloo", rank=0, ranks=1, timeout=timedelta(seconds=20))
print(distributed.get_world_size())
"""


@pytest.mark.parametrize("host", ["127.0.0.1", IPV6, OUTER])
def test_rank_zero_meets_at_its_address(host: str) -> None:
    meeting = subprocess.run([sys.executable, "-c", MEET, host], capture_output=True, text=True, timeout=60)
    assert meeting.stdout == "1\n", meeting.stderr
