"""Which floating-point type the machine at hand multiplies fastest: what `auto` means for a dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

CPUINFO = Path("/proc/cpuinfo")
MULTIPLIES_BFLOAT16 = {"avx512_bf16", "amx_bf16", "bf16"}  # names of instructions there: x86 twice, then ARM


def fastest(gpus: int, cpuinfo: Path = CPUINFO) -> Literal["bfloat16", "float32"]:
    """bfloat16 on GPUs, and on processors with instructions for it; float32 elsewhere.

    A processor without them converts at every product: matrices then multiply five to eight times slower than in
    float32 (two cores with AVX2). The processor looked at is this machine's.
    """
    return "bfloat16" if gpus or MULTIPLIES_BFLOAT16 & _instructions(cpuinfo) else "float32"


def _instructions(cpuinfo: Path) -> set[str]:
    """Of the first processor; none where the file does not tell (proc(5))."""
    lines = cpuinfo.read_text().splitlines() if cpuinfo.is_file() else []
    named = (line.partition(":") for line in lines)
    return next((set(value.split()) for key, _, value in named if key.strip() in ("flags", "Features")), set())
