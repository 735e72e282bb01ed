"""Objectives of rlframe, each beside the settings of a peer that mean the same, or nearly the same."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field

from rlframe.algorithm import BUILTIN
from rlframe.algorithm.rate import Truncated
from rlframe.objective.correction import BUILTIN as CORRECTIONS
from rlframe.objective.correction import Correction
from rlframe.objective.kl import KL
from rlframe.objective.objective import Objective

LENGTHS = [3, 17, 40, 1, 25, 8, 40, 31]  # tokens of the completions
LONGEST, TOKENS = max(LENGTHS), sum(LENGTHS)
# verl whitens by the deviation of a population, estimated from the step's tokens; rlframe by the tokens' own.
WHITENED = dict.fromkeys(("advantages", "loss", "gradient"), ((TOKENS - 1) / TOKENS) ** 0.5)


@dataclass(frozen=True, slots=True, kw_only=True)
class Case:
    """An objective, and how a peer computes it.

    `equal`: the values that must agree, after multiplication of rlframe's by `factors`. `why`: the reason of a factor,
    or of a difference in other values. `on_policy`: the policy is still the one of before the step.
    """

    objective: Objective
    peer: dict[str, object]
    truncated: Truncated = "train"
    on_policy: bool = False
    factors: dict[str, float] = field(default_factory=dict)
    equal: tuple[str, ...] = ("advantages", "loss", "gradient")
    why: str = ""


def objective(
    name: str,
    kl: KL | None = None,
    corrections: Sequence[Correction] = (),
    entropy_bonus: float = 0.0,
    **settings: float,
) -> Objective:
    algorithm = BUILTIN[name].model_validate({"name": name, **settings})
    return Objective(algorithm=algorithm, kl=kl, corrections=corrections, entropy_bonus=entropy_bonus)


def correction(name: str, **settings: float) -> list[Correction]:
    return [CORRECTIONS[name].model_validate({"name": name, **settings})]


K2 = KL(estimator="k2", weight=0.04, place="loss", refresh_every=0, offload=False)
K3 = KL(estimator="k3", weight=0.04, place="loss", refresh_every=0, offload=False)
# A KL of the size of Dr. GRPO's advantages, which nothing divides by a deviation.
LARGE_K2 = KL(estimator="k2", weight=1e6, place="loss", refresh_every=0, offload=False)
K1_IN_REWARD = KL(estimator="k1", weight=1e5, place="reward", refresh_every=0, offload=False)
TIS = correction("tis", cap=1.5)
ICEPOP = correction("icepop", low=0.7, high=1.5)
SEQUENCE = correction("sequence", low=0.97, high=1.03)
OFF_POLICY_MASK = correction("off_policy_mask", max_log_ratio=0.01)
DAPO = {"clip_low": 0.2, "clip_high": 0.28}
GSPO = {"clip_low": 0.02, "clip_high": 0.03}
ADVANTAGES_ONLY = ("advantages",)
K3_HAS_A_RATIO = "rlframe multiplies k3 by pi / pi_old, without which its gradient is not the KL's (DeepSeek-V3.2)"
VERL_DIVISOR = "verl's trainer divides by the number of tokens that remain, rlframe by that of all, as verl does here"

TRL_DAPO = {"loss_type": "dapo", "epsilon_high": 0.28}
TRL_TIS = {"vllm_importance_sampling_mode": "token_truncate", "vllm_importance_sampling_clip_max": 1.5}
TRL_ICEPOP = {
    "vllm_importance_sampling_mode": "token_mask",
    "vllm_importance_sampling_clip_min": 0.7,
    "vllm_importance_sampling_clip_max": 1.5,
}
TRL_GSPO = {"importance_sampling_level": "sequence", "epsilon_low": 0.02, "epsilon_high": 0.03}
TRL_CASES = {
    "grpo": Case(objective=objective("grpo", clip=0.2), peer={}),
    "grpo dual_clip": Case(objective=objective("grpo", clip=0.2, dual_clip=1.3), peer={"delta": 1.3}),
    "grpo truncated=mask": Case(
        objective=objective("grpo", clip=0.2),
        truncated="mask",
        peer={"mask_truncated_completions": True},
        factors={"loss": 6 / 8, "gradient": 6 / 8},
        why="TRL's mean counts completions that were cut off, rlframe's does not: a factor of 6 / 8",
    ),
    "dapo": Case(objective=objective("dapo", **DAPO), peer=TRL_DAPO),
    "dapo (TRL's bnpo)": Case(objective=objective("dapo", **DAPO), peer=TRL_DAPO | {"loss_type": "bnpo"}),
    "dapo truncated=mask": Case(
        objective=objective("dapo", **DAPO), truncated="mask", peer=TRL_DAPO | {"mask_truncated_completions": True}
    ),
    "dr_grpo": Case(
        objective=objective("dr_grpo", clip=0.2, length=LONGEST), peer={"loss_type": "dr_grpo", "scale_rewards": "none"}
    ),
    "gspo": Case(objective=objective("gspo", **GSPO), peer=TRL_GSPO),
    # TRL's epsilon_high is the bound on the ratio; the paper's and rlframe's is the bound minus 1.
    "cispo": Case(objective=objective("cispo", clip_high=0.3), peer={"loss_type": "cispo", "epsilon_high": 1.3}),
    "gmpo": Case(
        objective=objective("gmpo", clip=0.1), peer={"trainer": "gmpo", "epsilon_low": 0.1, "epsilon_high": 0.1}
    ),
    "gdpo": Case(objective=objective("gdpo", clip=0.2), peer={"multi_objective_aggregation": "normalize_then_sum"}),
    "rloo": Case(
        objective=objective("rloo"),
        on_policy=True,
        peer={"trainer": "rloo"},
        equal=("advantages", "gradient"),
        why="TRL's loss is a clipped ratio, rlframe's the paper's -A log pi; on policy the gradients agree",
    ),
    "rloo k1 in reward": Case(
        objective=objective("rloo", kl=K1_IN_REWARD),
        on_policy=True,
        peer={"trainer": "rloo", "beta": 1e5},
        equal=("advantages", "gradient"),
        why="as rloo",
    ),
    "scalerl": Case(
        objective=objective("scalerl", cap=1.3),
        peer={"loss_type": "cispo", "epsilon_high": 1.3, "scale_rewards": "batch"},
        equal=(),
        why="TRL divides by the deviation of rewards, the paper by that of advantages; TRL has no mean per prompt",
    ),
    "grpo k3": Case(objective=objective("grpo", clip=0.2, kl=K3), peer={"beta": 0.04, "use_bias_correction_kl": True}),
    "grpo k3, uncorrected": Case(
        objective=objective("grpo", clip=0.2, kl=K3), peer={"beta": 0.04}, equal=ADVANTAGES_ONLY, why=K3_HAS_A_RATIO
    ),
    "dapo k3": Case(
        objective=objective("dapo", **DAPO, kl=K3), peer=TRL_DAPO | {"beta": 0.04, "use_bias_correction_kl": True}
    ),
    "gspo k3": Case(
        objective=objective("gspo", **GSPO, kl=K3),
        peer=TRL_GSPO | {"beta": 0.04, "use_bias_correction_kl": True},
        equal=ADVANTAGES_ONLY,
        why="rlframe multiplies k3 by the token's ratio, TRL by the sequence's",
    ),
    "grpo off_policy_mask": Case(
        objective=objective("grpo", clip=0.2, corrections=OFF_POLICY_MASK), peer={"off_policy_mask_threshold": 0.01}
    ),
    "dapo entropy_bonus": Case(
        objective=objective("dapo", **DAPO, entropy_bonus=0.01), peer=TRL_DAPO | {"entropy_coef": 0.01}
    ),
    "grpo entropy_bonus": Case(
        objective=objective("grpo", clip=0.2, entropy_bonus=0.01),
        peer={"entropy_coef": 0.01},
        equal=ADVANTAGES_ONLY,
        why="rlframe's entropy is a mean over completions as GRPO's loss is, TRL's a mean over tokens",
    ),
    "dapo tis": Case(objective=objective("dapo", **DAPO, corrections=TIS), peer=TRL_DAPO | TRL_TIS),
    "dapo icepop": Case(objective=objective("dapo", **DAPO, corrections=ICEPOP), peer=TRL_DAPO | TRL_ICEPOP),
    "grpo tis k3": Case(
        objective=objective("grpo", clip=0.2, corrections=TIS, kl=K3),
        peer=TRL_TIS | {"beta": 0.04, "use_bias_correction_kl": True},
    ),
    "gspo icepop": Case(
        objective=objective("gspo", **GSPO, corrections=ICEPOP),
        peer=TRL_GSPO | TRL_ICEPOP,
        equal=ADVANTAGES_ONLY,
        why="rlframe's dropped tokens leave the mean of the sequence's ratio too",
    ),
}

BY_SEQUENCE = {"loss_agg_mode": "seq-mean-token-mean"}
VERL_GRPO = {"advantages": "grpo", "loss": "vanilla"} | BY_SEQUENCE
VERL_DAPO = {"advantages": "grpo", "loss": "vanilla", "clip_ratio_high": 0.28}
VERL_GSPO = {"advantages": "grpo", "loss": "gspo", "clip_ratio_low": 0.02, "clip_ratio_high": 0.03} | BY_SEQUENCE
VERL_SUM = {"loss": "reinforce", "loss_agg_mode": "seq-mean-token-sum"}
VERL_DR_GRPO = VERL_GRPO | {"norm_adv_by_std_in_grpo": False, "loss_agg_mode": "seq-mean-token-sum-norm"}
VERL_PP = VERL_GRPO | {"advantages": "reinforce_plus_plus"}
VERL_TIS = {"correction": {"rollout_is": "token", "rollout_is_threshold": 1.5}}
VERL_ICEPOP = {"correction": {"rollout_is": "token", "rollout_is_threshold": "0.7_1.5"}}
# verl's bounds are on the inverse of rlframe's ratio.
VERL_SEQUENCE = {"correction": {"rollout_rs": "seq_mean_k1", "rollout_rs_threshold": f"{1 / 1.03}_{1 / 0.97}"}}
VERL_CASES = {
    "grpo": Case(objective=objective("grpo", clip=0.2), peer=VERL_GRPO),
    "grpo (vectorized)": Case(
        objective=objective("grpo", clip=0.2), peer=VERL_GRPO | {"advantages": "grpo_vectorized"}
    ),
    "grpo dual_clip": Case(
        objective=objective("grpo", clip=0.2, dual_clip=1.3), peer=VERL_GRPO | {"clip_ratio_c": 1.3}
    ),
    "dapo": Case(objective=objective("dapo", **DAPO), peer=VERL_DAPO),
    "dapo dual_clip": Case(objective=objective("dapo", **DAPO, dual_clip=1.3), peer=VERL_DAPO | {"clip_ratio_c": 1.3}),
    "dr_grpo": Case(objective=objective("dr_grpo", clip=0.2, length=LONGEST), peer=VERL_DR_GRPO),
    "gspo": Case(objective=objective("gspo", **GSPO), peer=VERL_GSPO),
    "gmpo": Case(
        objective=objective("gmpo", clip=0.1),
        peer={"advantages": "grpo", "loss": "geo_mean", "clip_ratio_low": 0.1, "clip_ratio_high": 0.1},
    ),
    # verl has a lower bound, here 0.
    "cispo": Case(
        objective=objective("cispo", clip_high=0.3),
        peer={"advantages": "grpo", "loss": "cispo", "clip_ratio_low": 1.0, "clip_ratio_high": 0.3},
    ),
    "rloo": Case(objective=objective("rloo"), peer=VERL_SUM | {"advantages": "rloo"}),
    "rloo (vectorized)": Case(objective=objective("rloo"), peer=VERL_SUM | {"advantages": "rloo_vectorized"}),
    "reinforce": Case(objective=objective("reinforce"), peer=VERL_SUM | {"advantages": "none"}),
    "reinforce_pp": Case(
        objective=objective("reinforce_pp", clip=0.2),
        peer=VERL_PP,
        factors=WHITENED,
        why="verl whitens by the sample deviation, rlframe by the tokens' own: a factor of sqrt(164 / 165)",
    ),
    "reinforce_pp k1 in reward": Case(
        objective=objective("reinforce_pp", clip=0.2, kl=K1_IN_REWARD),
        peer=VERL_PP | {"kl_in_reward": 1e5},
        factors=WHITENED,
        why="as reinforce_pp",
    ),
    "reinforce_pp_baseline": Case(
        objective=objective("reinforce_pp_baseline", clip=0.2),
        peer=VERL_GRPO | {"advantages": "reinforce_plus_plus_baseline"},
        factors=WHITENED,
        why="as reinforce_pp",
    ),
    "reinforce_pp_baseline k2": Case(
        objective=objective("reinforce_pp_baseline", clip=0.2, kl=K2),
        peer=VERL_GRPO | {"advantages": "reinforce_plus_plus_baseline", "kl_loss_type": "k2", "kl_loss_coef": 0.04},
        factors={"advantages": WHITENED["advantages"]},
        equal=ADVANTAGES_ONLY,
        why="as reinforce_pp; the factor is not the KL's",
    ),
    "gdpo": Case(
        objective=objective("gdpo", clip=0.2),
        peer=VERL_GRPO | {"advantages": "gdpo"},
        equal=(),
        why="verl whitens over tokens, the paper and rlframe over completions",
    ),
    "grpo k2": Case(
        objective=objective("grpo", clip=0.2, kl=K2), peer=VERL_GRPO | {"kl_loss_type": "k2", "kl_loss_coef": 0.04}
    ),
    "dapo k2": Case(
        objective=objective("dapo", **DAPO, kl=K2), peer=VERL_DAPO | {"kl_loss_type": "k2", "kl_loss_coef": 0.04}
    ),
    "grpo k3 (k3+), on policy": Case(
        objective=objective("grpo", clip=0.2, kl=K3),
        on_policy=True,
        peer=VERL_GRPO | {"kl_loss_type": "k3+", "kl_loss_coef": 0.04},
    ),
    "grpo k3 (k3+)": Case(
        objective=objective("grpo", clip=0.2, kl=K3),
        peer=VERL_GRPO | {"kl_loss_type": "k3+", "kl_loss_coef": 0.04},
        equal=ADVANTAGES_ONLY,
        why="verl's k3+ has the gradient of k2, which is the KL's on policy only; rlframe's k3 has a ratio",
    ),
    "grpo k3 (k3)": Case(
        objective=objective("grpo", clip=0.2, kl=K3),
        peer=VERL_GRPO | {"kl_loss_type": "k3", "kl_loss_coef": 0.04},
        equal=ADVANTAGES_ONLY,
        why=K3_HAS_A_RATIO,
    ),
    "dr_grpo k2": Case(
        objective=objective("dr_grpo", clip=0.2, length=LONGEST, kl=LARGE_K2),
        peer=VERL_DR_GRPO | {"kl_loss_type": "k2", "kl_loss_coef": 1e6},
        equal=ADVANTAGES_ONLY,
        why="rlframe's KL is a mean over tokens in every algorithm, verl's is divided by the constant length",
    ),
    "grpo entropy_bonus": Case(
        objective=objective("grpo", clip=0.2, entropy_bonus=0.01), peer=VERL_GRPO | {"entropy_coeff": 0.01}
    ),
    "dapo entropy_bonus": Case(
        objective=objective("dapo", **DAPO, entropy_bonus=0.01), peer=VERL_DAPO | {"entropy_coeff": 0.01}
    ),
    "dapo tis": Case(objective=objective("dapo", **DAPO, corrections=TIS), peer=VERL_DAPO | VERL_TIS),
    "cispo tis": Case(
        objective=objective("cispo", clip_high=0.3, corrections=TIS),
        peer={"advantages": "grpo", "loss": "cispo", "clip_ratio_low": 1.0, "clip_ratio_high": 0.3} | VERL_TIS,
    ),
    "dapo icepop": Case(objective=objective("dapo", **DAPO, corrections=ICEPOP), peer=VERL_DAPO | VERL_ICEPOP),
    "grpo sequence": Case(objective=objective("grpo", clip=0.2, corrections=SEQUENCE), peer=VERL_GRPO | VERL_SEQUENCE),
    "dapo sequence": Case(
        objective=objective("dapo", **DAPO, corrections=SEQUENCE), peer=VERL_DAPO | VERL_SEQUENCE, why=VERL_DIVISOR
    ),
}
