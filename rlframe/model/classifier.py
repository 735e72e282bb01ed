"""A Hugging Face sequence classifier with one output: scores conversations."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

from rlframe.prompts.rendering import Renderer
from rlframe.prompts.template import ChatTemplate
from rlframe.types import Message

if TYPE_CHECKING:
    from transformers import PreTrainedModel, PreTrainedTokenizerBase


class Classifier:
    """The model in a folder, and its tokenizer. Methods block; call them from one thread at a time."""

    def __init__(self, folder: str, dtype: str, device: str, max_tokens: int) -> None:
        """`device`: cpu, cuda, or auto (cuda if available). Raises ValueError that lists what the folder lacks."""
        import torch
        from transformers import AutoModelForSequenceClassification, AutoTokenizer

        self.max_tokens = max_tokens
        self.device = ("cuda" if torch.cuda.is_available() else "cpu") if device == "auto" else device
        self.tokenizer: PreTrainedTokenizerBase = AutoTokenizer.from_pretrained(folder, trust_remote_code=False)
        loaded: Any = AutoModelForSequenceClassification.from_pretrained(
            folder, dtype=getattr(torch, dtype), output_loading_info=True, trust_remote_code=False
        )
        model, loading_info = loaded
        self.model: PreTrainedModel = model.to(self.device).eval()
        config = self.model.config.get_text_config()
        config.use_cache = False  # a sequence takes a single pass, which would never read the cache
        # The model scores the last token that is not padding, so the model and `forward` must pad with the same token.
        self.padding_id = padding_id(config, self.tokenizer)
        config.pad_token_id = self.padding_id
        positions = getattr(config, "max_position_embeddings", max_tokens)
        missing_weights = loading_info["missing_keys"]
        checks = {
            f"its weights lack {sorted(missing_weights)}, which would be random": missing_weights,
            f"it has {self.model.config.num_labels} labels, not 1": self.model.config.num_labels != 1,
            "its tokenizer has no chat template": not self.tokenizer.chat_template,
            "neither its config nor its tokenizer has a padding token": self.padding_id is None,
            f"max_tokens {max_tokens} is more than its {positions} positions": max_tokens > positions,
        }
        if problems := [problem for problem, applies in checks.items() if applies]:
            raise ValueError(f"preference model {folder}: {'; '.join(problems)}")
        template = ChatTemplate(chat_template=None, chat_template_kwargs=None, raw=False)
        self._renderer = Renderer(self.tokenizer, template)

    def tokenize(self, messages: list[Message], completion: str) -> tuple[list[int], int]:
        """Token ids of the conversation, and its full length. Drops tokens after the first beyond `max_tokens`."""
        conversation = [*messages, {"role": "assistant", "content": completion}]
        token_ids = self._renderer.conversation_token_ids(conversation)
        if len(token_ids) <= self.max_tokens:
            return token_ids, len(token_ids)
        return token_ids[:1] + token_ids[1 - self.max_tokens :], len(token_ids)

    def forward(self, batch: list[list[int]]) -> list[float]:
        """Scores [B] of token ids, [B] sequences, in one forward pass.

        Padding is on the right. On the left it would shift positions, and with them scores.
        """
        import torch

        longest = max(map(len, batch))
        token_ids = torch.tensor([ids + [self.padding_id] * (longest - len(ids)) for ids in batch])  # [B, L]
        mask = torch.tensor([[1] * len(ids) + [0] * (longest - len(ids)) for ids in batch])  # [B, L]
        with torch.inference_mode():
            output = self.model(input_ids=token_ids.to(self.device), attention_mask=mask.to(self.device))
        return output.logits[:, 0].float().tolist()


def padding_id(config: Any, tokenizer: PreTrainedTokenizerBase) -> int | None:
    """The padding token of a classifier; None: it has none. `config`: of the language model."""
    found: Any = config.pad_token_id if config.pad_token_id is not None else tokenizer.pad_token_id
    return found


def padding_of(folder: Path, tokenizer: PreTrainedTokenizerBase) -> int:
    """The padding token of a classifier that is trained from the model in `folder`: its own, or else its end token.

    Raises ValueError for a model with neither.
    """
    from transformers import AutoConfig

    config = AutoConfig.from_pretrained(folder, trust_remote_code=False).get_text_config()
    found = padding_id(config, tokenizer)
    if found is None and not isinstance(found := tokenizer.eos_token_id, int):
        raise ValueError("the model has neither a padding token nor an end token; add one to its tokenizer")
    return found
