"""A causal language model as the learner needs it: a batch of sequences in, log-probabilities or scores out."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from rlframe.model import attention
from rlframe.model.checkpoint_names import carried_buffers
from rlframe.model.layout import Layout
from rlframe.model.logprobs import LogprobHead
from rlframe.model.rows import Rows
from rlframe.model.scale import scale_of
from rlframe.model.scores import ScoreHead
from rlframe.training import PACKED_ATTENTION, Packing, TrainBatch

NOISE = re.compile("drop|jitter")  # in names of config keys: attention_dropout, resid_pdrop, router_jitter_noise
SCORE = "score"  # transformers' name for the head of a sequence classifier
PREFIX = "model."  # of a parameter's name in `Policy`, before its name in a checkpoint


class SequenceParallel(Protocol):
    """The ranks that compute one micro-batch together, each T / s of its tokens; `learner/ulysses.py` is one."""

    def cut(self, batch: TrainBatch) -> tuple[Layout, slice, Tensor, Tensor]:
        """-> the whole batch's layout; this rank's range of [T], its token ids and its position ids."""
        ...

    def join(self, values: Tensor) -> Tensor:
        """[T] with this rank's values and 0 elsewhere -> [T] with the values of all ranks."""
        ...


class Policy(nn.Module):
    """A transformers model whose head answers only for tokens with a loss weight, and never with all logits at once.

    `packing` says how the model sees the sequences of a batch. `shared` and `whole`: end to end in one row [1, T],
    under our attention or an attention that reads boundaries. `padded`: a row for each sequence [N, L], which every
    causal model computes right, because tokens never attend to the padding after them.
    """

    def __init__(
        self, model: nn.Module, head_dtype: torch.dtype, packing: Packing, ulysses: SequenceParallel | None = None
    ) -> None:
        """Replaces the model's head by one that multiplies in `head_dtype`: a sequence classifier's by a `ScoreHead`,
        any other by a `LogprobHead`.

        `ulysses`: ranks that share this rank's batches; None: the rank has whole batches. Raises ValueError for a
        model without a linear head.
        """
        super().__init__()
        self.packing: Packing = packing
        self.ulysses = ulysses
        self.model: Any = model  # of transformers
        self.config = model.config  # DeepSpeed's AutoEP looks for the kind of model here
        self.scores = hasattr(model, SCORE)
        linear = getattr(model, SCORE) if self.scores else self.model.get_output_embeddings()
        if not isinstance(linear, nn.Linear):
            raise ValueError(f"{type(model).__name__} has no linear head, but {type(linear).__name__}")
        if self.scores:
            setattr(model, SCORE, ScoreHead(linear, head_dtype))
        else:
            self.model.set_output_embeddings(LogprobHead(linear, head_dtype, scale_of(self.config)))

    @property
    def head(self) -> Any:
        """The model's head."""
        return getattr(self.model, SCORE) if self.scores else self.model.get_output_embeddings()

    def forward(self, batch: TrainBatch, temperature: float) -> tuple[Tensor, Tensor]:
        """-> logprobs [T], entropies [T] in float32: of token t given the tokens before it in its sequence.

        Both are 0 where the loss weight is 0 (prompts, padding of a share): nothing is computed there. A prompt's
        last hidden state predicts the first token of each completion that shares it. A classifier answers scores [T]
        and zeros, and its score of token t is of the sequence up to and including t.
        """
        if self.ulysses:
            layout, rank_range, token_ids, position_ids = self.ulysses.cut(batch)
        else:
            layout, rank_range = Layout.of(batch.sequence_ids, batch.position_ids), slice(0, len(batch.token_ids))
            token_ids, position_ids = batch.token_ids, batch.position_ids
        if self.packing == "padded":
            rows = Rows.of(layout)
            hidden = rows.flatten(self._hidden_states(input_ids=rows.fill(token_ids, 0)))
        else:
            arguments = attention.arguments(layout, self.packing, self.model.config._attn_implementation)
            hidden = self._hidden_states(input_ids=token_ids[None], position_ids=position_ids[None], **arguments)[0]
        targets = (batch.loss_weights != 0).nonzero()[:, 0]
        positions = targets if self.scores else layout.predecessors()[targets]
        on_this_rank = (positions >= rank_range.start) & (positions < rank_range.stop)
        targets, positions = targets[on_this_rank], positions[on_this_rank] - rank_range.start
        values = self.head(hidden[positions], batch.token_ids[targets], temperature)
        zeros = torch.zeros(len(batch.token_ids), dtype=torch.float32, device=hidden.device)
        logprobs, entropies = (zeros.index_put((targets,), value) for value in values)
        return (self.ulysses.join(logprobs), self.ulysses.join(entropies)) if self.ulysses else (logprobs, entropies)

    def _hidden_states(self, **arguments: Any) -> Tensor:
        """The last hidden states [rows, tokens, H], of the tokens of this rank."""
        backbone = self.model.base_model if self.model.base_model is not self.model else self.model.model
        return backbone(use_cache=False, return_dict=True, **arguments).last_hidden_state


def empty_model(
    path: Path, dtype: torch.dtype, attention_name: str, packing: Packing, *, scores: bool = False
) -> nn.Module:
    """The model at a Hugging Face folder, ready for batches in `packing`; without dropout.

    `scores`: a sequence classifier of one label, also where the folder holds a language model, whose head it lacks.
    Parameters are on `meta`, and buffers that checkpoints carry have no values yet.
    """
    from transformers import AutoConfig, AutoModelForCausalLM, AutoModelForSequenceClassification
    from transformers.initialization import meta_device_safe_creation_ops

    attention.register()
    config = without_noise(AutoConfig.from_pretrained(path, trust_remote_code=False))
    if scores:
        config.num_labels = 1
    with torch.device("meta"), meta_device_safe_creation_ops():
        model: Any = (AutoModelForSequenceClassification if scores else AutoModelForCausalLM).from_config(
            config,
            dtype=dtype,
            attn_implementation=attention_of(attention_name, packing),
            trust_remote_code=False,
        )
    if scores:
        model._keys_to_ignore_on_load_unexpected = {r"^lm_head\.", *(model._keys_to_ignore_on_load_unexpected or ())}
    _compute_buffers(model)
    return model


def _compute_buffers(model: Any) -> None:
    """Moves buffers from `meta` to the host, and computes buffers that no checkpoint carries, such as rotary tables."""
    kept_in_float32 = [name.replace("*", ".*") for name in model._keep_in_fp32_modules_strict]
    carried = carried_buffers(model)
    for module_name, module in model.named_modules():
        for name, buffer in module.named_buffers(recurse=False):
            full_name = f"{module_name}.{name}"
            precise = full_name in carried and any(re.search(pattern, full_name) for pattern in kept_in_float32)
            dtype = torch.float32 if precise else buffer.dtype
            setattr(module, name, torch.empty_like(buffer, device="cpu", dtype=dtype) if buffer.is_meta else buffer)
    for parameter in model.parameters():
        parameter._is_hf_initialized = True  # so that transformers computes buffers only
    model.initialize_weights()


def attention_of(name: str, packing: Packing) -> str | None:
    """The attention implementation of transformers for `learner.attention`; None: the model's own choice.

    Our attention knows packed sequences only, so padded rows take the implementation that the model prefers.
    """
    return None if name == PACKED_ATTENTION and packing == "padded" else name


def without_noise(config: Any) -> Any:
    """The same config, in place, with every dropout and router jitter at 0.

    A learner must compute the probabilities of the policy that sampled, and an engine drops nothing.
    """
    for part in {id(part): part for part in (config, config.get_text_config(decoder=True))}.values():
        for key, value in vars(part).items():
            if isinstance(value, float) and NOISE.search(key):
                setattr(part, key, 0.0)
    return config
