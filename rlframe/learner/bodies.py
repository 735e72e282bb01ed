"""A rank's training samples: planned samples with the tokens of their bodies, each body fetched once."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

from rlframe.batch.collate import neighbours
from rlframe.batch.sequences import to_train_sample
from rlframe.errors import BodyLost
from rlframe.training import Packing, PlannedSample, TrainSample
from rlframe.types import ScoredGroup


def to_micro_batches(
    minibatches: Sequence[Sequence[Sequence[PlannedSample | TrainSample]]], packing: Packing
) -> list[list[list[TrainSample]]]:
    """[minibatches][micro-batches][samples] with their tokens, each micro-batch in the order to collate."""
    bodies = Bodies(sample for share in minibatches for samples in share for sample in samples)

    def micro_batch(samples: Sequence[PlannedSample | TrainSample]) -> list[TrainSample]:
        built = bodies.build(samples)
        return [built[index] for index in neighbours(built, packing)]

    return [[micro_batch(samples) for samples in share] for share in minibatches]


class Bodies:
    """The scored groups of planned samples. A body is a reference to the object store, or the scored group itself."""

    def __init__(self, samples: Iterable[PlannedSample | TrainSample]) -> None:
        """Fetches the bodies of all samples at once. Raises BodyLost."""
        self._fetched = _fetch(
            {
                sample.body: sample.prompt_id
                for sample in samples
                if isinstance(sample, PlannedSample) and not isinstance(sample.body, ScoredGroup)
            }
        )

    def build(self, samples: Sequence[PlannedSample | TrainSample]) -> list[TrainSample]:
        """The training samples, in order; a sample that has its tokens stays as it is."""
        return [
            to_train_sample(sample, self._group(sample)) if isinstance(sample, PlannedSample) else sample
            for sample in samples
        ]

    def _group(self, sample: PlannedSample) -> ScoredGroup:
        return sample.body if isinstance(sample.body, ScoredGroup) else self._fetched[sample.body]


def _fetch(prompts: dict[Any, str]) -> dict[Any, ScoredGroup]:
    """Reference -> group, of references to the object store; `prompts`: reference -> prompt id."""
    if not prompts:
        return {}
    import ray
    from ray.exceptions import ObjectLostError

    try:
        return dict(zip(prompts, ray.get(list(prompts)), strict=True))
    except ObjectLostError as error:
        lost = next((prompt for body, prompt in prompts.items() if body.hex() == error.object_ref_hex), "?")
        raise BodyLost(
            f"the tokens of prompt {lost} are lost: the process or the machine that sampled them has died; go on from "
            "the last checkpoint, with resume="
        ) from error
