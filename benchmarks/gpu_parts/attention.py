"""Attention on the GPU against the CPU's, forward and backward. Needs torch only.

FlexAttention's kernels are compiled from our functions of scores and masks; varlen attention is PyTorch's own kernel.
The reference is the learner's attention for CPUs, in float32, of the same rounded inputs.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import NamedTuple

import torch
from torch import Tensor

from benchmarks.gpu_parts import Figure
from rlframe.model.attention import Scoring, by_block_mask, by_boundaries, by_sequence
from rlframe.model.layout import Layout

# Of the worst token, beside its size; a wrong mask makes errors of the size of the values. In bfloat16 PyTorch's
# dense form on a CPU has 0.007 for values and 0.03 for gradients.
VALUES = {torch.float32: 2e-3, torch.bfloat16: 0.04}
GRADIENTS = {torch.float32: 2e-3, torch.bfloat16: 0.1}


class Case(NamedTuple):
    """A kind of attention, with the shapes of a model that has it."""

    name: str
    heads: int
    key_value_heads: int
    dim: int
    value_dim: int
    lengths: list[int]  # own tokens of each sequence
    first_positions: list[int]  # of each sequence's own tokens; above 0: continues the sequence before
    window: int | None = None
    softcap: float | None = None
    sinks: bool = False
    dtype: torch.dtype = torch.bfloat16
    function: Callable[..., Tensor] = by_block_mask


GROUPS = [900, 300, 250, 301, 700, 120, 40], [0, 600, 600, 600, 0, 500, 500]
TINY = [5, 2, 1, 4, 3, 9], [0, 3, 3, 0, 2, 0]
CASES = [
    Case("shared prompts (Qwen3)", 16, 8, 128, 128, *GROUPS),
    Case("the same in float32", 16, 8, 128, 128, *GROUPS, dtype=torch.float32),
    Case("window and cap (Gemma 2)", 8, 4, 256, 256, *GROUPS, window=300, softcap=50.0),
    Case("window and sinks (gpt-oss)", 64, 8, 64, 64, *GROUPS, window=128, sinks=True),
    Case("values of another size (DeepSeek-V3)", 16, 16, 192, 128, *GROUPS),
    Case("many short sequences", 16, 8, 128, 128, TINY[0] * 4, TINY[1] * 4),
    Case("varlen, whole sequences", 16, 8, 128, 128, [1, 900, 128, 7, 513], [0] * 5, function=by_boundaries),
]


def attention(small: bool) -> Iterator[Figure]:
    """Forward and backward of every case; on a CPU forward only, of FlexAttention's dense form."""
    device = "cpu" if small else "cuda"
    for case in CASES:
        if small and case.function is by_boundaries:
            continue
        yield from compare(reduced(case) if small else case, device)
    if not small:
        yield Figure("compiled forms of a case that other batches add", recompilations(CASES[2]), at_most=0)


def reduced(case: Case) -> Case:
    """The case with an eighth of the tokens and a quarter of the heads."""
    return case._replace(
        heads=case.heads // 4,
        key_value_heads=case.key_value_heads // 4,
        lengths=[-(-length // 8) for length in case.lengths],
        first_positions=[begin // 8 for begin in case.first_positions],
        window=case.window and case.window // 8,
    )


def compare(case: Case, device: str) -> Iterator[Figure]:
    layout = laid_out(case)
    inputs = make_inputs(case)
    gradients = device != "cpu"  # FlexAttention's dense form has no backward pass on a CPU
    results, references = (
        run(case, function, layout, inputs, where, dtype, gradients)
        for function, where, dtype in ((case.function, device, case.dtype), (by_sequence, "cpu", torch.float32))
    )
    errors = [worst(result, reference) for result, reference in zip(results, references, strict=True)]
    yield Figure(f"{case.name}: values", errors[0], at_most=VALUES[case.dtype])
    if gradients:
        yield Figure(f"{case.name}: gradients", max(errors[1:]), at_most=GRADIENTS[case.dtype])


def run(
    case: Case, function: Callable[..., Tensor], layout: Layout, inputs: list[Tensor], device: str,
    dtype: torch.dtype, gradients: bool,
) -> list[Tensor]:  # fmt: skip
    """The output, and the gradients of query, key, value and sinks, in float32 on the CPU."""
    *parts, weights = (part.to(device, dtype).requires_grad_(gradients) for part in inputs)
    query, key, value, *sinks = parts
    scoring = Scoring(scale=None, window=case.window, softcap=case.softcap, sinks=sinks[0] if sinks else None)
    output = function(query, key, value, on(layout, device), scoring)
    found = [output]
    if gradients:
        found += torch.autograd.grad((output * weights.detach()).sum(), parts)
    return [part.detach().float().cpu() for part in found]


def worst(result: Tensor, reference: Tensor) -> float:
    """The largest error of a token and head, beside its own size or the root mean square of all, if that is larger."""
    reference, result = (tensor if tensor.ndim > 1 else tensor[:, None] for tensor in (reference, result))
    sizes = reference.norm(dim=-1)
    errors = (result - reference).norm(dim=-1)
    return float((errors / sizes.clamp(min=float(sizes.square().mean().sqrt()))).max())


def recompilations(case: Case) -> float:
    """Compiled forms that two more batches of the case add, of other lengths."""
    from torch._dynamo.utils import counters

    before = counters["stats"]["unique_graphs"]
    for lengths, first_positions in (([1000, 77, 300], [0, 800, 800]), ([640, 640, 131], [0, 0, 600])):
        other = case._replace(lengths=lengths, first_positions=first_positions)
        run(other, other.function, laid_out(other), make_inputs(other), "cuda", other.dtype, True)
    return counters["stats"]["unique_graphs"] - before


def laid_out(case: Case) -> Layout:
    positions = [
        torch.arange(begin, begin + own) for own, begin in zip(case.lengths, case.first_positions, strict=True)
    ]
    return Layout.of(torch.repeat_interleave(torch.tensor(case.lengths)), torch.cat(positions))


def on(layout: Layout, device: str) -> Layout:
    from dataclasses import replace

    return replace(layout, position_ids=layout.position_ids.to(device))


def make_inputs(case: Case) -> list[Tensor]:
    """Query, key, value, sinks where the case has them, and the output's weights in a loss; rounded to its dtype."""
    tokens = sum(case.lengths)
    generator = torch.Generator().manual_seed(0)
    shapes = [(1, case.heads, tokens, case.dim), (1, case.key_value_heads, tokens, case.dim)]
    shapes += [(1, case.key_value_heads, tokens, case.value_dim), *([(case.heads,)] if case.sinks else [])]
    shapes.append((1, case.heads, tokens, case.value_dim))
    return [torch.randn(shape, generator=generator).to(case.dtype).float() for shape in shapes]
