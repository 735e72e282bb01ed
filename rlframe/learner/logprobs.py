"""Log-probabilities of the tokens at hand, without ever holding [T, V] logits.

The head's product, its softmax in float32 and their gradients are computed chunk by chunk, and once more in
the backward pass, so peak memory is a few times one chunk's logits, whatever the vocabulary and the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

LOGITS_BYTES = 128 << 20  # of a chunk in float32: 682 rows at a vocabulary of 49k, 220 at 152k
GPU_LOGITS_BYTES = 1 << 30  # every chunk reads and writes the head's gradient [V, H], which a GPU feels


class LogprobHead(nn.Module):
    """A language model's head that answers with log-probabilities of given tokens.

    It takes over the weight of the `nn.Linear` that it stands in for, under the same name, so checkpoints and
    ZeRO-3's gathering (whose hooks sit on modules) see no difference.
    """

    def __init__(self, linear: nn.Linear, compute_dtype: torch.dtype) -> None:
        super().__init__()
        if linear.bias is not None:
            raise ValueError("a language-model head with a bias is not supported")
        self.weight = linear.weight  # [V, H]
        self.compute_dtype = compute_dtype

    def forward(self, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Hidden states [N, H] and token ids [N] -> log-probabilities [N], entropies [N], float32."""
        return _TokenLogprobs.apply(hidden, self.weight, targets, temperature, self.compute_dtype)


class _TokenLogprobs(Function):
    """log softmax(h W^T / temperature)[target]; d/dlogits = (onehot(target) - softmax) / temperature.

    Entropy H: d/dlogits = -softmax (log softmax + H) / temperature, computed only where something asks for it.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        entropies = torch.empty_like(logprobs)
        cast = weight.to(dtype)
        with _tensor_cores(hidden):
            for rows in _chunks(hidden, len(weight)):
                log_softmax = _log_softmax(hidden[rows], cast, temperature)
                logprobs[rows] = log_softmax.gather(1, targets[rows, None])[:, 0]
                entropies[rows] = -log_softmax.exp().mul_(log_softmax).sum(1)
        # The parameter itself is kept, not its data: under ZeRO-3 the data is gone by now, and gathered again
        # before the backward pass.
        ctx.weight, ctx.temperature, ctx.dtype = weight, temperature, dtype
        ctx.save_for_backward(hidden, targets, entropies)
        ctx.set_materialize_grads(False)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, grad_logprobs: Tensor | None, grad_entropies: Tensor | None) -> tuple[Tensor | None, ...]:
        hidden, targets, entropies = ctx.saved_tensors
        cast = ctx.weight.to(ctx.dtype)
        of_targets = torch.zeros_like(entropies) if grad_logprobs is None else grad_logprobs / ctx.temperature
        grad_hidden = torch.empty_like(hidden)
        grad_weight = None
        if ctx.needs_input_grad[1]:  # a frozen head has none
            grad_weight = torch.zeros(cast.shape, dtype=torch.float32, device=hidden.device)
        with _tensor_cores(hidden):
            for rows in _chunks(hidden, len(cast)):
                log_softmax = _log_softmax(hidden[rows], cast, ctx.temperature)
                of_entropy = None
                if grad_entropies is not None:
                    of_entropy = log_softmax.exp().neg_() * (log_softmax + entropies[rows, None])
                    of_entropy *= grad_entropies[rows, None] / ctx.temperature
                grad_logits = log_softmax.exp_().mul_(-of_targets[rows, None])
                grad_logits.scatter_add_(1, targets[rows, None], of_targets[rows, None])
                if of_entropy is not None:
                    grad_logits += of_entropy
                grad_logits = grad_logits.to(ctx.dtype)
                grad_hidden[rows] = (grad_logits @ cast).to(hidden.dtype)
                if grad_weight is None:
                    continue
                if ctx.dtype == torch.float32:  # added in place: no second [V, H]
                    grad_weight.addmm_(grad_logits.T, hidden[rows].float())
                else:
                    grad_weight += grad_logits.T @ hidden[rows].to(ctx.dtype)
        return grad_hidden, None if grad_weight is None else grad_weight.to(ctx.weight.dtype), None, None, None


def _chunks(hidden: Tensor, vocabulary: int) -> list[slice]:
    """Rows of [N, H] whose logits make one chunk, N in all."""
    rows = max(1, (GPU_LOGITS_BYTES if hidden.is_cuda else LOGITS_BYTES) // (4 * vocabulary))
    return [slice(start, min(start + rows, len(hidden))) for start in range(0, len(hidden), rows)]


@contextmanager
def _tensor_cores(hidden: Tensor) -> Iterator[None]:
    """Inside, a GPU multiplies float32 that came from bfloat16 on its tensor cores (TF32), several times as fast.

    TF32's 10 bits hold bfloat16's 7, so log-probabilities lose nothing; the logits' gradient is rounded to 10 bits.
    """
    before = torch.get_float32_matmul_precision()
    if hidden.is_cuda and hidden.dtype == torch.bfloat16:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(before)


def _log_softmax(hidden: Tensor, weight: Tensor, temperature: float) -> Tensor:
    logits = (hidden.to(weight.dtype) @ weight.T).float()
    return torch.log_softmax(logits / temperature if temperature != 1 else logits, dim=1)
