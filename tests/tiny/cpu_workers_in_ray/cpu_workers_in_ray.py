"""A platform plugin of vLLM: workers on CPUs that Ray places by its resource GPU, as on machines with GPUs."""

from __future__ import annotations

from vllm.platforms.cpu import CpuPlatform


class CpuInRayPlatform(CpuPlatform):
    ray_device_key = "GPU"


def register() -> str:
    return "cpu_workers_in_ray.CpuInRayPlatform"
