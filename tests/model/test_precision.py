"""`auto` is the type that the processor, or a GPU, multiplies fastest."""

import pytest
import torch

from rlframe.model.precision import fastest, multiplies_bfloat16

ZEN_3 = {"cpu_name": "AMD EPYC 7B13", "avx2": True, "avx512_bf16": False, "amx_bf16": False}
ZEN_4 = {"cpu_name": "AMD EPYC 9R14", "avx2": True, "avx512_f": True, "avx512_bf16": True, "amx_bf16": False}
SKYLAKE = {"cpu_name": "Intel Xeon Platinum 8175M", "avx512_f": True, "avx512_bf16": False, "amx_bf16": False}
SAPPHIRE_RAPIDS = {"cpu_name": "Intel Xeon Platinum 8488C", "avx512_bf16": True, "amx_bf16": True, "amx_tile": True}
WITHOUT_AMX = SAPPHIRE_RAPIDS | {"amx_bf16": False, "amx_tile": False}  # as some machines of the cloud show it
GRAVITON_3 = {"cpu_name": "Neoverse V1", "sve": True, "i8mm": True, "bf16": True}
GRAVITON_2 = {"cpu_name": "Neoverse N1", "neon": True, "bf16": False}


@pytest.mark.parametrize(
    "capabilities, dtype",
    [
        (ZEN_3, "float32"),
        (ZEN_4, "bfloat16"),
        (SKYLAKE, "float32"),
        (SAPPHIRE_RAPIDS, "bfloat16"),
        (WITHOUT_AMX, "float32"),
        (GRAVITON_3, "bfloat16"),
        (GRAVITON_2, "float32"),
        ({}, "float32"),
    ],
)
def test_bfloat16_is_for_processors_that_multiply_it_faster(monkeypatch, capabilities, dtype):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: capabilities)
    assert fastest(0) == dtype
    assert multiplies_bfloat16(capabilities) == (dtype == "bfloat16")


def test_a_gpu_has_bfloat16_whatever_the_processor(monkeypatch):
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: ZEN_3)
    assert fastest(0) == "float32"
    assert fastest(1) == "bfloat16"
