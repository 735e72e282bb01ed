"""The store of torch.distributed where ranks meet, which listens on one address."""

from __future__ import annotations

import socket
from datetime import timedelta

from torch.distributed import TCPStore  # pyright: ignore[reportPrivateImportUsage]


def store(address: str, *, rank: int, ranks: int, timeout: timedelta) -> TCPStore:
    """The store of `ranks` at host:port. Rank 0 serves it on this address alone; torch would take all interfaces."""
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host.strip("[]"), int(port)), family=family).detach() if rank == 0 else None
    return TCPStore(host, int(port), ranks, rank == 0, timeout, master_listen_fd=listener)
