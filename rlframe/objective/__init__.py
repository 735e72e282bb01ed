"""The objective of a step: the algorithm's loss, the KL to a reference policy, off-policy corrections."""

from rlframe.objective.objective import Objective, combine

__all__ = ["Objective", "combine"]
