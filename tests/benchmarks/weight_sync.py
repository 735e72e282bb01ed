"""Weight sync of SmolLM2-135M against its bound: one copy of its bytes in memory, plus vLLM's own loading.

    python tests/benchmarks/weight_sync.py

vLLM's own loading is its `reload_weights` of the same weights from a file in the page cache, in the same engine.
Prints each part's median and extremes, and the ratio of publish + update to the bound.
"""

from __future__ import annotations

import json
import statistics
import time

import numpy as np
import ray

from rlframe import cluster, model
from rlframe.rollout.vllm import VLLMEngine

ROUNDS = 8  # the first two touch the object store's pages and are left out


class ReloadingEngine(VLLMEngine):
    """An engine that also loads the way vLLM does by itself."""

    async def reload(self) -> None:
        await self.pause()
        await self.llm.collective_rpc("reload_weights")
        await self.llm.resume_generation()


def main() -> None:
    import hydra

    from rlframe.cli import conf_dir
    from rlframe.config import load
    from rlframe.rollout import vllm

    vllm.VLLMEngine = ReloadingEngine  # what `cluster.start` makes an actor of
    with hydra.initialize_config_dir(str(conf_dir()), version_base="1.3"):
        run = load(hydra.compose("train", ["experiment=smollm2_arithmetic"]))
    seconds: dict[str, list[float]] = {"copy": [], "vllm_reload": [], "publish": [], "update": []}
    with cluster.start(run, model.prepare(run.model.path)) as (rollouts, _, learner):
        for _ in range(ROUNDS):
            weights = clocked(seconds["publish"], learner.weights)
            clocked(seconds["update"], lambda weights=weights: rollouts.update(weights, version=0))
            clocked(seconds["vllm_reload"], lambda: ray.get([engine.reload.remote() for engine in rollouts.engines]))
            source = np.ones(weights.bytes, np.uint8)
            target = np.ones(weights.bytes, np.uint8)  # both touched before
            clocked(seconds["copy"], lambda s=source, t=target: np.copyto(t, s))
    counted = {name: values[2:] for name, values in seconds.items()}
    for name, values in counted.items():
        figures = {"median": statistics.median(values), "min": min(values), "max": max(values)}
        print(json.dumps({"part": name, **{key: round(value, 3) for key, value in figures.items()}}))
    median = {name: statistics.median(values) for name, values in counted.items()}
    bound = 3 * median["copy"] + median["vllm_reload"]
    print(
        f"publish + update takes {(median['publish'] + median['update']) / bound:.2f} of 3 copies + vLLM's own loading"
    )


def clocked(into: list[float], work):
    began = time.perf_counter()
    result = work()
    into.append(time.perf_counter() - began)
    return result


if __name__ == "__main__":
    main()
