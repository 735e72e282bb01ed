"""`Fault`: what a chaos run gets, with the share of each kind, and the seeded plan of a whole run."""

from __future__ import annotations

import random
from dataclasses import dataclass
from typing import Literal, TypeAlias

# kill, terminate: SIGKILL, SIGTERM. stop: SIGSTOP, for ever. pause: SIGSTOP, then SIGCONT after some seconds.
# fill: the run's disk has no room for some seconds. scale: `rlframe scale`. second: another driver takes the run over.
Action: TypeAlias = Literal["kill", "terminate", "stop", "pause", "fill", "scale", "second"]
Target: TypeAlias = Literal["rollout", "episodes", "reward", "learner", "driver", "disk", "engines"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Fault:
    """A fault, whose victim is drawn when it happens."""

    target: Target  # the kind of an actor, or else
    action: Action

    def __str__(self) -> str:
        return f"{self.action} {self.target}"


SHARES: dict[Fault, int] = {
    Fault(target="rollout", action="kill"): 30,
    Fault(target="rollout", action="stop"): 20,
    Fault(target="rollout", action="terminate"): 14,
    Fault(target="rollout", action="pause"): 10,
    Fault(target="episodes", action="kill"): 16,
    Fault(target="episodes", action="stop"): 10,
    Fault(target="episodes", action="pause"): 6,
    Fault(target="reward", action="kill"): 14,
    Fault(target="reward", action="stop"): 8,
    Fault(target="reward", action="pause"): 4,
    Fault(target="learner", action="kill"): 16,
    Fault(target="learner", action="stop"): 4,
    Fault(target="learner", action="pause"): 6,
    Fault(target="driver", action="kill"): 8,
    Fault(target="driver", action="terminate"): 4,
    Fault(target="driver", action="second"): 4,
    Fault(target="disk", action="fill"): 6,
    Fault(target="engines", action="scale"): 20,
}
BY_NAME = {str(fault): fault for fault in SHARES}


def plan(count: int, random_source: random.Random, *, small_disk: bool) -> list[Fault]:
    """`count` faults in the given shares, in random order. `small_disk`: the run's disk can be filled."""
    shares = {fault: share for fault, share in SHARES.items() if small_disk or fault.target != "disk"}
    total = sum(shares.values())
    whole = {fault: count * share // total for fault, share in shares.items()}
    rest = count - sum(whole.values())
    faults = [fault for fault, number in whole.items() for _ in range(number)]
    faults += random_source.sample(list(shares), k=rest, counts=list(shares.values()))
    random_source.shuffle(faults)
    return faults


def parse(text: str) -> list[Fault]:
    """The faults that a command line names: "kill driver, kill rollout". Raises ValueError."""
    names = [name.strip() for name in text.split(",")]
    if unknown := [name for name in names if name not in BY_NAME]:
        raise ValueError(f"--plan: there is no fault {unknown[0]!r}; there are: {', '.join(BY_NAME)}")
    return [BY_NAME[name] for name in names]
