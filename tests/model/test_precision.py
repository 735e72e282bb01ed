"""`auto` is what the processor, or a GPU, multiplies fastest."""

import pytest

from rlframe.model.precision import fastest

ZEN_3 = "processor\t: 0\nmodel name\t: AMD EPYC 7B13\nflags\t\t: fpu sse2 fma avx avx2 vaes\n"
ZEN_4 = (
    "processor\t: 0\nvendor_id\t: AuthenticAMD\nflags\t\t: fpu avx2 avx512f avx512_bf16 avx512_vnni\n\nprocessor\t: 1\n"
)
SKYLAKE = "processor\t: 0\nflags\t\t: fpu avx2 avx512f avx512bw\n"
SAPPHIRE_RAPIDS = "processor\t: 0\nvendor_id\t: GenuineIntel\nflags\t\t: fpu avx512f avx512_bf16 amx_bf16 amx_tile\n"
WITHOUT_AMX = SAPPHIRE_RAPIDS.replace(" amx_bf16 amx_tile", "")  # as some machines of the cloud show it
GRAVITON_3 = "processor\t: 0\nBogoMIPS\t: 2100.00\nFeatures\t: fp asimd sve i8mm bf16\nCPU part\t: 0xd40\n"
GRAVITON_2 = "processor\t: 0\nFeatures\t: fp asimd asimddp\nCPU part\t: 0xd0c\n"


@pytest.mark.parametrize(
    "cpuinfo, dtype",
    [
        (ZEN_3, "float32"),
        (ZEN_4, "bfloat16"),
        (SKYLAKE, "float32"),
        (SAPPHIRE_RAPIDS, "bfloat16"),
        (WITHOUT_AMX, "float32"),
        (GRAVITON_3, "bfloat16"),
        (GRAVITON_2, "float32"),
        ("", "float32"),
    ],
)
def test_a_processor_has_bfloat16_where_its_instructions_are_faster_than_those_for_float32(tmp_path, cpuinfo, dtype):
    file = tmp_path / "cpuinfo"
    file.write_text(cpuinfo)
    assert fastest(0, file) == dtype


def test_a_gpu_has_bfloat16_whatever_the_processor_and_a_machine_that_does_not_tell_has_float32(tmp_path):
    file = tmp_path / "cpuinfo"
    assert fastest(0, file) == "float32"
    file.write_text(ZEN_3)
    assert fastest(1, file) == "bfloat16"
