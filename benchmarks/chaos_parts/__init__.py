"""Parts of `benchmarks/chaos.py`: a run in real processes, the faults that it gets, and what must hold at the end."""
