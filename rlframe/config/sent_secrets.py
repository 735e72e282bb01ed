"""`refuse_sent_secrets`: nothing that a submission sends holds the value of a secret that this machine knows."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any

from rlframe.config.environment import MIN_HIDDEN
from rlframe.config.sent_files import SentFiles
from rlframe.errors import ConfigError
from rlframe.record.secrets import secret

if TYPE_CHECKING:
    from rlframe.config.keys import SharedKeys

USUAL = ("WANDB_API_KEY", "HF_TOKEN", "RAY_AUTH_TOKEN")  # looked for without a mention in the config
KEY_ENV = "key_env"  # of a judge


def refuse_sent_secrets(run: SharedKeys, overrides: Sequence[str], sent: SentFiles) -> None:
    """Raises ConfigError, with the name of the secret and the place, and without the value."""
    names = dict.fromkeys([*run.secrets, *_key_envs(run.model_dump()), *USUAL])
    values = {name: value for name in names if (value := secret(name)) and len(value) >= MIN_HIDDEN}
    places = {f"the override {text.partition('=')[0]}": text for text in overrides}
    places |= {f"cluster.env_vars.{name}": value for name, value in run.cluster.env_vars.items()}
    places |= {
        f"the file {place}": file.read_bytes().decode(errors="replace") for place, file in sent.files.items() if values
    }
    for name, value in values.items():
        for place, text in places.items():
            if value in text:
                raise ConfigError(
                    f"secrets: {place} holds the value of {name}, and the cluster's jobs API shows it to everybody who "
                    f"may ask; leave the value out, and set {name} on the cluster's machines (docs/clusters.md)"
                )


def _key_envs(settings: Any) -> Iterator[str]:
    """Every name under a key `key_env` in nested settings."""
    if isinstance(settings, dict):
        for key, value in settings.items():
            if key == KEY_ENV and isinstance(value, str):
                yield value
            yield from _key_envs(value)
    elif isinstance(settings, list):
        for value in settings:
            yield from _key_envs(value)
