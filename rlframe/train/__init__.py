"""The loop, its context, checkpoints, evaluation, and the mismatch gate."""
