"""`is_this_machine`: tells an address of this machine from another machine's."""

from __future__ import annotations

import socket
from ipaddress import ip_address

import psutil


def is_this_machine(host: str) -> bool:
    """True for a loopback address, and for the addresses of this machine's network interfaces."""
    own = {address.address.partition("%")[0] for found in psutil.net_if_addrs().values() for address in found}
    try:
        addresses = {str(found[4][0]) for found in socket.getaddrinfo(host, None)}
    except OSError:
        return False
    return all(ip_address(address).is_loopback or address in own for address in addresses)
