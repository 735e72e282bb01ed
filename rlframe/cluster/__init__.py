"""Plain classes become Ray actors in this room and nowhere else."""
