"""`RowLoss`: an algorithm whose loss is a function of what the policy answers for a whole row."""

from __future__ import annotations

from abc import abstractmethod
from typing import TYPE_CHECKING, ClassVar

from rlframe.algorithm import ops
from rlframe.algorithm.base import Algorithm, Question

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord, TrainBatch


class RowLoss(Algorithm):
    """A mean over rows of `losses`, which compares values of different sequences, or of a sequence's tokens.

    Before a step the ranks compute the values without gradient. A token's advantage is minus the derivative of
    `losses` by its value, and the ranks minimise -advantage * value. At the present policy this has the gradient of
    `losses` itself, so the answers of a row need not share a micro-batch. DPO with beta = 0.1, of a row whose margin
    is still 0: every token of the chosen answer has the advantage 0.05, and every token of the rejected one -0.05.
    """

    asks: ClassVar[Question | None] = "logprobs"
    compares_with_reference: ClassVar[bool] = False  # `group.reference` is set
    figures: ClassVar[tuple[str, ...]] = ()  # keys of `measure` beside "loss"
    has_ratio: ClassVar[bool] = False
    skips_zero_advantage: ClassVar[bool] = False

    @abstractmethod
    def losses(self, values: list[Tensor], group: GroupRecord) -> Tensor:
        """[G] of [sampled tokens] float64 -> [n] losses of a row, n of them in the mean over rows or labels.

        A chosen answer comes before the rejected one.
        """

    @abstractmethod
    def measure(self, values: list[Tensor], group: GroupRecord) -> dict[str, Tensor]:
        """The `figures` of a row, each [n], for metrics and the held-out evaluation."""

    def advantages(self, group: GroupRecord) -> list[Tensor]:  # -> [G] of [sampled tokens]
        import torch  # not above: a config is checked without it

        values = [value.requires_grad_() for value in _values(group)]
        gradients = torch.autograd.grad(self.losses(values, group).sum(), values)
        return [-gradient.float() for gradient in gradients]

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.prompt_sum(lengths, prompts)

    def token_loss(self, logprobs: Tensor, batch: TrainBatch) -> Tensor:  # [T] -> [T]
        return -batch.advantages * logprobs

    def means(self, groups: list[GroupRecord]) -> dict[str, float]:
        """The loss and the figures of rows, of which `asked` is set: means over all of them."""
        import torch

        rows = []
        for group in groups:
            values = _values(group)
            rows.append({"loss": self.losses(values, group)} | self.measure(values, group))
        return {name: float(torch.cat([row[name] for row in rows]).double().mean()) for name in rows[0]}


def _values(group: GroupRecord) -> list[Tensor]:
    import torch

    assert group.asked is not None, "LearnerGroup.ask comes before the algorithm"
    return [torch.from_numpy(values).double() for values in group.asked]


def compared(chosen: Tensor, rejected: Tensor, margin: Tensor) -> dict[str, Tensor]:
    """The figures of a comparison; `accuracy` is 1 where the margin is above 0. Arguments have the shape []."""
    figures = {"chosen": chosen, "rejected": rejected, "margin": margin, "accuracy": (margin > 0).double()}
    return {name: value[None] for name, value in figures.items()}
