"""Settings of the trackers that a run's metrics also go to."""

from __future__ import annotations

from typing import Literal

from rlframe.schema import Config


class TrackingConfig(Config):
    """`conf/tracking/*.yaml`."""

    wandb: bool
    project: str
    mode: Literal["online", "offline"]
