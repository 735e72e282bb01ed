"""Addresses for tests of sockets."""

import socket

import pytest

OUTER = "192.0.2.1"  # reserved for documentation: no machine has it


def has_ipv6() -> bool:
    try:
        socket.create_server(("::1", 0), family=socket.AF_INET6).close()
    except OSError:
        return False
    return True


IPV6 = pytest.param("::1", marks=pytest.mark.skipif(not has_ipv6(), reason="this machine has no ::1"))
