"""The driver's time to hand a version with 2,200 references to engines: as one reference, and by value for each engine.

    python benchmarks/weight_submit.py [CALLS]

The references are owned by stand-ins for ranks, and light actors accept the calls. Prints milliseconds an engine of
both ways, from the same run, and their ratio.
"""

from __future__ import annotations

import statistics
import sys
import time
from collections.abc import Callable

import ray

from rlframe.weights.snapshot import RankShards, Snapshot

RANKS, BUCKETS = 8, 275
SHARDS = 20  # in a bucket, each with a checksum
ACTORS = 4  # processes, which take the calls in turn
BY_VALUE = 50  # calls; more would take minutes
ROUNDS = 4  # the first does not count: actors and connections are new


class Rank:
    """Puts small buckets."""

    def publish(self) -> RankShards:
        buckets = [ray.put(bytes(64)) for _ in range(BUCKETS)]
        checksums = [[(bucket << 40) + shard for shard in range(SHARDS)] for bucket in range(BUCKETS)]
        return RankShards(base=1, buckets=buckets, deltas=[], checksums=checksums, names=["w"], bytes=64 * BUCKETS)


class Engine:
    """Accepts a snapshot."""

    def load(self, snapshot: Snapshot) -> int:
        return snapshot.version


def milliseconds(submit: Callable[[], list[ray.ObjectRef]]) -> float:
    """Until all calls are submitted; then waits for the answers."""
    started = time.perf_counter()
    calls = submit()
    seconds = time.perf_counter() - started
    ray.get(calls)
    return 1000 * seconds / len(calls)


def main() -> None:
    calls = int(sys.argv[1]) if len(sys.argv) > 1 else 256
    ray.init("local", num_cpus=2, include_dashboard=False, object_store_memory=200 << 20, log_to_driver=False)
    ranks = [ray.remote(Rank).options(num_cpus=0).remote() for _ in range(RANKS)]
    engines = [ray.remote(Engine).options(num_cpus=0).remote() for _ in range(ACTORS)]
    receivers = [engines[index % ACTORS] for index in range(calls)]
    snapshot = Snapshot(version=1, ranks=ray.get([rank.publish.remote() for rank in ranks]))

    def as_reference() -> list[ray.ObjectRef]:
        reference = ray.put(snapshot)
        return [engine.load.remote(reference) for engine in receivers]

    def by_value() -> list[ray.ObjectRef]:
        return [engine.load.remote(snapshot) for engine in receivers[:BY_VALUE]]

    rounds = [(milliseconds(as_reference), milliseconds(by_value)) for _ in range(ROUNDS)][1:]
    reference_ms, value_ms = (statistics.median(times) for times in zip(*rounds, strict=True))
    print(f"{calls} engines, {RANKS * BUCKETS} references, median of {len(rounds)} rounds:")
    print(
        f"as one reference {reference_ms:.3f} ms an engine, by value {value_ms:.3f} ms: {value_ms / reference_ms:.0f} x"
    )
    ray.shutdown()


if __name__ == "__main__":
    main()
