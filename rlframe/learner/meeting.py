"""The meeting of a run's ranks in torch.distributed, at one address."""

from __future__ import annotations

import errno
import os
import socket
from datetime import timedelta
from typing import Literal

import psutil
from torch import distributed


def meet(address: str, backend: Literal["nccl", "gloo"], *, rank: int, ranks: int, timeout: timedelta) -> None:
    """Waits for all `ranks` at host:port; in a process whose ranks have met, does nothing.

    Rank 0 listens as `listen` does, where torch by itself would listen on all interfaces of the machine.
    """
    if distributed.is_initialized():
        return
    host, _, port = address.rpartition(":")
    if name := interface(host):
        os.environ.setdefault("GLOO_SOCKET_IFNAME", name)
    descriptor = None
    if rank == 0:
        listener = listen(host, int(port))
        host = listener.getsockname()[0]  # behind NAT rank 0 may not reach its own outer address
        descriptor = listener.detach()
    store = distributed.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
        host, int(port), ranks, rank == 0, timeout, master_listen_fd=descriptor
    )
    distributed.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=timeout)


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
