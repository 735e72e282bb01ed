"""Algorithms, a file each; shared formulas in `ops`, the advantages of a step in `rate`."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, SerializeAsAny

from rlframe.algorithm.base import Algorithm
from rlframe.algorithm.cispo import CISPO
from rlframe.algorithm.dapo import DAPO
from rlframe.algorithm.dpo import DPO, IPO, DPONorm
from rlframe.algorithm.dr_grpo import DrGRPO
from rlframe.algorithm.gdpo import GDPO
from rlframe.algorithm.gmpo import GMPO
from rlframe.algorithm.grpo import GRPO
from rlframe.algorithm.gspo import GSPO
from rlframe.algorithm.rate import rate
from rlframe.algorithm.reinforce import Reinforce
from rlframe.algorithm.reinforce_pp import ReinforcePP
from rlframe.algorithm.reinforce_pp_baseline import ReinforcePPBaseline
from rlframe.algorithm.reward_model import BradleyTerry, Pointwise
from rlframe.algorithm.rloo import RLOO
from rlframe.algorithm.row_loss import RowLoss
from rlframe.algorithm.scalerl import ScaleRL
from rlframe.algorithm.sft import SFT
from rlframe.schema import one_of

BUILTIN: dict[str, type[Algorithm]] = {
    "grpo": GRPO,
    "dapo": DAPO,
    "dr_grpo": DrGRPO,
    "gspo": GSPO,
    "cispo": CISPO,
    "gmpo": GMPO,
    "rloo": RLOO,
    "reinforce": Reinforce,
    "reinforce_pp": ReinforcePP,
    "reinforce_pp_baseline": ReinforcePPBaseline,
    "scalerl": ScaleRL,
    "gdpo": GDPO,
    "sft": SFT,
    "dpo": DPO,
    "dpo_norm": DPONorm,
    "ipo": IPO,
    "bradley_terry": BradleyTerry,
    "pointwise": Pointwise,
}

# The type of the config key: a built-in name, or a user's class by import path.
AnyAlgorithm = Annotated[SerializeAsAny[Algorithm], BeforeValidator(lambda value: one_of(value, Algorithm, BUILTIN))]

__all__ = [
    "BUILTIN",
    "CISPO",
    "DAPO",
    "DPO",
    "GDPO",
    "GMPO",
    "GRPO",
    "GSPO",
    "IPO",
    "RLOO",
    "SFT",
    "Algorithm",
    "AnyAlgorithm",
    "BradleyTerry",
    "DPONorm",
    "DrGRPO",
    "Pointwise",
    "Reinforce",
    "ReinforcePP",
    "ReinforcePPBaseline",
    "RowLoss",
    "ScaleRL",
    "rate",
]
