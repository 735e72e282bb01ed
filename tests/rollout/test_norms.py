"""vLLM's kernels for norms against vLLM's own PyTorch form of them, on this machine's CPU."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from rlframe.rollout import norms

# In bfloat16 the two round the sum, the norm and its product with the weight at different times.
ROUNDED = {torch.float32: {"rtol": 1e-5, "atol": 1e-6}, torch.bfloat16: {"rtol": 3 * 2**-8, "atol": 0}}

IN_BFLOAT16 = pytest.mark.skipif(
    torch.backends.cpu.get_cpu_capability() == "AVX2", reason="the kernels cut bfloat16 off without AVX-512"
)


@pytest.fixture(scope="module", autouse=True)
def registered() -> None:
    norms.register()
    norms.register()  # vLLM may call it in one process again


def rows(width: int, dtype: torch.dtype) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(0)
    return torch.randn(5, width, dtype=dtype), torch.randn(5, width, dtype=dtype), torch.rand(width, dtype=dtype)


@pytest.mark.parametrize("dtype", [torch.float32, pytest.param(torch.bfloat16, marks=IN_BFLOAT16)])
@pytest.mark.parametrize("width", [32, 64, 576])
def test_a_norm_and_that_of_a_sum_are_those_of_pytorch_up_to_rounding(width: int, dtype: torch.dtype) -> None:
    from vllm import ir

    x, residual, weight = rows(width, dtype)
    ours, theirs = (ir.ops.rms_norm.impls[name].impl_fn(x, weight, 1e-5) for name in (norms.PROVIDER, "native"))
    torch.testing.assert_close(ours, theirs, **ROUNDED[dtype])
    ours, theirs = (
        ir.ops.fused_add_rms_norm.impls[name].impl_fn(x.clone(), residual.clone(), weight, 1e-5)
        for name in (norms.PROVIDER, "native")
    )
    torch.testing.assert_close(ours, theirs, **ROUNDED[dtype])
    assert torch.equal(ours[1], x + residual)


def test_heads_that_lie_apart_in_memory_are_normed_each_by_itself() -> None:
    from vllm import ir

    queries = torch.randn(5, 3 * 64)[:, :128].unflatten(1, (2, 64))  # as Qwen3 cuts them from queries, keys, values
    weight = torch.rand(64)
    normed = ir.ops.rms_norm.impls[norms.PROVIDER].impl_fn(queries, weight, 1e-5)
    torch.testing.assert_close(normed, torch.nn.functional.rms_norm(queries, (64,), weight, 1e-5))


@pytest.mark.parametrize(
    "change, refused",
    [
        ("none", False),
        ("48 values", True),
        ("weight in float32", True),
        ("no weight", True),
        ("apart in memory", True),
    ],
)
def test_what_the_kernels_cannot_take_is_left_to_pytorch(
    change: str, refused: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    from vllm import ir

    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX512")
    x, residual, weight = rows(48 if change == "48 values" else 64, torch.bfloat16)
    given = {"weight in float32": weight.float(), "no weight": None}.get(change, weight)
    x = x.repeat(1, 2)[:, ::2] if change == "apart in memory" else x
    takes = ir.ops.fused_add_rms_norm.impls[norms.PROVIDER].supports_args
    assert takes(x, residual, given, 1e-5) is not refused


def test_bfloat16_is_left_to_pytorch_where_the_kernels_cut_it_off_and_float32_is_not(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    from vllm import ir

    monkeypatch.setattr("torch.backends.cpu.get_cpu_capability", lambda: "AVX2")
    takes = ir.ops.rms_norm.impls[norms.PROVIDER].supports_args
    for dtype, taken in ((torch.bfloat16, False), (torch.float32, True)):
        x, _, weight = rows(64, dtype)
        assert takes(x, weight, 1e-5) is taken
