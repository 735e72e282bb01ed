"""Which floating-point type the machine at hand multiplies fastest: what `auto` means for a dtype."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

CPUINFO = Path("/proc/cpuinfo")
MULTIPLIES_BFLOAT16 = {"amx_bf16", "bf16"}  # names of instructions there: x86, ARM
# Intel's vectors of bfloat16 multiply no faster than those of float32: two of its cores without AMX (Emerald Rapids)
# reach 160 GFLOP/s in bfloat16 and 230 in float32. AMD's take twice the products a cycle (its optimization guide).
AMD_MULTIPLIES_BFLOAT16 = "avx512_bf16"


def fastest(gpus: int, cpuinfo: Path = CPUINFO) -> Literal["bfloat16", "float32"]:
    """bfloat16 on GPUs, and on processors whose instructions for it are faster than those for float32.

    A processor without any converts at every product: matrices then multiply five to eight times slower than in
    float32 (two cores with AVX2). The processor looked at is this machine's.
    """
    told = _told(cpuinfo)
    instructions = {*told.get("flags", "").split(), *told.get("Features", "").split()}
    amd = told.get("vendor_id") == "AuthenticAMD" and AMD_MULTIPLIES_BFLOAT16 in instructions
    return "bfloat16" if gpus or amd or MULTIPLIES_BFLOAT16 & instructions else "float32"


def _told(cpuinfo: Path) -> dict[str, str]:
    """Of the first processor; nothing where the file does not tell (proc(5))."""
    first = cpuinfo.read_text().split("\n\n")[0] if cpuinfo.is_file() else ""
    named = (line.partition(":") for line in first.splitlines())
    return {key.strip(): value.strip() for key, _, value in named}
