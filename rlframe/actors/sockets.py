"""Sockets that listen on one interface, and the name of the interface that leads to a host."""

from __future__ import annotations

import errno
import socket

import psutil


def interface(host: str) -> str | None:
    """The network interface on this machine's route to `host`; None without a route.

    gloo by itself listens at the address of the machine's name, which on many systems is 127.0.1.1 by /etc/hosts.
    """
    try:
        with socket.socket(_family(host), socket.SOCK_DGRAM) as probe:
            probe.connect((host, 1))  # sends nothing
            address = probe.getsockname()[0]
    except OSError:
        return None
    interfaces = psutil.net_if_addrs().items()
    return next((name for name, entries in interfaces if address in [entry.address for entry in entries]), None)


def listen(host: str, port: int) -> socket.socket:
    """Listens on this address alone; on all interfaces where the address is another machine's, as behind NAT.

    Port 0: any free port.
    """
    family = _family(host)
    try:
        return socket.create_server((host, port), family=family)
    except OSError as error:
        if error.errno != errno.EADDRNOTAVAIL or host in ("127.0.0.1", "::1"):
            raise
        return socket.create_server(("", port), family=family)


def free_address(host: str) -> str:
    """host:port with a port that was free a moment ago."""
    with listen(host, 0) as probe:
        return f"{host}:{probe.getsockname()[1]}"


def _family(host: str) -> socket.AddressFamily:
    return socket.AF_INET6 if ":" in host else socket.AF_INET
