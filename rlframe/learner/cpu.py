"""What DeepSpeed is told of the processor that it runs on."""

from __future__ import annotations

NOT_COMPILED = "ShareMemCommBuilder"  # all-reduce for inference by tensor parallelism; training never calls it


def use_cpu() -> None:
    """From now on DeepSpeed runs on its own CPU accelerator, less a kernel.

    It would compile that one at the first start on every machine, a minute of two cores, and fail without a compiler.
    """
    from deepspeed.accelerator import set_accelerator
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    class Processor(CPU_Accelerator):
        def create_op_builder(self, op_name: str):  # None: DeepSpeed goes on without
            return None if op_name == NOT_COMPILED else super().create_op_builder(op_name)

    set_accelerator(Processor())
