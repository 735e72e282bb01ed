"""`Export`: a copy of the policy for other programs. Every rank writes one of its files of weights."""

from __future__ import annotations

import json
import math
import shutil
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.learner.merge import merged
from rlframe.learner.source import adapters
from rlframe.model import lora
from rlframe.model.checkpoint_files import WHOLE
from rlframe.model.classifier import padding_of
from rlframe.model.hub import INDEX
from rlframe.model.policy import PREFIX
from rlframe.model.scores import ScoreHead

if TYPE_CHECKING:
    from torch import Tensor, nn

    from rlframe.learner.source import ParamMeta, Zero3Source
    from rlframe.model.config import LoraConfig


@dataclass(frozen=True, slots=True, kw_only=True)
class ExportPlan:
    """The file of each tensor, in the order of layers: `model-00001-of-00002.safetensors`. Rank 0 writes the first."""

    files: dict[str, str]  # by checkpoint name
    owners: dict[str, int]  # by checkpoint name, the rank that writes the tensor
    bytes: int  # of all tensors


@dataclass(frozen=True, slots=True, kw_only=True)
class Export:
    """A rank's part of the policy in host memory, so that training can go on while a thread writes."""

    plan: ExportPlan
    rank: int
    weights: dict[str, Tensor]  # tensors of this rank, merged with adapters, by checkpoint name
    adapters: dict[str, Tensor]  # on rank 0 only, by the model's names; empty without adapters, or beside a score head
    classifier: str | None = None  # transformers' class of a reward model; None: the class of the base

    def write(
        self, folder: Path, *, base: Path, adapter: LoraConfig | None, chat_template: str | None = None
    ) -> list[Path]:
        """Writes this rank's file of a Hugging Face folder that transformers and vLLM open -> the files written.

        Rank 0 also writes settings and tokenizer, and beside the folder `adapter`, which PEFT opens. `base`: the folder
        of the base model, whose settings the export keeps. `chat_template`: in place of the base's own.
        """
        from safetensors.torch import save_file

        folder.mkdir(parents=True, exist_ok=True)
        files = []
        if self.weights:
            files.append(folder / self.plan.files[next(iter(self.weights))])
            save_file(self.weights, files[0], metadata={"format": "pt"})
        if self.rank == 0:
            self._write_settings(folder, base, chat_template)
            files += [file for file in folder.iterdir() if file.name not in self.plan.files.values()]
            if self.adapters and adapter:
                lora.write(self.adapters, adapter, base, folder.with_name("adapter"))
                files += folder.with_name("adapter").iterdir()
        return files

    def _write_settings(self, folder: Path, base: Path, chat_template: str | None) -> None:
        from transformers import AutoConfig, AutoTokenizer

        if WHOLE not in self.plan.files.values():
            index = {"metadata": {"total_size": self.plan.bytes}, "weight_map": self.plan.files}
            (folder / INDEX).write_text(json.dumps(index, indent=2))
        config: Any = AutoConfig.from_pretrained(base, trust_remote_code=False)
        config.dtype = next(iter(self.weights.values())).dtype
        if hasattr(config, "quantization_config"):  # the learner's weights are not quantised
            del config.quantization_config
        tokenizer = AutoTokenizer.from_pretrained(base, trust_remote_code=False)
        if self.classifier:
            config.architectures, config.num_labels = [self.classifier], 1
            config.get_text_config().pad_token_id = padding_of(base, tokenizer)
        config.save_pretrained(folder)
        if (generation := base / "generation_config.json").is_file() and not self.classifier:
            shutil.copy(generation, folder)
        if chat_template is not None:
            tokenizer.chat_template = chat_template
        tokenizer.save_pretrained(folder)


def gather(module: nn.Module, source: Zero3Source, rank: int, ranks: int) -> Export:
    """Copies this rank's part of the policy to its host memory; one layer at a time is whole. A collective."""
    from deepspeed.runtime.zero import GatheredParameters

    plan = export_plan(source.metadata(), ranks)
    with merged(module):
        weights = {name: tensor.to("cpu", copy=True) for name, tensor in source if plan.owners[name] == rank}
    adapter_weights = adapters(module, PREFIX)
    with GatheredParameters(list(adapter_weights.values())):
        whole = adapter_weights.items() if rank == 0 else ()
        copies = {name: tensor.detach().to("cpu", copy=True) for name, tensor in whole}
    model = module.get_submodule(PREFIX.rstrip("."))
    if any(isinstance(child, ScoreHead) for child in model.children()):
        return Export(plan=plan, rank=rank, weights=weights, adapters={}, classifier=type(model).__name__)
    return Export(plan=plan, rank=rank, weights=weights, adapters=copies)


def export_plan(tensors: Iterable[ParamMeta], ranks: int) -> ExportPlan:
    """Gives each rank neighbouring tensors, of about the same number of bytes.

    Four tensors of 4 bytes on two ranks: rank 0 gets the first two. Each rank has an equal range of the bytes, and gets
    the tensors that begin in its range: at most its range and the rest of a tensor.
    """
    sizes = {tensor.name: math.prod(tensor.shape) * tensor.dtype.itemsize for tensor in tensors}
    total = sum(sizes.values())
    owners: dict[str, int] = {}
    begin = 0
    for name, size in sizes.items():
        owners[name] = min(begin * ranks // total, ranks - 1)
        begin += size
    writers = sorted(set(owners.values()))
    if len(writers) == 1:
        return ExportPlan(files=dict.fromkeys(owners, WHOLE), owners=owners, bytes=total)
    numbers = {rank: number for number, rank in enumerate(writers, start=1)}
    files = {name: f"model-{numbers[rank]:05d}-of-{len(writers):05d}.safetensors" for name, rank in owners.items()}
    return ExportPlan(files=files, owners=owners, bytes=total)
