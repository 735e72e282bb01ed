"""The floating-point types of weights: their bytes, and the one that a machine multiplies fastest, `auto`."""

from __future__ import annotations

from typing import Any, Literal

from rlframe.schema import is_for_another_machine

WIDTHS = {"bfloat16": 2, "float16": 2, "float32": 4}  # bytes of a value


def fastest(gpus: int) -> Literal["bfloat16", "float32"]:
    """bfloat16 on GPUs, and on processors whose instructions for it are faster than those for float32.

    A processor without any converts at every product: matrices then multiply five to eight times slower than in
    float32 (two cores with AVX2). The processor is that of this machine.
    """
    if gpus:
        return "bfloat16"
    if is_for_another_machine():
        return "float32"  # stands for both in the rules; that machine chooses anew
    import torch

    return "bfloat16" if multiplies_bfloat16(torch.cpu.get_capabilities()) else "float32"


def multiplies_bfloat16(capabilities: Any) -> bool:
    """Bfloat16 products on a processor beat float32, by `torch.cpu.get_capabilities()`.

    AMX (Intel) and ARM's bf16 do. AVX-512's bf16 does on AMD only, with twice the products a cycle (its optimization
    guide): two Intel cores without AMX (Emerald Rapids) reach 160 GFLOP/s in bfloat16 and 230 in float32.
    """
    amd = str(capabilities.get("cpu_name", "")).startswith("AMD")
    names = ("amx_bf16", "bf16", *(["avx512_bf16"] if amd else []))
    return any(capabilities.get(name, False) for name in names)
