"""Sockets listen on the interface of their address alone, of either family, except behind a NAT."""

import pytest

from rlframe.actors.sockets import free_address, interface, listen
from rlframe.cluster.ray_cluster import local_environment
from tests.tiny.addresses import IPV6, OUTER


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
