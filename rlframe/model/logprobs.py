"""Log-probabilities of given tokens, without ever holding the [T, V] logits of a batch.

The loop runs over chunks of rows. A chunk's logits go through the softmax in blocks that stay in a processor's cache:
1.6 times as fast for a head on CPUs. The backward pass starts at the last chunk, whose logits the forward pass keeps,
and computes those of the others again: a batch of one chunk never computes twice. Peak memory is one chunk of logits.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

from rlframe.model.scale import Scale

CHUNK_BYTES = 256 << 20  # in bfloat16 2,730 rows at a vocabulary of 49k, 882 at 152k; in float32 half
GPU_CHUNK_BYTES = 1 << 30  # in float32; every chunk reads and writes the head's gradient [V, H], slow on a GPU
BLOCK = 1 << 20  # logits


class LogprobHead(nn.Module):
    """A language model's head that returns log-probabilities of given tokens instead of logits.

    It takes over the weight and the bias of the `nn.Linear` that it replaces, under the same names: checkpoints and
    ZeRO-3's hooks, which gather a module's parameters, see no difference.
    """

    def __init__(self, linear: nn.Linear, compute_dtype: torch.dtype, scale: Scale | None = None) -> None:
        """`scale`: what the model does with its head's product; None: nothing."""
        super().__init__()
        self.weight = linear.weight  # [V, H]
        self.bias = linear.bias  # [V] or None
        self.compute_dtype = compute_dtype
        self.scale = scale or Scale()
        self._measure = _measure

    def forward(self, hidden: Tensor, targets: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Hidden states [N, H] and token ids [N] -> log-probabilities [N], entropies [N], float32."""
        scale = self.scale.cooled(temperature)
        return _TokenLogprobs.apply(hidden, self.weight, self.bias, targets, scale, self.compute_dtype, self._measure)

    @contextmanager
    def comparing_with_greedy(self) -> Iterator[None]:
        """Inside, 1 for a token that greedy sampling would choose, and 0 for any other, take the place of entropies.

        Such a forward pass has no gradient.
        """
        self._measure = _measure_greedy
        try:
            yield
        finally:
            self._measure = _measure


class _TokenLogprobs(Function):
    """log softmax(logits)[target] of logits z = scale(h W^T + b); d/dz = onehot(target) - softmax(z).

    Entropy H: d/dz = -softmax(z) (log softmax(z) + H), computed only if the loss contains an entropy.
    """

    @staticmethod
    def forward(
        ctx: Any,
        hidden: Tensor,
        weight: Tensor,
        bias: Tensor | None,
        targets: Tensor,
        scale: Scale,
        dtype: torch.dtype,
        measure: Callable[..., None],
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        entropies = torch.empty_like(logprobs)
        matrix, product = weight.to(dtype), None
        with _tensor_cores(hidden):
            for chunk, *columns in _chunks(matrix, hidden, targets, logprobs, entropies):
                product = None  # frees the previous chunk's product before the next one
                product = _product(chunk, matrix, bias)
                measure(product, scale, *columns)
        # Keeps the parameters, not their data: ZeRO-3 frees the data here and gathers it again for the backward pass.
        ctx.weight, ctx.bias, ctx.scale, ctx.dtype, ctx.last_product = weight, bias, scale, dtype, product
        ctx.save_for_backward(hidden, targets, entropies)
        ctx.set_materialize_grads(False)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_logprobs, grad_entropies = gradients
        hidden, targets, entropies = ctx.saved_tensors
        matrix, grad_hidden = ctx.weight.to(ctx.dtype), torch.empty_like(hidden)
        grad_weight: Tensor | None = None  # [V, H] float32, the sum over chunks; a frozen head has none
        grad_bias: Tensor | None = None  # [V] float32, likewise
        grad_logprobs = torch.zeros_like(entropies) if grad_logprobs is None else grad_logprobs
        columns = [hidden, grad_hidden, targets, grad_logprobs]
        if grad_entropies is not None:
            columns += [entropies, grad_entropies]
        with _tensor_cores(hidden):
            for chunk, grad_chunk, *rest in reversed(_chunks(matrix, *columns)):
                product, ctx.last_product = ctx.last_product, None
                if product is None:
                    product = _product(chunk, matrix, ctx.bias)
                _to_gradient(product, ctx.scale, *rest)
                grad_chunk.copy_(product @ matrix)
                if ctx.needs_input_grad[2]:
                    row = product.sum(0, dtype=torch.float32)
                    grad_bias = row if grad_bias is None else grad_bias.add_(row)
                if grad_weight is not None and ctx.dtype == torch.float32:
                    grad_weight.addmm_(product.T, chunk.float())  # in place: no second [V, H]
                elif ctx.needs_input_grad[1]:
                    change = product.T @ chunk.to(ctx.dtype)
                    grad_weight = change.float() if grad_weight is None else grad_weight.add_(change)
        grad_weight = None if grad_weight is None else grad_weight.to(ctx.weight.dtype)
        grad_bias = None if grad_bias is None else grad_bias.to(ctx.bias.dtype)
        return grad_hidden, grad_weight, grad_bias, None, None, None, None


def _product(hidden: Tensor, matrix: Tensor, bias: Tensor | None) -> Tensor:
    """The head's product [n, V], in the matrix's dtype."""
    product = hidden.to(matrix.dtype) @ matrix.T
    return product if bias is None else product.add_(bias.to(matrix.dtype))


def _measure(product: Tensor, scale: Scale, *columns: Tensor) -> None:
    """From products [n, V] and targets [n], writes log-probabilities and entropies into the other two columns."""
    for block, targets, logprobs, entropies in _blocks(product, *columns):
        log_softmax = scale.logits(block).log_softmax(1)
        logprobs.copy_(log_softmax.gather(1, targets[:, None])[:, 0])
        entropies.copy_(-log_softmax.exp().mul_(log_softmax).sum(1))


def _measure_greedy(product: Tensor, scale: Scale, *columns: Tensor) -> None:
    """The same with 1 or 0 in place of entropies: the target is, or is not, the first of the likeliest tokens."""
    for block, targets, logprobs, greedy in _blocks(product, *columns):
        log_softmax = scale.logits(block).log_softmax(1)
        logprobs.copy_(log_softmax.gather(1, targets[:, None])[:, 0])
        greedy.copy_(log_softmax.argmax(1) == targets)


def _to_gradient(product: Tensor, scale: Scale, *columns: Tensor) -> None:
    """Overwrites the head's product [n, V] with the loss's gradient by it.

    Columns [n]: targets, the gradient by log-probabilities; and where a loss has them, entropies and the gradient by
    entropies.
    """
    for block, targets, grad_logprobs, *entropy in _blocks(product, *(column[:, None] for column in columns)):
        logits = scale.logits(block)
        if entropy:
            log_softmax = logits.log_softmax(1)
            gradient = log_softmax.exp().mul_(log_softmax.add_(entropy[0]).mul_(-entropy[1]).sub_(grad_logprobs))
        else:
            gradient = logits.softmax(1).mul_(-grad_logprobs)
        gradient.scatter_add_(1, targets, grad_logprobs)
        if scale.cap is not None:  # the slope of cap * tanh is 1 - tanh^2
            gradient.mul_(1 - (logits / scale.cap).square_())
        block.copy_(gradient if scale.factor == 1 else gradient.mul_(scale.factor))


def _chunks(matrix: Tensor, *columns: Tensor) -> list[tuple[Tensor, ...]]:
    """`columns` [N, ...] cut into as few equal chunks as keep [n, V] logits within bounds; one chunk for N = 0."""
    on_gpu, rows = matrix.is_cuda, len(columns[0])
    limit = (GPU_CHUNK_BYTES // 4 if on_gpu else CHUNK_BYTES // matrix.element_size()) // len(matrix)
    count = max(1, math.ceil(rows / max(1, limit)))
    return list(zip(*(column.tensor_split(count) for column in columns), strict=True))


def _blocks(logits: Tensor, *columns: Tensor) -> Iterator[tuple[Tensor, ...]]:
    """[n, V] logits and their columns [n], cut into blocks; a GPU's chunk is one block."""
    rows = max(1, len(logits) if logits.is_cuda else BLOCK // logits.shape[1])
    return zip(logits.split(rows), *(column.split(rows) for column in columns), strict=True)


@contextmanager
def _tensor_cores(hidden: Tensor) -> Iterator[None]:
    """On GPUs, float32 products of hidden states from bfloat16 run on tensor cores (TF32), several times as fast.

    TF32's 10 bits hold bfloat16's 7, so log-probabilities lose nothing; the logits' gradient is rounded to 10 bits.
    """
    previous = torch.get_float32_matmul_precision()
    if hidden.is_cuda and hidden.dtype == torch.bfloat16:
        torch.set_float32_matmul_precision("high")
    try:
        yield
    finally:
        torch.set_float32_matmul_precision(previous)
