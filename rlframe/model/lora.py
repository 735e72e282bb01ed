"""Low-rank adapters (LoRA, Hu et al., 2021, arXiv:2106.09685): W + alpha / rank * B A, of which only A and B train.

PEFT adds the adapters in place, which changes names: `q_proj.weight` becomes `q_proj.base_layer.weight`, beside
`q_proj.lora_A.default.weight` [rank, in] and `q_proj.lora_B.default.weight` [out, rank].
"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.model.checkpoint_names import ADAPTER, checkpoint_name, model_on_meta

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rlframe.model.config import LoraConfig


def add(model: nn.Module, config: LoraConfig) -> None:
    """Adds adapters that change nothing yet (B is 0) and freezes all else. Raises ValueError if no target exists."""
    from peft import inject_adapter_in_model

    inject_adapter_in_model(_settings(config), model)


def unchanging(base: Path, config: LoraConfig) -> dict[str, Tensor]:
    """Weights (all 0) of adapters that change nothing, by their names in the model whose folder is `base`."""
    import torch

    model = model_on_meta(base)
    with torch.device("meta"):
        add(model, config)
    return {
        name: torch.zeros(tensor.shape, dtype=tensor.dtype)
        for name, tensor in model.named_parameters()
        if checkpoint_name(name) is None
    }


def write(weights: dict[str, Tensor], config: LoraConfig, base: Path, folder: Path) -> None:
    """Writes a folder that PEFT and vLLM open, from the adapters' weights by their names in the model."""
    from safetensors.torch import save_file

    folder.mkdir(parents=True)
    named = {f"base_model.model.{name.replace(f'.{ADAPTER}.', '.')}": tensor for name, tensor in weights.items()}
    save_file(named, folder / "adapter_model.safetensors", metadata={"format": "pt"})
    settings = _settings(config)
    settings.base_model_name_or_path = str(base)
    settings.save_pretrained(str(folder))


def _settings(config: LoraConfig):
    import peft

    alpha: Any = config.alpha  # PEFT's annotation says int; its arithmetic takes any number
    return peft.LoraConfig(
        r=config.rank,
        lora_alpha=alpha,
        target_modules=list(config.targets),
        lora_dropout=0.0,  # training must compute the log-probabilities of the policy that sampled
        bias="none",
        task_type="CAUSAL_LM",
    )
