"""`Export`: a copy of the policy for other programs, gathered from all ranks and written by rank 0."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.learner.merge import merged
from rlframe.model import lora
from rlframe.model.checkpoint_names import checkpoint_name
from rlframe.model.policy import PREFIX

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rlframe.learner.source import Zero3Source
    from rlframe.model.config import LoraConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """The whole policy in rank 0's host memory, so that training can go on while a thread writes."""

    weights: dict[str, Tensor]  # merged with adapters, by checkpoint name; empty on other ranks
    adapters: dict[str, Tensor]  # by the model's name; empty on other ranks and without adapters

    def write(self, folder: Path, *, base: Path, adapter: LoraConfig | None) -> None:
        """Writes a Hugging Face folder that transformers and vLLM open, and beside it `adapter`, which PEFT opens.

        `base`: the folder of the base model, whose settings the export keeps. Only rank 0 writes.
        """
        from safetensors.torch import save_file
        from transformers import AutoConfig, AutoTokenizer

        if self.weights:
            folder.mkdir(parents=True)
            save_file(self.weights, folder / "model.safetensors", metadata={"format": "pt"})
            config: Any = AutoConfig.from_pretrained(base, trust_remote_code=False)
            config.dtype = next(iter(self.weights.values())).dtype
            if hasattr(config, "quantization_config"):  # the learner's weights are not quantised
                del config.quantization_config
            config.save_pretrained(folder)
            if (generation := base / "generation_config.json").is_file():
                shutil.copy(generation, folder)
            AutoTokenizer.from_pretrained(base, trust_remote_code=False).save_pretrained(folder)
        if self.adapters and adapter:
            lora.write(self.adapters, adapter, base, folder.with_name("adapter"))


def gather(module: nn.Module, source: Zero3Source, rank: int) -> Export:
    """Copies the whole policy to rank 0's host memory. A collective."""
    from deepspeed.runtime.zero import GatheredParameters

    with merged(module):
        weights = {name: tensor.to("cpu", copy=True) for name, tensor in source if rank == 0}
    adapters = {name: tensor for name, tensor in module.named_parameters() if checkpoint_name(name) is None}
    with GatheredParameters(list(adapters.values())):
        whole = adapters.items() if rank == 0 else ()
        copies = {name.removeprefix(PREFIX): tensor.detach().to("cpu", copy=True) for name, tensor in whole}
    return Export(weights=weights, adapters=copies)
