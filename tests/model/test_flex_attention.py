"""FlexAttention under our block mask against the definition in float64; the compiled form, and the mask's blocks.

A CPU computes the backward pass by PyTorch's dense form of FlexAttention, from the same functions of scores and masks
that a GPU's kernels are compiled from. Only a GPU can show those kernels: `benchmarks/gpu_check.py` compares them.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest
import torch
from torch.nn.attention import flex_attention as flex

from rlframe.model import attention
from rlframe.model.attention import Scoring, by_block_mask
from tests.tiny import packed
from tests.tiny.packed import GROUP, SHORT, WHOLE, Packed

MORE = Packed([400, 60, 61, 500], [0, 390, 100, 0])  # 1021 tokens
COMPILED = attention._flex(True)


@pytest.fixture
def trained(monkeypatch: pytest.MonkeyPatch) -> None:
    """Lets FlexAttention differentiate on a CPU, where its front door refuses inputs with a gradient."""
    monkeypatch.setattr(flex, "_validate_device", lambda *tensors: None)


@pytest.fixture
def compiled(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """The compiled functions of a GPU, with the kernels that PyTorch's compiler writes for CPUs."""
    monkeypatch.setattr(attention, "_flex", lambda compiled: COMPILED)
    attention._block_mask.cache_clear()
    yield
    attention._block_mask.cache_clear()


@pytest.mark.usefixtures("trained")
@pytest.mark.parametrize(
    "batch, heads, value_dim, scale, window, softcap, has_sinks",
    [
        (GROUP, (3, 3), 16, None, None, None, False),
        (GROUP, (4, 2), 16, None, 140, None, False),
        (GROUP, (4, 2), 16, None, None, 0.8, False),
        (GROUP, (4, 2), 16, None, 140, None, True),
        (GROUP, (4, 1), 24, 0.3, 3, 0.8, True),
        (SHORT, (4, 2), 24, 0.3, None, None, True),
        (SHORT, (4, 1), 8, 0.3, 3, 0.8, True),
        (WHOLE, (4, 2), 24, 0.3, 140, 0.8, True),
    ],
)
def test_values_and_gradients_are_those_of_the_definition(batch, heads, value_dim, scale, window, softcap, has_sinks):
    *parts, weights = packed.inputs(batch, heads, (16, value_dim))
    sinks = torch.linspace(-1, 3, heads[0]) if has_sinks else None
    scoring = Scoring(scale=scale, window=window, softcap=softcap, sinks=sinks)
    leaves = [part.requires_grad_() for part in (*parts, sinks) if part is not None]
    ours = by_block_mask(*parts, batch.layout(), scoring)
    wanted = packed.attend(*parts, batch.visible(window), scale=scale, softcap=softcap, sinks=sinks)
    torch.testing.assert_close(ours.double(), wanted, rtol=1e-5, atol=2e-6)
    gradients = torch.autograd.grad((ours * weights).sum(), leaves)
    for gradient, reference in zip(gradients, torch.autograd.grad((wanted * weights).sum(), leaves), strict=True):
        torch.testing.assert_close(gradient, reference, rtol=1e-4, atol=1e-5)


@pytest.mark.usefixtures("trained")
def test_a_sink_s_gradient_is_minus_its_weight_times_the_output():
    # One token and one key: o = v / (1 + exp(sink - s)). With s = sink that is v / 2, and its slope is -v / 4.
    query, key, value = torch.zeros(1, 1, 1, 4), torch.ones(1, 1, 1, 4), torch.full((1, 1, 1, 4), 8.0)
    sinks = torch.zeros(1, requires_grad=True)
    scoring = Scoring(scale=1.0, window=None, softcap=None, sinks=sinks)
    output = by_block_mask(query, key, value, Packed([1], [0]).layout(), scoring)
    assert output.flatten().tolist() == [4.0] * 4
    output[..., 0].sum().backward()
    assert sinks.grad.tolist() == [-2.0]


@pytest.mark.usefixtures("trained")
def test_sinks_in_bfloat16_cost_two_roundings():
    *parts, _ = packed.inputs(GROUP, (4, 2), (16, 16), torch.bfloat16)
    sinks = torch.linspace(-1, 3, 4).bfloat16()
    ours = by_block_mask(*parts, GROUP.layout(), Scoring(scale=None, window=None, softcap=None, sinks=sinks))
    wanted = packed.attend(*parts, GROUP.visible(), sinks=sinks)
    assert ours.dtype == torch.bfloat16
    torch.testing.assert_close(ours.double(), wanted, rtol=2**-7, atol=2**-8)


@pytest.mark.usefixtures("compiled")
@torch.no_grad()
def test_one_compilation_serves_every_batch_of_a_model():
    scoring = Scoring(scale=0.3, window=140, softcap=0.8, sinks=None)
    for count, batch in enumerate((GROUP, MORE, WHOLE)):
        *parts, _ = packed.inputs(batch, (4, 2), (16, 24))
        with torch._dynamo.config.patch(error_on_recompile=count > 0):
            ours = by_block_mask(*parts, batch.layout(), scoring)
        wanted = packed.attend(*parts, batch.visible(140), scale=0.3, softcap=0.8)
        torch.testing.assert_close(ours.double(), wanted, rtol=1e-5, atol=2e-6)


@pytest.mark.parametrize("batch", [GROUP, SHORT, WHOLE, MORE], ids=["group", "short", "whole", "more"])
@pytest.mark.parametrize("window", [None, 140])
def test_the_mask_lists_the_blocks_with_visible_tokens(batch, window):
    assert blocks(attention._block_mask(batch.layout(), window)) == blocks_of(batch.visible(window))


@pytest.mark.usefixtures("compiled")
def test_the_compiled_mask_lists_the_same_blocks():
    for batch in (GROUP, MORE, WHOLE):
        assert blocks(attention._block_mask(batch.layout(), 140)) == blocks_of(batch.visible(140))


def blocks(mask: flex.BlockMask) -> tuple[set, set]:
    """(row, column) of blocks where some tokens are visible, and where all are."""
    some, every = (
        {(row, int(column)) for row, count in enumerate(counts[0, 0]) for column in indices[0, 0, row, : int(count)]}
        for counts, indices in (
            (mask.kv_num_blocks, mask.kv_indices),
            (mask.full_kv_num_blocks, mask.full_kv_indices),
        )
    )
    return some, every


def blocks_of(visible: torch.Tensor) -> tuple[set, set]:
    """The same from the definition; tokens beyond the last are invisible."""
    side = -(-len(visible) // 128)
    padded = torch.zeros(side * 128, side * 128, dtype=torch.bool)
    padded[: len(visible), : len(visible)] = visible
    counts = padded.view(side, 128, side, 128).sum((1, 3))
    some, every = (counts > 0) & (counts < 128 * 128), counts == 128 * 128
    return {tuple(place) for place in some.nonzero().tolist()}, {tuple(place) for place in every.nonzero().tolist()}


def test_blocks_of_128_that_no_token_sees_are_left_out_of_the_mask():
    whole = Packed([256, 256], [0, 0]).layout()  # 1 + 2 blocks each
    group = Packed([384, 128, 128], [0, 256, 256]).layout()  # 2 of prompt; completions of 1 see those and themselves
    for layout, count in ((whole, 6), (group, 1 + 2 + 3 * 3)):
        some, every = blocks(attention._block_mask(layout, None))
        assert len(some) + len(every) == count
    assert blocks(attention._block_mask(group, 128))[1] == set()
