"""Ranks meet at the address of rank 0's machine, of either family, also where it is the outer address of a NAT."""

import socket
import subprocess
import sys

import pytest

from rlframe.cluster.ray_cluster import local_environment
from rlframe.learner.meeting import free_address, interface, listen

OUTER = "192.0.2.1"  # reserved for documentation: no machine has it
MEET = """
import sys
from datetime import timedelta
from torch import distributed
from rlframe.learner.meeting import free_address, meet
meet(free_address(sys.argv[1]), "gloo", rank=0, ranks=1, timeout=timedelta(seconds=20))
print(distributed.get_world_size())
"""


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


IPV6 = pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1"))


@pytest.mark.parametrize("host", ["127.0.0.1", IPV6])
def test_an_address_of_this_machine_is_the_only_one_that_listens(host: str) -> None:
    with listen(host, 0) as listener:
        assert listener.getsockname()[0] == host


def test_an_outer_address_listens_on_all_interfaces() -> None:
    with listen(OUTER, 0) as listener:
        assert listener.getsockname()[0] == "0.0.0.0"
    host, _, port = free_address(OUTER).rpartition(":")
    assert host == OUTER and int(port) > 0


@pytest.mark.parametrize("host", ["127.0.0.1", "127.0.0.2", IPV6])
def test_gloo_listens_on_the_interface_that_leads_to_rank_zero(host: str) -> None:
    assert interface(host) == local_environment()["GLOO_SOCKET_IFNAME"]


@pytest.mark.parametrize("host", ["127.0.0.1", IPV6, OUTER])
def test_rank_zero_meets_at_its_address(host: str) -> None:
    meeting = subprocess.run([sys.executable, "-c", MEET, host], capture_output=True, text=True, timeout=60)
    assert meeting.stdout == "1\n", meeting.stderr
