"""Log-probabilities of the tokens at hand, without ever holding [T, V] logits.

The head's product and its gradients are computed chunk by chunk, the softmax in between in float32 and smaller blocks,
and once more in the backward pass, so peak memory is about one chunk's logits, whatever the vocabulary and the batch.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

LOGITS_BYTES = 128 << 20  # of a chunk: in bfloat16 1,365 rows at a vocabulary of 49k, 441 at 152k; in float32 half
GPU_LOGITS_BYTES = 1 << 30  # in float32; every chunk reads and writes the head's gradient [V, H], which a GPU feels
BLOCK = 1 << 20  # logits that go through softmax to their gradient in float32 while a processor's cache holds them


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
            for chunk in _chunks(hidden, cast):
                logits = hidden[chunk].to(dtype) @ cast.T
                for rows, of_rows in _blocks(chunk, logits):
                    log_softmax = _log_softmax(of_rows, temperature)
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
        of_entropies = None if grad_entropies is None else grad_entropies / ctx.temperature
        grad_hidden = torch.empty_like(hidden)
        grad_weight = None
        if ctx.needs_input_grad[1]:  # a frozen head has none
            grad_weight = torch.zeros(cast.shape, dtype=torch.float32, device=hidden.device)
        with _tensor_cores(hidden):
            for chunk in _chunks(hidden, cast):
                grad_logits = hidden[chunk].to(ctx.dtype) @ cast.T  # logits, until each block becomes their gradient
                for rows, of_rows in _blocks(chunk, grad_logits):
                    of_entropy = None if of_entropies is None else of_entropies[rows]
                    _to_gradient(of_rows, ctx.temperature, targets[rows], of_targets[rows], entropies[rows], of_entropy)
                grad_hidden[chunk] = (grad_logits @ cast).to(hidden.dtype)
                if grad_weight is None:
                    continue
                if ctx.dtype == torch.float32:  # added in place: no second [V, H]
                    grad_weight.addmm_(grad_logits.T, hidden[chunk].float())
                else:
                    grad_weight += grad_logits.T @ hidden[chunk].to(ctx.dtype)
        return grad_hidden, None if grad_weight is None else grad_weight.to(ctx.weight.dtype), None, None, None


def _chunks(hidden: Tensor, weight: Tensor) -> list[slice]:
    """Rows of [N, H] whose logits make one chunk, N in all."""
    held = GPU_LOGITS_BYTES // 4 if hidden.is_cuda else LOGITS_BYTES // weight.element_size()
    return _cut(slice(0, len(hidden)), held // len(weight))


def _blocks(chunk: slice, logits: Tensor) -> Iterator[tuple[slice, Tensor]]:
    """Rows of the batch that make one block, and their part of a chunk's [n, V]; a GPU's chunk is one block."""
    for rows in _cut(chunk, len(logits) if logits.is_cuda else BLOCK // logits.shape[1]):
        yield rows, logits[rows.start - chunk.start : rows.stop - chunk.start]


def _cut(rows: slice, size: int) -> list[slice]:
    size = max(1, size)
    return [slice(start, min(start + size, rows.stop)) for start in range(rows.start, rows.stop, size)]


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


def _log_softmax(logits: Tensor, temperature: float) -> Tensor:
    logits = logits.float()
    return torch.log_softmax(logits / temperature if temperature != 1 else logits, dim=1)


def _to_gradient(
    logits: Tensor,
    temperature: float,
    targets: Tensor,
    of_targets: Tensor,
    entropies: Tensor,
    of_entropy: Tensor | None,
) -> None:
    """Puts the loss's gradient in place of logits [n, V]; `of_*` [n] are its gradients by what they make / temperature.

    A function of its own, so that no [n, V] in float32 is left when it is done.
    """
    log_softmax = _log_softmax(logits, temperature)
    by_entropy = None
    if of_entropy is not None:
        by_entropy = log_softmax.exp().neg_() * (log_softmax + entropies[:, None])
        by_entropy *= of_entropy[:, None]
    gradient = log_softmax.exp_().mul_(-of_targets[:, None])
    gradient.scatter_add_(1, targets[:, None], of_targets[:, None])
    logits.copy_(gradient if by_entropy is None else gradient.add_(by_entropy))
