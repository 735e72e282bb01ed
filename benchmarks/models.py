"""Every causal language model of transformers under the learner's self-test: the table in docs/models.md.

    .venv/bin/python benchmarks/models.py            # all model types, some minutes
    .venv/bin/python benchmarks/models.py llama lfm2 # some

Each model type is tested with transformers' default config, at a run length beyond every window and limit.
"""

from __future__ import annotations

import argparse
import logging
import sys
import time
import warnings
from collections import Counter
from pathlib import Path
from typing import Any

import torch
import transformers
from transformers.models.auto.configuration_auto import CONFIG_MAPPING
from transformers.models.auto.modeling_auto import MODEL_FOR_CAUSAL_LM_MAPPING_NAMES as MODEL_TYPES

from rlframe.learner import selftest

PAGE = Path(__file__).parents[1] / "docs" / "models.md"
LONGEST = 1 << 30
MAX_REASON = 90  # characters of an error in the table
# Settings without which transformers' own default config makes no model, as published checkpoints have them.
MISSING: dict[str, dict[str, Any]] = {
    "deepseek_v2": {"num_experts_per_tok": 6, "topk_method": "greedy"},
    "dots1": {"n_routed_experts": 128, "num_experts_per_tok": 6, "n_shared_experts": 2},
    "hunyuan_v1_dense": {"head_dim": 128},
    "hunyuan_v1_moe": {"head_dim": 128, "num_experts": 16},
    "lfm2": {"layer_types": ["conv", "conv", "full_attention"] * 10 + ["conv", "full_attention"]},
    "lfm2_moe": {"layer_types": ["conv", "conv", "full_attention"] * 10 + ["conv", "full_attention"]},
    "ministral": {"head_dim": 128},
    "nemotron": {"num_key_value_heads": 8},
}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("types", nargs="*", help="model types (default: all, and writes docs/models.md)")
    types = parser.parse_args().types
    warnings.filterwarnings("ignore")
    transformers.logging.set_verbosity(logging.CRITICAL)
    rows = []
    for model_type in types or sorted(MODEL_TYPES):
        start = time.perf_counter()
        verdict, reason = judge(model_type)
        rows.append((model_type, verdict, reason))
        print(f"{model_type:28} {verdict:8} {time.perf_counter() - start:5.1f} s  {reason}", flush=True)
    counts = Counter(verdict for _, verdict, _ in rows)
    print(", ".join(f"{verdict} {count}" for verdict, count in counts.most_common()))
    if not types:
        PAGE.write_text(page(rows, counts))


def judge(model_type: str) -> tuple[str, str]:
    """The first right packing or `refused`, and the reason or the largest difference in nats."""
    try:
        config = CONFIG_MAPPING[model_type](**MISSING.get(model_type, {}))
    except Exception as error:
        return "refused", f"transformers makes no default config ({type(error).__name__})"
    found = selftest.differences(config, "rlframe_packed", ["shared", "whole", "padded"], LONGEST)
    packing, difference = next(iter(found.items()))
    if selftest.is_right(difference):
        return packing, f"{difference:.0e}"
    return "refused", explain(config, found["padded"])


def explain(config: Any, difference: float | str) -> str:
    """Why a model is refused, in a few words."""
    if isinstance(difference, str):
        try:
            with torch.device("meta"):
                transformers.AutoModelForCausalLM.from_config(config)
        except Exception:
            return "transformers' default config makes no causal model; a published one may"
        return " ".join(difference.split())[:MAX_REASON]
    if not getattr(config.get_text_config(decoder=True), "is_decoder", True):
        return "no decoder: its tokens attend to later tokens"
    return f"{difference:.2g} nats from its own forward pass"


def page(rows: list[tuple[str, str, str]], counts: Counter[str]) -> str:
    right = sum(count for verdict, count in counts.items() if verdict != "refused")
    table = "\n".join(f"| {model_type} | {verdict} | {reason} |" for model_type, verdict, reason in rows)
    return f"""# Models

`benchmarks/models.py` wrote this page with transformers {transformers.__version__}. Of its {len(rows)} causal
architectures the learner computes {right} right and refuses {counts["refused"]}; the README says what the packings
cost. The number is the largest difference between the learner's log-probabilities and those of the model's own forward
pass, in nats, for a small random model of the architecture. A run repeats this test with the config of its own model
before it starts. vLLM must know an architecture too, to sample from it.

| model type | `learner.packing` | difference, or the reason of the refusal |
|---|---|---|
{table}
"""


if __name__ == "__main__":
    sys.exit(main())
