"""`Scale`: what a model does with its head's product before the softmax."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any, NamedTuple

if TYPE_CHECKING:
    from torch import Tensor


class Scale(NamedTuple):
    """Turns a head's product x into the logits that the softmax takes, cap * tanh(factor * x / cap).

    Granite divides its logits, Cohere multiplies them, Gemma caps them; the sampling temperature divides them too.

    >>> Scale(factor=0.5).logits(torch.tensor([4.0, -2.0]))
    tensor([ 2., -1.])
    """

    factor: float = 1.0
    cap: float | None = None  # None: factor * x

    def cooled(self, temperature: float) -> Scale:
        """The same logits divided by a sampling temperature."""
        return Scale(factor=self.factor / temperature, cap=self.cap and self.cap / temperature)

    def logits(self, product: Tensor) -> Tensor:
        """The logits in float32, in a new tensor or, where nothing changes, in the product itself."""
        product = product.float()
        if self.cap is not None:
            return (product * (self.factor / self.cap)).tanh_().mul_(self.cap)
        return product if self.factor == 1 else product * self.factor


def scale_of(config: Any) -> Scale:
    """The scale in the config of a causal language model of transformers.

    Every model type is named by the key that its `ForCausalLM.forward` reads. Types that do something else to their
    logits fail the self-test at the start of a run.
    """
    text = config.get_text_config(decoder=True)
    factor = 1.0
    if (divisor := getattr(text, "logits_scaling", None)) is not None:  # Granite, MiniCPM3
        factor = 1 / divisor
    for key in ("logit_scale", "lm_head_multiplier"):  # Cohere; Falcon-H1
        if isinstance(multiplier := getattr(text, key, None), int | float):
            factor *= multiplier
    cap = getattr(text, "final_logit_softcapping", None) or getattr(text, "logits_soft_cap", None)
    return Scale(factor=factor, cap=cap)  # Gemma, NanoChat; RecurrentGemma
