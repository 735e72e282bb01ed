"""`Algorithm`: validated hyper-parameters and pure methods."""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Sequence
from typing import TYPE_CHECKING, ClassVar, Literal, TypeAlias

from rlframe.algorithm import ops
from rlframe.schema import Config

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


Lesson: TypeAlias = Literal["rollouts", "demonstrations", "comparisons", "assessments"]
Question: TypeAlias = Literal["logprobs", "scores"]  # a score comes from a head of its own


class Algorithm(Config):
    """A policy-gradient algorithm: advantages, token weights and a token loss.

    The loop and the learner call these methods and never look at the name. A new algorithm is a file with a subclass,
    an entry in `rlframe.algorithm.BUILTIN` and a YAML file; an algorithm from outside the package is named by its
    import path: `algorithm.name=my_algorithms.py:Mine`.
    """

    name: str

    # Rollouts are the groups of `rlframe train`; the others are the rows of `rlframe tune`.
    learns_from: ClassVar[Lesson] = "rollouts"

    # Values of sampled tokens that the ranks compute before a step, in a pass without gradient, for `group.asked`.
    # "scores": the learner trains a head with a score. None: the algorithm needs no values; others extend `RowLoss`.
    asks: ClassVar[Question | None] = None

    # True: a trajectory of advantage 0 has no gradient, so the learner skips it (its length still counts in the token
    # weights). An algorithm whose loss has terms without the advantage sets False.
    skips_zero_advantage: ClassVar[bool] = True

    # True: an advantage compares the completions of a prompt, so a group needs two. False: one completion is enough.
    compares_completions: ClassVar[bool] = True

    # True: the loss has the ratio pi / pi_old, which makes up for tokens of an older policy.
    has_ratio: ClassVar[bool] = True

    # True: engine and learner differ by more than the clip allows, so ratios must be against the learner's own
    # log-probabilities, which a correction provides.
    needs_correction: ClassVar[bool] = False

    # True: a token's advantage moves the probability of this token alone. False: the loss has a ratio of the whole
    # sequence, so every token of it moves.
    judges_tokens: ClassVar[bool] = True

    # True: advantages come from `group.terms`, so a KL penalty that is subtracted from `group.rewards` has no effect.
    reads_terms: ClassVar[bool] = False

    @abstractmethod
    def advantages(self, group: GroupRecord) -> Tensor | Sequence[Tensor]:
        """The advantages of a prompt's G trajectories, G >= 2 unless `compares_completions` is False.

        `group` holds only trajectories with a reward and a sampled token: `group.rewards` [G] (`ops.rewards(group)` as
        a tensor), `group.terms` with the weight and the scores of each reward, `group.verdicts`, `group.lengths` and
        `group.finish_reasons`. Where the config has a KL in the reward, `group.rewards` have lost its sum over tokens,
        and `ops.rewards_to_go` charges each token only the KL of the tokens from there on. Returns [G] float32, or G
        tensors with one advantage for each sampled token of the trajectory.
        """

    def has_signal(self, group: GroupRecord) -> bool:
        """True if the group, which holds what `advantages` gets, has an advantage other than 0: its rewards differ.

        The run's `dynamic_sampling` replaces the other groups.
        """
        return ops.rewards_differ(group)

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
