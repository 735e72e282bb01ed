"""Templates of prompts, and chat templates in the manner of well-known models, for the tiny tokenizer."""

from __future__ import annotations

from typing import Any

from rlframe.prompts.template import Template

# In the manner of SmolLM2: a system message of its own where the conversation has none.
SMOLLM2 = (
    "{% if messages[0]['role'] != 'system' %}<|system|>You are a helpful AI assistant.<|end|>{% endif %}"
    "{% for message in messages %}<|{{ message['role'] }}|>{{ message['content'] }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>{% endif %}"
)
# In the manner of Qwen3: thoughts of earlier turns go, and thinking that is off is opened and closed in the prompt.
QWEN3 = (
    "{% for message in messages %}{% set content = message['content'] %}"
    "{% if message['role'] == 'assistant' and '</think>' in content %}"
    "{% set content = content.split('</think>')[-1].lstrip('\\n') %}{% endif %}"
    "<|{{ message['role'] }}|>{{ content }}<|end|>{% endfor %}"
    "{% if add_generation_prompt %}<|assistant|>"
    "{% if enable_thinking is defined and enable_thinking is false %}<think>\n\n</think>\n\n{% endif %}{% endif %}"
)
# In the manner of Qwen3 too: thoughts that a message keeps apart stand in their tags behind the last question.
QWEN3_APART = QWEN3.replace(
    "<|{{ message['role'] }}|>{{ content }}<|end|>",
    "<|{{ message['role'] }}|>{% if loop.last and message.reasoning_content %}"
    "<think>\n{{ message.reasoning_content }}\n</think>\n\n{% endif %}{{ content }}<|end|>",
)
# In the manner of DeepSeek-R1's distillations: thoughts of earlier turns go, and the prompt opens new ones.
R1_DISTILL = (
    "{{ bos_token }}{% for message in messages %}"
    "{% if message['role'] == 'system' %}{{ message['content'] }}{% endif %}"
    "{% if message['role'] == 'user' %}<|user|>{{ message['content'] }}{% endif %}"
    "{% if message['role'] == 'assistant' %}<|assistant|>{{ message['content'].split('</think>')[-1] }}<|end|>"
    "{% endif %}{% endfor %}{% if add_generation_prompt %}<|assistant|><think>\n{% endif %}"
)


def make_template(**changes: Any) -> Template:
    """The bare question under the model's chat template, but for `changes`."""
    settings: dict[str, Any] = {"system": "", "user": "{question}", "examples": []}
    settings |= {"chat_template": None, "chat_template_kwargs": None, "raw": False}
    return Template.model_validate(settings | changes)
