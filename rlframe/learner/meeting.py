"""The meeting of a run's ranks in torch.distributed, at one address."""

from __future__ import annotations

import os
from datetime import timedelta
from typing import Literal

from torch import distributed

from rlframe.actors.sockets import interface, listen


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
