"""`EngineClient`: the engine actors, as the learner's end of vLLM's transports between GPUs calls them."""

from __future__ import annotations

from concurrent.futures import Future
from typing import Any

from rlframe.actors.calls import wait
from rlframe.actors.replicas import Handle


class EngineClient:
    """Has the methods of `vllm.distributed.weight_transfer.VLLMWeightSyncClient`; each calls all engines at once.

    The first error is also the result of `failure`: vLLM calls the client in a thread, while the caller waits for the
    engines in NCCL, and NCCL does not notice an error of another process.
    """

    def __init__(self, engines: dict[str, Handle], *, workers: int, timeout_s: float) -> None:
        """`engines`: name -> actor. `workers`: vLLM's worker processes in each engine. `timeout_s`: of each call."""
        self.engines = engines
        self.workers = workers
        self.timeout_s = timeout_s
        self.failure: Future[None] = Future()

    def init_weight_transfer_engine(self, init_info: dict[str, Any]) -> None:
        self._call("join_learner", "meet the learner's ranks", *self.inits(init_info))

    def inits(self, init_info: dict[str, Any]) -> list[dict[str, Any]]:
        """The init of each engine: ranks of the NCCL group are given to engines in turn.

        vLLM's own client for Ray gives all engines the same init, so all would take the same ranks. Engines with 2
        workers each:

            rank 0: the learner      ranks 1 2: engine 0, rank_offset 1      ranks 3 4: engine 1, rank_offset 3      ...
        """
        if "rank_offset" not in init_info:  # ipc has no ranks
            return [init_info for _ in self.engines]
        first = init_info["rank_offset"]
        return [init_info | {"rank_offset": first + index * self.workers} for index in range(len(self.engines))]

    def start_weight_update(self) -> None:
        self._call("start_weight_update", "prepare for new weights")

    def update_weights(self, update_info: Any) -> None:
        self._call("update_weights", "receive new weights", *[update_info] * len(self.engines))

    def finish_weight_update(self, weight_version: str | None = None) -> None:
        """`weight_version` is vLLM's way to stamp tokens; `VLLMEngine.resume` stamps, after the checksums."""
        self._call("finish_weight_update", "complete new weights")

    def _call(self, method: str, doing: str, *arguments: Any) -> None:
        """Calls a method of every engine, with an argument for each engine or with none.

        Raises the first engine's error, or Stalled with the names of late engines.
        """
        try:
            engine_arguments = [(argument,) for argument in arguments] or [()] * len(self.engines)
            calls = {
                name: getattr(handle, method).remote(*call_arguments)
                for (name, handle), call_arguments in zip(self.engines.items(), engine_arguments, strict=True)
            }
            wait(calls, doing, self.timeout_s, "cluster.stall_timeout_s")
        except BaseException as error:
            if not self.failure.done():
                self.failure.set_exception(error)
            raise
