"""Direct Preference Optimization."""

from __future__ import annotations

from typing import TYPE_CHECKING, ClassVar, Literal

from pydantic import Field

from rlframe.algorithm.base import Lesson
from rlframe.algorithm.row_loss import RowLoss, compared

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.training import GroupRecord


class DPO(RowLoss):
    """Direct Preference Optimization (Rafailov et al., 2023, arXiv:2305.18290, eq. 7): -log sigmoid(margin).

    The margin is beta times the difference of two log-ratios to the reference, the chosen answer's and the rejected
    one's. `likelihood_weight` times the chosen answer's mean -log pi of a token is added (Pang et al., 2024,
    arXiv:2404.19733), without which both answers may become less likely.
    """

    beta: float = Field(gt=0)
    likelihood_weight: float = Field(ge=0)
    learns_from: ClassVar[Lesson] = "comparisons"
    compares_with_reference: ClassVar[bool] = True
    figures: ClassVar[tuple[str, ...]] = ("chosen", "rejected", "margin", "accuracy")

    def losses(self, values: list[Tensor], group: GroupRecord) -> Tensor:  # -> [1]
        loss = self.preference_loss(self.margin(values, group)) - self.likelihood_weight * values[0].mean()
        return loss[None]

    def measure(self, values: list[Tensor], group: GroupRecord) -> dict[str, Tensor]:
        return compared(values[0].sum(), values[1].sum(), self.margin(values, group))

    def margin(self, values: list[Tensor], group: GroupRecord) -> Tensor:  # -> []
        assert group.reference is not None, "the reference's sums come with the rows"
        chosen, rejected = map(self.log_ratio, values, group.reference)
        return self.beta * (chosen - rejected)

    def log_ratio(self, logprobs: Tensor, reference: float) -> Tensor:
        """[L] by the policy, the sum by the reference -> []."""
        return logprobs.sum() - reference

    def preference_loss(self, margin: Tensor) -> Tensor:  # [] -> []
        from torch.nn.functional import logsigmoid

        return -logsigmoid(margin)


class DPONorm(DPO):
    """DPO whose log-ratios are means over an answer's tokens, so that long answers weigh no more (Tulu 3: Lambert et
    al., 2024, arXiv:2411.15124): beta is then 5 or 10, not 0.1.
    """

    name: Literal["dpo_norm"]

    def log_ratio(self, logprobs: Tensor, reference: float) -> Tensor:
        return (logprobs.sum() - reference) / len(logprobs)


class IPO(DPONorm):
    """Identity Preference Optimization (Azar et al., 2023, arXiv:2310.12036, eq. 17): (ratio - 1 / (2 beta))^2.

    The ratio is the difference of mean log-ratios of a token, which the authors confirm to be meant (TRL's notes).
    """

    name: Literal["ipo"]

    def preference_loss(self, margin: Tensor) -> Tensor:
        return (margin / self.beta - 1 / (2 * self.beta)) ** 2
