"""The learner's host buffer for published weights, and a load of its payload back to the GPU. Needs torch only."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator

import torch

from benchmarks.gpu_parts import Figure
from rlframe.learner.buckets import HostBuffer, TensorShard

REPEATS = 5


def publish(small: bool) -> Iterator[Figure]:
    """Packs 1 GiB of shards in 64 MiB buckets, as a rank publishes them, beside one plain copy to pinned memory."""
    device, size = ("cpu", 1 << 16) if small else ("cuda", 1 << 25)
    generator = torch.Generator(device).manual_seed(0)
    layers = [torch.randn(size, generator=generator, device=device).bfloat16() for _ in range(16)]
    buckets = [
        [TensorShard(f"{layer}.{part}", (len(values),), 0, values) for part, values in enumerate(tensor.chunk(3))]
        for layer, tensor in enumerate(layers)
    ]
    host = HostBuffer()
    host.pack(buckets[0])  # pins the memory
    gib = sum(shard.values.nbytes for bucket in buckets for shard in bucket) / 2**30
    packed = gib / best(lambda: [host.pack(bucket) for bucket in buckets])
    pinned = torch.empty_like(layers[0], device="cpu", pin_memory=not small)
    copied = gib / best(lambda: [pinned.copy_(layer, non_blocking=True) for layer in layers])
    yield Figure("pack", packed, "GiB/s", at_least=None if small else copied / 2)
    yield Figure("plain copy to pinned memory", copied, "GiB/s")
    back = torch.empty(layers[0].nbytes + 64, dtype=torch.uint8, device=device)
    payload = torch.from_numpy(host.pack(buckets[0]).payload)
    loaded = payload.nbytes / 2**30 / best(lambda: back[: payload.nbytes].copy_(payload, non_blocking=True))
    yield Figure("load back", loaded, "GiB/s")
    changed = 0
    for bucket in buckets:
        received = host.pack(bucket)
        for header, shard in zip(received.headers, bucket, strict=True):
            values = torch.from_numpy(header.values(received.payload)).view(torch.bfloat16).to(device)
            changed += int((values != shard.values).sum())
    yield Figure("values that changed on the way", changed, at_most=0)


def best(action: Callable[[], object]) -> float:
    """Seconds of the fastest of some repeats."""
    seconds = []
    for _ in range(REPEATS):
        started = time.perf_counter()
        action()
        if torch.cuda.is_available():
            torch.cuda.synchronize()
        seconds.append(time.perf_counter() - started)
    return min(seconds)
