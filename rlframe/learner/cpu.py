"""Saves a CPU learner a minute of compiling at its first start; delete when DeepSpeed builds this kernel on demand.

DeepSpeed's `init_distributed` compiles `ShareMemCommBuilder` on two cores, and fails without a compiler. The kernel is
an all-reduce for tensor-parallel inference, which training never calls. Buys nothing on GPUs.
"""

from __future__ import annotations

UNUSED_KERNEL = "ShareMemCommBuilder"


def use_cpu() -> None:
    """Makes DeepSpeed run on its CPU accelerator without `UNUSED_KERNEL`."""
    from deepspeed.accelerator import set_accelerator
    from deepspeed.accelerator.cpu_accelerator import CPU_Accelerator

    class LeanAccelerator(CPU_Accelerator):
        def create_op_builder(self, op_name: str):
            # Without a builder (None) DeepSpeed continues without the kernel.
            return None if op_name == UNUSED_KERNEL else super().create_op_builder(op_name)

    set_accelerator(LeanAccelerator())
