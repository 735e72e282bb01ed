"""Weight sync of SmolLM2-135M against its bound: three copies of its bytes in memory, plus vLLM's own loading.

    python benchmarks/weight_sync.py [RANKS]

Three ways in turn, each round: `gathered`, whole tensors brought together by rank 0; `sharded`, every rank's own
slices; `changes`, of one value in a hundred. vLLM's own loading is its `reload_weights` of the same weights from a
file in the page cache, in the same engine. Prints each part's median and extremes in seconds, the ratio to the bound,
and which share of the bfloat16 values real optimizer steps change.
"""

from __future__ import annotations

import itertools
import json
import statistics
import sys
import time

import numpy as np
import ray

from rlframe.cluster import start as cluster
from rlframe.config.run import RunConfig
from rlframe.learner.group import LearnerGroup
from rlframe.learner.rank import LearnerRank
from rlframe.model import base_model as model
from rlframe.objective import Objective
from rlframe.rollout.vllm import VLLMEngine
from rlframe.types import TrainSample
from rlframe.weights.publish import Published, Share, Snapshot, publish

ROUNDS = 7  # the first two touch the object store's pages and are left out
LEARNING_RATES = (1e-6, 3e-6, 2e-5)


class ReloadingEngine(VLLMEngine):
    """An engine that also loads the way vLLM does by itself."""

    async def reload(self) -> None:
        await self.pause()
        await self.llm.collective_rpc("reload_weights")
        await self.llm.resume_generation()


class GatheringRank(LearnerRank):
    """A rank that can also publish whole tensors, as a framework does that knows only `GatheredParameters`."""

    def gather(self, chunk_bytes: int) -> Share:
        import torch

        from rlframe.learner.source import Zero3Source
        from rlframe.model.policy import PREFIX
        from rlframe.weights.publish import Chunk
        from rlframe.weights.slices import Run, cut, digests

        refs, found, held, size = [], [], [], 0

        def put() -> None:
            data = torch.cat([run.values for run in held]).view(torch.uint8).numpy()
            ends = [0, *itertools.accumulate(run.values.nbytes for run in held)]
            slices = [cut(run, offset) for run, offset in zip(held, ends, strict=False)]
            refs.append(ray.put(Chunk(slices, data)))
            found.append(digests(data, slices))

        for name, tensor in Zero3Source(self.engine.module, PREFIX):
            whole = tensor.clone().reshape(-1) if self.rank == 0 else tensor.reshape(-1)[:0]
            held.append(Run(name, tuple(tensor.shape), 0, whole))
            size += tensor.nbytes
            if size >= chunk_bytes:
                put()
                held, size = [], 0
        put()
        total = sum(slice_.count * slice_.itemsize for ref in refs for slice_ in ray.get(ref).slices)
        return Share(base=0, slices=refs, patches=[], digests=found, names=[], bytes=total)

    def nudge(self) -> None:
        """Changes one bfloat16 value in a hundred."""
        for parameter in self.engine.module.parameters():
            parameter.ds_tensor[::100] *= 1.01

    def density(self, sample: TrainSample, objective: Objective, lr: float) -> float:
        """The share of this rank's bfloat16 values that one optimizer step at `lr` changes."""
        before = [parameter.ds_tensor.clone() for parameter in self.engine.module.parameters()]
        self.config = self.config.model_copy(update={"lr": lr, "warmup_steps": 0, "schedule": "constant"})
        self.step([[[sample]]], objective, 0)
        pairs = list(zip(before, self.engine.module.parameters(), strict=True))
        changed = sum(int((old != new.ds_tensor).sum()) for old, new in pairs)
        return changed / sum(old.numel() for old, _ in pairs)


def main() -> None:
    import hydra

    from rlframe.config.compose import conf_dir, load
    from rlframe.rollout import vllm

    ranks = int(sys.argv[1]) if len(sys.argv) > 1 else 2
    vllm.VLLMEngine = ReloadingEngine  # what `cluster.start` makes actors of
    cluster.LearnerRank = GatheringRank
    overrides = ["experiment=smollm2_arithmetic", f"learner.ranks={ranks}", "weights.full_every=1000"]
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        run = load(hydra.compose("train", overrides))
    with cluster.start(run, model.prepare(run.model.path)) as (rollouts, _, learner):
        seconds = {part: values[2:] for part, values in measure(run, rollouts, learner).items()}
        densities = {lr: density(learner, lr) for lr in LEARNING_RATES}
    median = {part: statistics.median(values) for part, values in seconds.items()}
    for part, values in seconds.items():
        figures = {"median": median[part], "min": min(values), "max": max(values)}
        print(json.dumps({"part": part, **{key: round(value, 3) for key, value in figures.items()}}))
    bound = 3 * median["copy"] + median["vllm_reload"]
    for way in ("gathered", "sharded", "changes"):
        ratio = (median[f"{way}/publish"] + median[f"{way}/update"]) / bound
        print(f"{way}, {ranks} ranks: publish + update takes {ratio:.2f} of 3 copies + vLLM's own loading")
    for lr, share in densities.items():
        print(f"one step at lr {lr:g} changes {share:.1%} of the bfloat16 values")


def measure(run: RunConfig, rollouts, learner: LearnerGroup) -> dict[str, list[float]]:
    """Seconds of each part, round by round."""
    seconds: dict[str, list[float]] = {}
    chunk_bytes = run.weights.chunk_mib << 20

    def clocked(part: str, work):
        began = time.perf_counter()
        result = work()
        seconds.setdefault(part, []).append(time.perf_counter() - began)
        return result

    def gathered() -> Published:
        shares = ray.get([rank.gather.remote(chunk_bytes) for rank in learner.ranks])
        return Published(snapshot=Snapshot(learner.version, shares), ranks=learner.ranks)

    def sharded(whole: bool) -> Published:
        return publish(learner.ranks, learner.version, 600, whole=whole)

    for _ in range(ROUNDS):
        for way in ("gathered", "sharded", "changes"):
            learner.version += 1
            if way == "changes":
                ray.get([rank.nudge.remote() for rank in learner.ranks])
            put = gathered if way == "gathered" else lambda way=way: sharded(way == "sharded")
            weights = clocked(f"{way}/publish", put)
            clocked(f"{way}/update", lambda w=weights: rollouts.update(w, version=learner.version))
            seconds.setdefault(f"{way}/stall", []).append(rollouts.metrics()["rollout/stall_s"])
            seconds.setdefault(f"{way}/MiB", []).append(weights.bytes / 2**20)
            size = max(weights.bytes, int(seconds["gathered/MiB"][0] * 2**20))
        clocked("vllm_reload", lambda: ray.get([engine.reload.remote() for engine in rollouts.engines]))
        source, target = np.ones(size, np.uint8), np.ones(size, np.uint8)  # both touched before
        clocked("copy", lambda s=source, t=target: np.copyto(t, s))
    return seconds


def density(learner: LearnerGroup, lr: float) -> float:
    """Over all ranks, after one step on a random sequence."""
    tokens = np.random.default_rng(0).integers(0, 40_000, 128).astype(np.int32)
    ones = np.ones(128, np.float32)
    sample = TrainSample(
        prompt_id="random",
        prompt_tokens=0,
        token_ids=tokens,
        rollout_logprobs=-8 * ones,
        advantages=ones,
        loss_weights=ones / 128,
    )
    shares = [rank.density.remote(sample, learner.objective, lr) for rank in learner.ranks]
    return statistics.mean(ray.get(shares))


if __name__ == "__main__":
    main()
