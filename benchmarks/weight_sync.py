"""Weight sync of SmolLM2-135M against its bound: three copies of its bytes in memory, plus vLLM's own loading.

    python benchmarks/weight_sync.py [RANKS]

Each round measures three ways: `gathered`, whole tensors that rank 0 gathers; `sharded`, every rank's own shards;
`deltas`, of one value in a hundred. vLLM's own loading is its `reload_weights` of the same weights from a file in the
page cache, in the same engine. Prints the median and extremes of each part in seconds, the ratio to the bound, and the
share of the bfloat16 values that real optimizer steps change.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time
from collections import defaultdict
from collections.abc import Callable

import numpy as np
import ray

from rlframe.cluster import start as cluster
from rlframe.cluster import starter
from rlframe.config.run import RunConfig
from rlframe.learner.group import LearnerGroup
from rlframe.learner.rank import LearnerRank
from rlframe.model import base_model as model
from rlframe.objective.objective import Objective
from rlframe.rollout.vllm import VLLMEngine
from rlframe.training import TrainSample
from rlframe.weights.object_store import ObjectStore
from rlframe.weights.snapshot import RankShards, Snapshot

ROUNDS = 7  # the first two touch the object store's pages and do not count
WAYS = ("gathered", "sharded", "deltas")
LEARNING_RATES = (1e-6, 3e-6, 2e-5)


class ReloadingEngine(VLLMEngine):
    """An engine that can also load by vLLM's own means."""

    async def reload(self) -> None:
        async with self.gate:
            await self.llm.pause_generation(mode="keep", clear_cache=True)
            await self.llm.collective_rpc("reload_weights")
            await self.llm.resume_generation()


class GatheringRank(LearnerRank):
    """A rank that can also publish whole tensors, like a framework that knows only `GatheredParameters`."""

    def gather(self, bucket_bytes: int) -> RankShards:
        import torch

        from rlframe.learner.buckets import TensorShard
        from rlframe.learner.publisher import shard_checksums
        from rlframe.learner.source import Zero3Source
        from rlframe.model.policy import PREFIX
        from rlframe.weights.shards import Bucket

        refs, checksums, shards, size = [], [], [], 0

        def put() -> int:
            payload = torch.cat([shard.values for shard in shards]).view(torch.uint8).numpy()
            offsets = [0, *itertools.accumulate(shard.values.nbytes for shard in shards)]
            headers = [shard.header(offset) for shard, offset in zip(shards, offsets, strict=False)]
            refs.append(ray.put(Bucket(headers, payload)))
            checksums.append(shard_checksums(Bucket(headers, payload)))
            return payload.nbytes

        total = 0
        for name, tensor in Zero3Source(self.engine.module, PREFIX):
            whole = tensor.clone().reshape(-1) if self.rank == 0 else tensor.reshape(-1)[:0]
            shards.append(TensorShard(name, tuple(tensor.shape), 0, whole))
            size += tensor.nbytes
            if size >= bucket_bytes:
                total += put()
                shards, size = [], 0
        total += put()
        return RankShards(base=0, buckets=refs, deltas=[], checksums=checksums, names=[], bytes=total)

    def nudge(self) -> None:
        """Changes one bfloat16 value in a hundred."""
        for parameter in self.engine.module.parameters():
            parameter.ds_tensor[::100] *= 1.01

    def density(self, sample: TrainSample, objective: Objective, lr: float) -> float:
        """The share of this rank's bfloat16 values that one optimizer step at `lr` changes."""
        originals = [parameter.ds_tensor.clone() for parameter in self.engine.module.parameters()]
        self.config = self.config.model_copy(update={"lr": lr, "warmup_steps": 0, "schedule": "constant"})
        self.step([[[sample]]], objective, 0)
        pairs = list(zip(originals, self.engine.module.parameters(), strict=True))
        changed = sum(int((old != new.ds_tensor).sum()) for old, new in pairs)
        return changed / sum(old.numel() for old, _ in pairs)


def main() -> None:
    import hydra

    from rlframe.config.compose import conf_dir, load
    from rlframe.rollout import vllm

    ranks = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    vllm.VLLMEngine = ReloadingEngine  # `cluster.start` makes actors of these two classes
    starter.LearnerRank = GatheringRank
    overrides = ["experiment=smollm2_arithmetic", f"learner.ranks={ranks}", "weights.full_every=1000"]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        run = load(hydra.compose("train", overrides))
    with cluster.start(run, model.prepare(run.model.path)) as actors:
        seconds = {part: values[2:] for part, values in measure(run, actors).items()}
        densities = {lr: density(actors.learner, lr) for lr in LEARNING_RATES}
    median = {part: statistics.median(values) for part, values in seconds.items()}
    for part, values in seconds.items():
        figures = {"median": median[part], "min": min(values), "max": max(values)}
        print(json.dumps({"part": part, **{key: round(value, 3) for key, value in figures.items()}}))
    bound = 3 * median["copy"] + median["vllm_reload"]
    for way in WAYS:
        ratio = (median[f"{way}/publish"] + median[f"{way}/load"]) / bound
        print(f"{way}, {ranks} ranks: publish + load takes {ratio:.2f} of 3 copies + vLLM's own loading")
    for lr, share in densities.items():
        print(f"one step at lr {lr:g} changes {share:.1%} of the bfloat16 values")


class MeasuredTransport(ObjectStore):
    """The object store with a choice of the way: whole tensors, whole shards, or deltas."""

    way = "sharded"
    bucket_bytes = 0

    def publish(self, *, whole: bool) -> Snapshot:
        if self.way == "gathered":
            ranks = ray.get([rank.gather.remote(self.bucket_bytes) for rank in self.learner.ranks])
            return Snapshot(version=self.learner.version, ranks=ranks)
        return self.learner.publish(whole=whole or self.way == "sharded")


def measure(run: RunConfig, actors: cluster.Actors) -> dict[str, list[float]]:
    """Seconds of each part, round by round."""
    seconds: dict[str, list[float]] = defaultdict(list)
    learner = actors.learner
    transport = actors.weights.transport = MeasuredTransport(learner, actors.rollouts, actors.background)
    transport.bucket_bytes = run.weights.chunk_mib << 20

    def timed(part: str, work: Callable[[], object]) -> None:
        started = time.perf_counter()
        work()
        seconds[part].append(time.perf_counter() - started)

    for _ in range(ROUNDS):
        for way in WAYS:
            learner.version += 1
            if way == "deltas":
                ray.get([rank.nudge.remote() for rank in learner.ranks])
            transport.way = way
            synced = actors.weights.sync(learner.version)
            seconds[f"{way}/publish"].append(synced.publish_s)
            seconds[f"{way}/load"].append(synced.wait_s)
            seconds[f"{way}/stall"].append(synced.arrivals.stall_s)
            seconds[f"{way}/MiB"].append(synced.bytes / 2**20)
        timed("vllm_reload", lambda: ray.get([engine.handle.reload.remote() for engine in actors.rollouts.replicas]))
        size = int(seconds["gathered/MiB"][0] * 2**20)
        source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)  # both touched before the copy
        timed("copy", lambda s=source, t=target: np.copyto(t, s))
    return seconds


def density(learner: LearnerGroup, lr: float) -> float:
    """Over all ranks, after one step on a random sequence."""
    tokens = np.random.default_rng(0).integers(0, 40_000, 128).astype(np.int32)
    ones = np.ones(128, np.float32)
    sample = TrainSample(
        prompt_id="random",
        prefix_tokens=0,
        token_ids=tokens,
        sampled=ones > 0,
        rollout_logprobs=-8 * ones,
        advantages=ones,
        loss_weights=ones / 128,
        mean_weights=ones / 128,
    )
    shares = [rank.density.remote(sample, learner.objective, lr) for rank in learner.ranks]
    return statistics.mean(ray.get(shares))


if __name__ == "__main__":
    main()
