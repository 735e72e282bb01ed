"""Parity: a new engine computes what a serving engine computes, before it gets work."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import numpy as np

from rlframe.actors.calls import gather
from rlframe.actors.replicas import Replica

TOKENS = list(range(10, 42))  # in the vocabulary of every model
TRIES = 20  # while versions change
RETRY_S = 0.2
PEER_S = 15.0  # for a serving engine to answer; another one is asked after it
MAX_PEERS = 3  # asked in vain; where all engines are full, the new one helps more by serving than by being compared


async def difference(
    newcomer: Replica,
    peers: Callable[[], list[Replica]],
    bound: float,
    timeout_s: float,
    warn: Callable[[str], None],
) -> str | None:
    """The reason why a new engine must not serve: a mean difference of log-probabilities of fixed tokens above `bound`.

    None where the engines agree; also where no engine serves, and with a warning where no serving engine of MAX_PEERS
    answers, as one with full slots may, or every answer is of another version. `peers`: engines that serve, as of now.
    `warn`: for the console. Raises the error of the new engine, and Stalled where it does not answer within `timeout_s`
    (cluster.stall_timeout_s).
    """
    silent: set[str] = set()  # names of peers that have not answered
    uncompared = f"{newcomer.name} serves and was compared with no engine: "
    for _ in range(TRIES):
        serving = [peer for peer in peers() if peer.name not in silent]
        if not serving or len(silent) == MAX_PEERS:
            if silent:
                warn(f"{uncompared}{', '.join(sorted(silent))} told no log-probabilities within {PEER_S:g} s")
            return None
        probe = {newcomer.name: newcomer.handle.probe.remote(TOKENS)}
        [own] = await gather(probe, "tell log-probabilities", timeout_s, "cluster.stall_timeout_s")
        peer = min(serving, key=lambda replica: abs(replica.version - own.version))
        try:
            other = await asyncio.wait_for(peer.handle.probe.remote(TOKENS), PEER_S)
        except Exception:  # the death of a peer is no fault of the new engine, and found elsewhere
            silent.add(peer.name)
            continue
        if other.version == own.version:
            return _compare(newcomer.name, own.logprobs, peer.name, other.logprobs, bound)
        await asyncio.sleep(RETRY_S)
    warn(f"{uncompared}versions changed during {TRIES} comparisons")
    return None


def _compare(name: str, own: np.ndarray, peer: str, other: np.ndarray, bound: float) -> str | None:
    """`own`, `other`: [L] log-probabilities of the same tokens."""
    mean = float(np.abs(own - other).mean()) if own.shape == other.shape else float("nan")
    if mean <= bound:
        return None
    return (
        f"{name} computes other log-probabilities than {peer} with the same weights, {mean:.3g} apart on average "
        f"(mismatch.max_abs_mean={bound:g})"
    )
