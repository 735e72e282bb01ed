"""The meeting of a run's ranks in torch.distributed, at one address."""

from __future__ import annotations

import socket
from datetime import timedelta
from typing import Literal

from torch import distributed


def meet(address: str, backend: Literal["nccl", "gloo"], *, rank: int, ranks: int, timeout: timedelta) -> None:
    """Waits for all `ranks` at host:port; in a process whose ranks have met, does nothing.

    Rank 0 listens on this address alone, where torch by itself would listen on all interfaces of the machine.
    """
    if distributed.is_initialized():
        return
    host, _, port = address.rpartition(":")
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.create_server((host.strip("[]"), int(port)), family=family).detach() if rank == 0 else None
    store = distributed.TCPStore(  # pyright: ignore[reportPrivateImportUsage]
        host, int(port), ranks, rank == 0, timeout, master_listen_fd=listener
    )
    distributed.init_process_group(backend, store=store, rank=rank, world_size=ranks, timeout=timeout)
