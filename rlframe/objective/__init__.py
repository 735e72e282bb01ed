"""What a step descends: an algorithm's loss, the KL to a reference, and corrections for what drew."""

from rlframe.objective.objective import Objective, combine

__all__ = ["Objective", "combine"]
