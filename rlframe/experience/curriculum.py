"""`Curriculum`: problems that all completions solved, or failed, are drawn less often in later epochs. Pure."""

from __future__ import annotations

import base64
import random
import zlib
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from rlframe.errors import RunFailed
from rlframe.experience.outcome import Outcome, outcome_of
from rlframe.training import GroupRecord

if TYPE_CHECKING:
    from rlframe.prompts.config import CurriculumConfig

# A problem's entry in the record: its last outcome. OPEN: not sampled yet, mixed, or without a verdict.
OPEN, SOLVED, FAILED, LEFT_OUT = range(4)  # LEFT_OUT: the stream skips it, as it is too long or held out
ENTRIES = {"solved": SOLVED, "failed": FAILED}


class Curriculum:
    """The last outcome of every problem, which decides at the admission of a position whether its problem is drawn.

    With `solved_weight` 0.25, a problem that all completions solved in epoch 3 is drawn in epoch 4 with probability
    1/4, and so in every epoch, until it is sampled and one of its completions is wrong. Outcomes, seed, epoch and
    problem decide. A resumed run restores the outcomes, so it draws the same problems.

    An epoch that would draw fewer problems than a step takes draws all of them.
    """

    def __init__(
        self,
        config: CurriculumConfig,
        locate: Callable[[int], tuple[int, int]],
        *,
        problems: int,
        prompts_per_step: int,
        reward: str,
        seed: int,
        warn: Callable[[str], None],
    ) -> None:
        """`locate`: position in the stream -> epoch and index of the problem. `reward`: decides if it is solved."""
        self._weights = {OPEN: 1.0, SOLVED: config.solved_weight, FAILED: config.failed_weight}
        self._locate = locate
        self._prompts_per_step = prompts_per_step
        self._reward = reward
        self._seed = seed
        self._warn = warn
        self._record = bytearray(problems)
        self._epoch = 0  # the newest one of which a position was asked for
        self._draws_all = False  # in that epoch

    def draws(self, position: int) -> bool:
        """True if the problem at a position is sampled. Positions are asked for in ascending order."""
        self.reach(position)
        epoch, index = self._locate(position)
        weight = 1.0 if self._draws_all else self._weights.get(self._record[index], 1.0)
        if weight in (0, 1):
            return weight == 1
        return random.Random(f"{self._seed}/{epoch}/{index}").random() < weight

    def reach(self, position: int) -> None:
        """Begins the epoch of a position, if the position is the first one of it that is asked for."""
        epoch, _ = self._locate(position)
        if epoch > self._epoch:
            self._begin(epoch)

    def leave_out(self, position: int) -> None:
        """Notes that the stream skips the problem at a position."""
        self._record[self._locate(position)[1]] = LEFT_OUT

    def outcome(self, group: GroupRecord) -> Outcome | None:
        """The outcome of a problem's group by the reward that decides."""
        return outcome_of(group, self._reward)

    def note(self, position: int, outcome: Outcome | None) -> None:
        """Notes the outcome of the problem at a position."""
        self._record[self._locate(position)[1]] = ENTRIES.get(outcome or "", OPEN)

    def metrics(self) -> dict[str, float]:
        """Shares of all problems: last solved by all completions, last failed by all, expected to be skipped."""
        total = len(self._record)
        return {
            "curriculum/solved": self._record.count(SOLVED) / total,
            "curriculum/failed": self._record.count(FAILED) / total,
            "curriculum/skipped": (self._reachable() - self._expected()) / total,
        }

    def state(self) -> dict[str, Any]:
        """The part of a checkpoint: a byte a problem, compressed."""
        record = base64.b64encode(zlib.compress(self._record)).decode()
        return {"record": record, "epoch": self._epoch, "draws_all": self._draws_all}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`. Raises RunFailed if it is of another number of problems."""
        record = bytearray(zlib.decompress(base64.b64decode(state["record"])))
        if len(record) != len(self._record):
            raise RunFailed(
                f"the checkpoint's curriculum is of {len(record)} problems, and prompts.train has {len(self._record)}: "
                "resume with the same problems, or with prompts.curriculum=null"
            )
        self._record, self._epoch, self._draws_all = record, state["epoch"], state["draws_all"]

    def _begin(self, epoch: int) -> None:
        """Decides whether the epoch draws all problems, and says so unless the previous one did as well."""
        drew_all, self._draws_all = self._draws_all, self._expected() < min(self._prompts_per_step, self._reachable())
        self._epoch = epoch
        if self._draws_all and not drew_all:
            self._warn(
                f"prompts.curriculum: of {self._reachable()} problems {self._record.count(SOLVED)} were solved by all "
                f"completions and {self._record.count(FAILED)} by none, which would leave less than a step's prompts "
                f"in epoch {epoch}: it draws every problem"
            )

    def _reachable(self) -> int:
        return len(self._record) - self._record.count(LEFT_OUT)

    def _expected(self) -> float:
        """Number of problems that an epoch is expected to draw."""
        return sum(weight * self._record.count(entry) for entry, weight in self._weights.items())
