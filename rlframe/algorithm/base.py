"""`Algorithm`: validated hyper-parameters and four pure methods."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar

from rlframe.schema import Config

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.types import ScoredGroup, TrainBatch


class Algorithm(Config):
    """A policy-gradient algorithm: advantages, token weights and a token loss.

    The loop and the learner call these methods and never look at the name. A new algorithm is a file with a subclass,
    an entry in `rlframe.algorithm.BUILTIN` and a YAML file; an algorithm from outside the package is named by its
    import path: `algorithm.name=my_algorithms.py:Mine`.
    """

    name: str

    # True: a trajectory of advantage 0 has no gradient, so the learner skips it (its length still counts in the token
    # weights). An algorithm whose loss has terms without the advantage sets False.
    skips_zero_advantage: ClassVar[bool] = True

    @abstractmethod
    def advantages(self, group: ScoredGroup) -> Tensor | Sequence[Tensor]:
        """The advantages of a prompt's G trajectories, G >= 2.

        `group` holds only trajectories with a reward and a sampled token: `group.rewards` [G] (`ops.rewards(group)` as
        a tensor), `group.verdicts` by reward name, `group.lengths` and `group.finish_reasons`. Returns [G] float32, or
        G tensors with one advantage for each sampled token of the trajectory.
        """

    def over_step(self, advantages: Tensor) -> Tensor:
        """[N] advantages of all trajectories (or tokens) of a step -> [N]: normalisation beyond a group."""
        return advantages

    @abstractmethod
    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:
        """The weight of each token of a trajectory, for the N trajectories of an update.

        `lengths` [N] float32 counts the sampled tokens, `prompts` [N] int64 is the index of the trajectory's prompt
        among the update's prompts. Returns [N] float32: a mean over tokens is 1 / lengths.sum() for every trajectory.
        """

    @abstractmethod
    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:
        """[T] log-probabilities by the current policy -> [T] loss of each token before weighting.

        Ratios are against `batch.old_logprobs`. Only tokens whose loss weight is not 0 count.
        """
