"""Reward models: a head with a score is trained on comparisons, or on labels of answers and of their steps."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlframe.algorithm import ops
from rlframe.algorithm.base import Lesson, Question
from rlframe.algorithm.row_loss import RowLoss, compared

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord


class BradleyTerry(RowLoss):
    """Ranking of two answers by their scores (Ouyang et al., 2022, arXiv:2203.02155, eq. 1): -log sigmoid(c - r - m).

    `margin_scale` times a row's margin is m (Touvron et al., 2023, arXiv:2307.09288, eq. 2). `centering` times
    (c + r)^2 keeps scores near 0 (Eisenstein et al., 2023, arXiv:2312.09244).
    """

    name: Literal["bradley_terry"]
    margin_scale: float = Field(ge=0)
    centering: float = Field(ge=0)
    learns_from: ClassVar[Lesson] = "comparisons"
    asks: ClassVar[Question | None] = "scores"
    figures: ClassVar[tuple[str, ...]] = ("chosen", "rejected", "margin", "accuracy")

    def losses(self, values: list[Tensor], group: GroupRecord) -> Tensor:  # -> [1]
        from torch.nn.functional import logsigmoid

        chosen, rejected = values
        margin = self.margin_scale * float(ops.rewards(group).diff().neg())
        return self.centering * (chosen + rejected) ** 2 - logsigmoid(chosen - rejected - margin)

    def measure(self, values: list[Tensor], group: GroupRecord) -> dict[str, Tensor]:
        [chosen], [rejected] = values
        return compared(chosen, rejected, chosen - rejected)


class Pointwise(RowLoss):
    """Binary cross-entropy of scores and labels, a mean over all labels of the update.

    A label of a whole answer makes a classifier, as of safe answers; a label of each step makes a process reward model
    (Lightman et al., 2023, arXiv:2305.20050), whose labels between 0 and 1 are shares of right continuations.
    """

    name: Literal["pointwise"]
    learns_from: ClassVar[Lesson] = "assessments"
    asks: ClassVar[Question | None] = "scores"
    compares_completions: ClassVar[bool] = False
    figures: ClassVar[tuple[str, ...]] = ("score", "accuracy")

    def losses(self, values: list[Tensor], group: GroupRecord) -> Tensor:  # -> [steps]
        from torch.nn.functional import binary_cross_entropy_with_logits

        [scores] = values
        return binary_cross_entropy_with_logits(scores, scores.new_tensor(group.labels), reduction="none")

    def measure(self, values: list[Tensor], group: GroupRecord) -> dict[str, Tensor]:
        [scores] = values
        return {"score": scores, "accuracy": ((scores > 0) == (scores.new_tensor(group.labels) > 0.5)).double()}

    def token_weights(self, lengths: Tensor, prompts: Tensor) -> Tensor:  # [N], [N] -> [N]
        return ops.token_mean(lengths)
