"""Log-probabilities of the tokens at hand, without ever holding [T, V] logits.

The head's product and its gradients are computed chunk by chunk, the softmax in between in float32 and smaller blocks,
and all but the last chunk's product once more in the backward pass, which begins where the forward pass ended: so peak
memory is about one chunk's logits, whatever the vocabulary and the batch.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn
from torch.autograd import Function

LOGITS_BYTES = 256 << 20  # of a chunk: in bfloat16 2,730 rows at a vocabulary of 49k, 882 at 152k; in float32 half
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
                logits: Tensor | None = None  # those of the chunk before go before this one's come
                logits = hidden[chunk].to(dtype) @ cast.T
                _tell(logits, temperature, targets[chunk], logprobs[chunk], entropies[chunk])
        # The parameter itself is kept, not its data: under ZeRO-3 the data is gone by now, and gathered again
        # before the backward pass.
        ctx.weight, ctx.temperature, ctx.dtype = weight, temperature, dtype
        ctx.last_logits = logits
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
        grad_weight: Tensor | None = None  # [V, H] float32, the sum over chunks; a frozen head has none
        with _tensor_cores(hidden):
            for chunk in reversed(_chunks(hidden, cast)):
                grad_logits, ctx.last_logits = ctx.last_logits, None  # logits, until they become their gradient
                if grad_logits is None:
                    grad_logits = hidden[chunk].to(ctx.dtype) @ cast.T
                of_entropy = None if of_entropies is None else of_entropies[chunk]
                _to_gradient(
                    grad_logits, ctx.temperature, targets[chunk], of_targets[chunk], entropies[chunk], of_entropy
                )
                grad_hidden[chunk] = (grad_logits @ cast).to(hidden.dtype)
                if ctx.needs_input_grad[1]:
                    grad_weight = _with_part(grad_weight, grad_logits.T, hidden[chunk].to(ctx.dtype))
        return grad_hidden, None if grad_weight is None else grad_weight.to(ctx.weight.dtype), None, None, None


def _with_part(total: Tensor | None, grad_logits: Tensor, hidden: Tensor) -> Tensor:
    """The sum of the chunks before, None of none, and of this one's [V, n] and [n, H] -> [V, H] float32."""
    if total is None:
        return (grad_logits @ hidden).float()
    if hidden.dtype == torch.float32:  # added in place: no second [V, H]
        return total.addmm_(grad_logits, hidden)
    return total.add_(grad_logits @ hidden)


def _chunks(hidden: Tensor, weight: Tensor) -> list[slice]:
    """Rows of [N, H] whose logits make one chunk, N in all."""
    held = GPU_LOGITS_BYTES // 4 if hidden.is_cuda else LOGITS_BYTES // weight.element_size()
    return _cut(len(hidden), held // len(weight))


def _blocks(logits: Tensor) -> list[slice]:
    """Rows of a chunk's [n, V] that make one block; a GPU's chunk is one."""
    return _cut(len(logits), len(logits) if logits.is_cuda else BLOCK // logits.shape[1])


def _cut(rows: int, size: int) -> list[slice]:
    """As few parts of at most `size` rows as there can be, alike to a row; of no rows one, so its gradient is 0."""
    parts = max(1, math.ceil(rows / max(1, size)))
    return [slice(rows * part // parts, rows * (part + 1) // parts) for part in range(parts)]


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


def _scaled(logits: Tensor, temperature: float) -> Tensor:
    """[n, V] float32."""
    logits = logits.float()
    return logits / temperature if temperature != 1 else logits


def _tell(logits: Tensor, temperature: float, targets: Tensor, logprobs: Tensor, entropies: Tensor) -> None:
    """Puts what logits [n, V] say of targets [n] into the last two, [n] each."""
    for rows in _blocks(logits):
        log_softmax = _scaled(logits[rows], temperature).log_softmax(1)
        logprobs[rows] = log_softmax.gather(1, targets[rows, None])[:, 0]
        entropies[rows] = -log_softmax.exp().mul_(log_softmax).sum(1)


def _to_gradient(
    logits: Tensor,
    temperature: float,
    targets: Tensor,
    of_targets: Tensor,
    entropies: Tensor,
    of_entropies: Tensor | None,
) -> None:
    """Puts the loss's gradient in place of logits [n, V]; `of_*` [n] are its gradients by what they make / temperature.

    A GPU's only block is the whole chunk: two such in float32 are held at most, and none is left.
    """
    for rows in _blocks(logits):
        if of_entropies is None:
            gradient = _of_targets(_scaled(logits[rows], temperature).softmax(1), targets[rows], of_targets[rows])
        else:
            log_softmax = _scaled(logits[rows], temperature).log_softmax(1)
            probabilities = log_softmax.exp()
            by_entropy = log_softmax.add_(entropies[rows, None]).mul_(probabilities).mul_(-of_entropies[rows, None])
            gradient = _of_targets(probabilities, targets[rows], of_targets[rows]).add_(by_entropy)
        logits[rows] = gradient


def _of_targets(probabilities: Tensor, targets: Tensor, of_targets: Tensor) -> Tensor:
    """(onehot(target) - softmax) times what the loss has of each target's log-probability, in place."""
    return probabilities.mul_(-of_targets[:, None]).scatter_add_(1, targets[:, None], of_targets[:, None])
