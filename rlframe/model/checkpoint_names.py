"""Names and layouts of published checkpoints, and how the model in memory differs from them."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from torch import Tensor, nn

ADAPTER = "default"  # PEFT's name for a model's only adapter
GATES = "experts.w1"  # DeepSpeed's name for the gate matrices of a block's experts, which transformers has not


def model_on_meta(folder: Path) -> nn.Module:
    """The model of a Hugging Face folder without values, for the names and shapes of its tensors."""
    import torch
    from transformers import AutoConfig, AutoModelForCausalLM

    settings = AutoConfig.from_pretrained(folder, trust_remote_code=False)
    with torch.device("meta"):
        return AutoModelForCausalLM.from_config(settings, trust_remote_code=False)


def checkpoint_name(name: str) -> str | None:
    """The published checkpoint's name of a weight; None for an adapter's weight.

    >>> checkpoint_name("model.layers.0.self_attn.q_proj.base_layer.weight")
    'model.layers.0.self_attn.q_proj.weight'
    """
    return None if ".lora_" in name else name.replace(".base_layer.", ".")


def to_checkpoint(model: nn.Module, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A layer's tensors as published checkpoints have them: fused experts split, one weight an expert.

    transformers knows how it put each architecture's weights together while loading, and undoes that here as
    `save_pretrained` does. A model that is not one of its own is under checkpoint names already.
    """
    from transformers import PreTrainedModel
    from transformers.core_model_loading import revert_weight_conversion

    return (
        revert_weight_conversion(model, without_expert_parallel(tensors))
        if isinstance(model, PreTrainedModel)
        else tensors
    )


def without_expert_parallel(tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """A layer's whole tensors under transformers' names; unchanged without expert parallelism."""
    import torch

    blocks = [name.removesuffix(GATES) for name in tensors if name.endswith(GATES)]
    others = dict(tensors)
    renamed = {}
    for block in blocks:
        gates, down, ups = (others.pop(f"{block}experts.{name}") for name in ("w1", "w2", "w3"))
        renamed[f"{block}experts.gate_up_proj"] = torch.cat([gates, ups], dim=1)  # [E, 2 I, H]
        renamed[f"{block}experts.down_proj"] = down  # [E, H, I]
        renamed[f"{block}gate.weight"] = others.pop(f"{block}router.gate.weight")
    return renamed | others


def is_classifier(architectures: list[str] | None) -> bool:
    """True for `architectures` of a config.json whose files hold a sequence classifier."""
    return any(name.endswith("ForSequenceClassification") for name in architectures or [])


def carried_buffers(module: nn.Module) -> dict[str, Tensor]:
    """Buffers that checkpoints carry (a router's selection bias, not rotary tables)."""
    carried = module.state_dict().keys()
    return {name: buffer for name, buffer in module.named_buffers() if name in carried}
