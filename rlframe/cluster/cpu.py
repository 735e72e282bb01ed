"""Buys over a third of a learner step on CPUs; nothing on GPUs; delete when torch's CPU allocator caches freed blocks.

glibc returns large freed blocks to the kernel, and the kernel zeroes every page of the next tensor. With the settings
below (mallopt(3)) glibc allocates from the heap, and the heap never shrinks.
"""

KEEP_MEMORY = {"MALLOC_MMAP_MAX_": "0", "MALLOC_TRIM_THRESHOLD_": str(1 << 40)}
