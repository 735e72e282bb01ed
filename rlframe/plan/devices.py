"""Kinds of GPUs: memory, and stated speeds. All figures are the makers'; none was measured by rlframe.

`memory_gib` is what the driver reports, a little less than the name says. `bf16_tflops` is dense. `links_gbs` is a
GPU's bandwidth to the other GPUs of its node, in one direction.
"""

from __future__ import annotations

from dataclasses import dataclass

from rlframe.errors import ConfigError, did_you_mean
from rlframe.plan.numbers import GIB


@dataclass(frozen=True, slots=True, kw_only=True)
class Gpu:
    """A kind of GPU."""

    name: str
    memory_gib: float
    bf16_tflops: float
    memory_gbs: float
    links_gbs: float
    host_gib: float = 256.0  # of its node's memory, for each GPU: what nodes of eight usually have

    @property
    def memory(self) -> int:
        return int(self.memory_gib * GIB)


GPUS = {
    gpu.name: gpu
    for gpu in [
        Gpu(name="T4", memory_gib=14.7, bf16_tflops=65, memory_gbs=320, links_gbs=16, host_gib=64),
        Gpu(name="L4", memory_gib=22.5, bf16_tflops=121, memory_gbs=300, links_gbs=32, host_gib=64),
        Gpu(name="A10", memory_gib=22.5, bf16_tflops=125, memory_gbs=600, links_gbs=32, host_gib=96),
        Gpu(name="RTX4090", memory_gib=24.0, bf16_tflops=165, memory_gbs=1008, links_gbs=32, host_gib=64),
        Gpu(name="RTX5090", memory_gib=31.8, bf16_tflops=209, memory_gbs=1792, links_gbs=64, host_gib=64),
        Gpu(name="L40S", memory_gib=45.0, bf16_tflops=362, memory_gbs=864, links_gbs=32, host_gib=128),
        Gpu(name="V100", memory_gib=31.7, bf16_tflops=125, memory_gbs=900, links_gbs=150, host_gib=64),
        Gpu(name="A100-40", memory_gib=39.5, bf16_tflops=312, memory_gbs=1555, links_gbs=300, host_gib=128),
        Gpu(name="A100", memory_gib=79.3, bf16_tflops=312, memory_gbs=2039, links_gbs=300),
        Gpu(name="H20", memory_gib=95.6, bf16_tflops=148, memory_gbs=4000, links_gbs=450),
        Gpu(name="H100", memory_gib=79.6, bf16_tflops=989, memory_gbs=3350, links_gbs=450),
        Gpu(name="H200", memory_gib=140.4, bf16_tflops=989, memory_gbs=4800, links_gbs=450),
        Gpu(name="GH200", memory_gib=94.5, bf16_tflops=989, memory_gbs=4000, links_gbs=450, host_gib=480),
        Gpu(name="B200", memory_gib=179.0, bf16_tflops=2250, memory_gbs=8000, links_gbs=900),
        Gpu(name="GB200", memory_gib=186.0, bf16_tflops=2500, memory_gbs=8000, links_gbs=900, host_gib=240),
        Gpu(name="B300", memory_gib=268.0, bf16_tflops=2250, memory_gbs=8000, links_gbs=900),
        Gpu(name="MI300X", memory_gib=191.7, bf16_tflops=1307, memory_gbs=5300, links_gbs=448),
        Gpu(name="MI325X", memory_gib=255.7, bf16_tflops=1307, memory_gbs=6000, links_gbs=448),
    ]
}
_FOLDED = {name.upper().replace("-", ""): gpu for name, gpu in GPUS.items()}


def gpu_named(name: str) -> Gpu:
    """The kind with this name in any case: `h100`, `A100-40`. Raises ConfigError with the known names."""
    folded = name.upper().replace("-", "").replace("_", "").removesuffix("GB")
    if (gpu := _FOLDED.get(folded)) is None:
        near = did_you_mean(folded, _FOLDED) or f"; known are {', '.join(GPUS)}"
        raise ConfigError(f"there is no GPU of the kind {name!r} in the plan's list{near}")
    return gpu


def gpu_reported(product: str, memory: int | None = None) -> Gpu | None:
    """The kind that a driver's or Ray's name means: `NVIDIA H100 80GB HBM3`, `A100-40G`; None: not in the list.

    `memory`: bytes of the device where they are known; two kinds of A100 differ by them.
    """
    folded = product.upper().replace("-", "").replace(" ", "").replace("_", "")
    names = sorted((name for name in _FOLDED if name in folded), key=len, reverse=True)
    if not names:
        return None
    gpu = _FOLDED[names[0]]
    if gpu.name == "A100" and ((memory is not None and memory < 60 * GIB) or "40G" in folded):
        return GPUS["A100-40"]
    return gpu
