"""Log-probabilities of given tokens, without ever holding the [T, V] logits of a batch.

The loop runs over chunks of rows. A chunk's logits go through the softmax in blocks that stay in a processor's cache:
1.6 times as fast for a head on CPUs. The backward pass starts at the last chunk, whose logits the forward pass keeps,
and computes those of the others again: a batch of one chunk never computes twice. Peak memory is one chunk of logits.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

CHUNK_BYTES = 256 << 20  # in bfloat16 2,730 rows at a vocabulary of 49k, 882 at 152k; in float32 half
GPU_CHUNK_BYTES = 1 << 30  # in float32; every chunk reads and writes the head's gradient [V, H], slow on a GPU
BLOCK = 1 << 20  # logits


class LogprobHead(nn.Module):
    """A language model's head that returns log-probabilities of given tokens instead of logits.

    It takes over the weight of the `nn.Linear` that it replaces, under the same name: checkpoints and ZeRO-3's
    hooks, which gather a module's parameters, see no difference.
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

    Entropy H: d/dlogits = -softmax (log softmax + H) / temperature, computed only if the loss contains an entropy.
    """

    @staticmethod
    def forward(
        ctx: Any, hidden: Tensor, weight: Tensor, targets: Tensor, temperature: float, dtype: torch.dtype
    ) -> tuple[Tensor, Tensor]:
        logprobs = torch.empty(len(hidden), dtype=torch.float32, device=hidden.device)
        entropies = torch.empty_like(logprobs)
        matrix, logits = weight.to(dtype), None
        with _tensor_cores(hidden):
            for chunk, *columns in _chunks(matrix, hidden, targets, logprobs, entropies):
                logits = None  # frees the previous chunk's logits before the next product
                logits = chunk.to(dtype) @ matrix.T
                _measure(logits, temperature, *columns)
        # Keeps the parameter, not its data: ZeRO-3 frees the data here and gathers it again for the backward pass.
        ctx.weight, ctx.temperature, ctx.dtype, ctx.last_logits = weight, temperature, dtype, logits
        ctx.save_for_backward(hidden, targets, entropies)
        ctx.set_materialize_grads(False)
        return logprobs, entropies

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor | None) -> tuple[Tensor | None, ...]:
        grad_logprobs, grad_entropies = gradients
        hidden, targets, entropies = ctx.saved_tensors
        matrix, grad_hidden = ctx.weight.to(ctx.dtype), torch.empty_like(hidden)
        grad_weight: Tensor | None = None  # [V, H] float32, the sum over chunks; a frozen head has none
        grad_logprobs = torch.zeros_like(entropies) if grad_logprobs is None else grad_logprobs / ctx.temperature
        columns = [hidden, grad_hidden, targets, grad_logprobs]
        if grad_entropies is not None:
            columns += [entropies, grad_entropies / ctx.temperature]
        with _tensor_cores(hidden):
            for chunk, grad_chunk, *rest in reversed(_chunks(matrix, *columns)):
                logits, ctx.last_logits = ctx.last_logits, None
                if logits is None:
                    logits = chunk.to(ctx.dtype) @ matrix.T
                _to_gradient(logits, ctx.temperature, *rest)
                grad_chunk.copy_(logits @ matrix)
                if grad_weight is not None and ctx.dtype == torch.float32:
                    grad_weight.addmm_(logits.T, chunk.float())  # in place: no second [V, H]
                elif ctx.needs_input_grad[1]:
                    product = logits.T @ chunk.to(ctx.dtype)
                    grad_weight = product.float() if grad_weight is None else grad_weight.add_(product)
        return grad_hidden, None if grad_weight is None else grad_weight.to(ctx.weight.dtype), None, None, None


def _measure(logits: Tensor, temperature: float, *columns: Tensor) -> None:
    """From logits [n, V] and targets [n], writes log-probabilities and entropies into the other two columns."""
    for block, targets, logprobs, entropies in _blocks(logits, *columns):
        log_softmax = _scaled(block, temperature).log_softmax(1)
        logprobs.copy_(log_softmax.gather(1, targets[:, None])[:, 0])
        entropies.copy_(-log_softmax.exp().mul_(log_softmax).sum(1))


def _to_gradient(logits: Tensor, temperature: float, *columns: Tensor) -> None:
    """Overwrites logits [n, V] with the loss's gradient by them.

    Columns [n]: targets, the gradient by log-probabilities; and where a loss has them, entropies and the gradient by
    entropies.
    """
    for block, targets, grad_logprobs, *entropy in _blocks(logits, *(column[:, None] for column in columns)):
        if entropy:
            log_softmax = _scaled(block, temperature).log_softmax(1)
            gradient = log_softmax.exp().mul_(log_softmax.add_(entropy[0]).mul_(-entropy[1]).sub_(grad_logprobs))
        else:
            gradient = _scaled(block, temperature).softmax(1).mul_(-grad_logprobs)
        block.copy_(gradient.scatter_add_(1, targets, grad_logprobs))


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    return logits.float() / temperature if temperature != 1 else logits.float()


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
