"""What an algorithm is: validated hyper-parameters and three pure functions, or four."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from rlframe.schema import Config

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import TrainBatch


class Algorithm(Config):
    """Everything the loop asks of an algorithm; the learner never learns its name.

    A new one is a file with a subclass, a line in `rlframe.algorithm.BUILTIN` and a YAML file; one from
    outside the package is named by import path: `algorithm.name=my_algorithms.py:Mine`.
    """

    name: str

    # A completion of advantage 0 then pushes nowhere, and the learner is spared it; its length counts all the
    # same. An algorithm whose loss has terms without the advantage says False.
    skips_zero_advantage: ClassVar[bool] = True

    @abstractmethod
    def advantages(self, rewards: Tensor) -> Tensor:
        """[G] float32 rewards of one prompt's completions (at least 2) -> [G]."""

    def over_step(self, advantages: Tensor) -> Tensor:
        """[N] of all completions of a step -> [N]: for an algorithm that normalises over more than a group."""
        return advantages

    @abstractmethod
    def token_weights(self, lengths: Tensor) -> Tensor:
        """[N] float32 token counts of an update's completions -> [N]: the weight of each token of each."""

    @abstractmethod
    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:
        """[T] of the current policy -> [T] loss of each token before weighting.

        Ratios are against `batch.old_logprobs`. Of a sequence, only tokens whose loss weight is not 0 were drawn.
        """
