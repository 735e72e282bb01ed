"""Sink that sends metrics to Weights & Biases."""

from __future__ import annotations

import secrets
from pathlib import Path
from typing import Any, Literal

from rlframe.errors import ConfigError
from rlframe.record.config import TrackingConfig
from rlframe.record.text import without_secrets


def check_key(tracking: TrackingConfig) -> None:
    """Raises ConfigError where a run would go on to ask for a key of W&B, or miss the package."""
    if not tracking.wandb:
        return
    try:
        import wandb
    except ModuleNotFoundError as error:
        raise ConfigError("tracking.wandb: needs the extra wandb: pip install 'rlframe[wandb]'") from error
    if tracking.mode == "online":
        from wandb.sdk.lib import wbauth  # wandb.login() would ask the server, and perhaps the user

        host, problem = wandb.setup(wandb.Settings(silent=True)).settings.base_url, ""
        try:
            key = wbauth.authenticate_session(host=host, source="rlframe", prompt=False, update_session=False)
        except wandb.Error as error:  # a key of another form
            key, problem = None, f" ({error})"
        finally:
            wandb.teardown()  # its service process: children of this process would go on to look for the service
        if key is None:
            raise ConfigError(
                f"tracking.mode: online finds no key of W&B{problem}; set WANDB_API_KEY, or run `wandb login` once, or "
                "use tracking.mode=offline"
            )


class WandbSink:
    """Logs to Weights & Biases. Mode "offline" needs no key and no network; `wandb sync` uploads an offline run later.

    The run directory holds the W&B id, so that a resumed run continues its charts.
    """

    def __init__(
        self, run_dir: Path, config: dict[str, Any], project: str, mode: Literal["online", "offline", "disabled"]
    ) -> None:
        import wandb

        run_dir.mkdir(parents=True, exist_ok=True)
        id_file = run_dir / "wandb_id"
        if not id_file.exists():
            id_file.write_text(secrets.token_hex(4))
        self._run = wandb.init(
            project=project,
            name=run_dir.name,
            id=id_file.read_text(),
            resume="allow" if mode == "online" else None,  # other modes have no server to ask
            dir=run_dir,
            config=without_secrets(config),
            mode=mode,
            # Only our console writes to the terminal. The metadata would hold the command line, secrets included.
            settings=wandb.Settings(console="off", silent=True, x_disable_meta=True),
        )
        # W&B's own step may only grow, but a resumed run logs the steps after its checkpoint again.
        self._run.define_metric("*", step_metric="step")

    def log(self, step: int, metrics: dict[str, float]) -> None:
        self._run.log({"step": step} | metrics)

    def close(self) -> None:
        """Ends the run, and W&B's service process, which would else report a lost connection when Python exits."""
        import wandb

        self._run.finish()
        wandb.teardown()
