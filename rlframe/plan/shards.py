"""Values that a rank keeps under ZeRO-3: its shard of every parameter, of trained and of frozen ones."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from rlframe.plan.shapes import ModelShapes, TensorShape

if TYPE_CHECKING:
    from rlframe.learner.config import LearnerConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class RankShards:
    """Numbers of values, padding included."""

    trained: int
    frozen: int
    muon: int  # of the trained: hidden matrices of Muon, with one moment
    largest_trained: int  # values of the largest trained parameter as a rank gathers it
    largest: int  # of any parameter
    adapters: int  # values of all adapters over all ranks; 0 without

    @property
    def all(self) -> int:
        return self.trained + self.frozen


def rank_shards(shapes: ModelShapes, learner: LearnerConfig) -> RankShards:
    """The shards of a rank. ZeRO-3 pads every parameter to a multiple of the ranks."""
    tensors, ranks = shapes.tensors(), learner.ranks
    whole = sum(count * -(-tensor.size // ranks) for count, tensor in tensors)
    largest = max(gathered_size(tensor, learner) for _, tensor in tensors)
    if learner.lora:
        adapters = [(count, size) for count, tensor in tensors for size in adapter_sizes(tensor, learner)]
        return RankShards(
            trained=sum(count * -(-size // ranks) for count, size in adapters),
            frozen=whole,
            muon=0,
            largest_trained=max((size for _, size in adapters), default=0),
            largest=largest,
            adapters=sum(count * size for count, size in adapters),
        )
    matrices = [
        (count, tensor)
        for count, tensor in tensors
        if len(tensor.shape) == 2 and tensor.role not in ("embedding", "head")
    ]
    return RankShards(
        trained=whole,
        frozen=0,
        muon=sum(count * -(-tensor.size // ranks) for count, tensor in matrices) if learner.optimizer == "muon" else 0,
        largest_trained=largest,
        largest=largest,
        adapters=0,
    )


def gathered_size(tensor: TensorShape, learner: LearnerConfig) -> int:
    """Values of a parameter where a module computes with it. With expert parallelism a rank has some of the experts."""
    divided = learner.expert_parallel if tensor.role == "experts" else None
    return tensor.size // (divided or 1)


def adapter_sizes(tensor: TensorShape, learner: LearnerConfig) -> list[int]:
    """Values of A [rank, in] and B [out, rank] beside a matrix that `learner.lora.targets` names; else nothing."""
    lora, name = learner.lora, tensor.name.removesuffix(".weight")
    if lora is None or len(tensor.shape) != 2 or not _is_target(name, lora.targets):
        return []
    outputs, inputs = tensor.shape
    return [lora.rank * inputs, outputs * lora.rank]


def _is_target(name: str, targets: list[str]) -> bool:
    return any(name == target or name.endswith(f".{target}") for target in targets)
