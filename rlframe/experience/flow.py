"""Prompts in flight: admitted by the staleness gate, drawn, scored, handed out as groups.

All of it runs in the background, so that drawing goes on while the driver waits for the learner.
"""

from __future__ import annotations

import asyncio
import time
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

from rlframe.batch.samples import has_signal
from rlframe.experience.background import Background
from rlframe.types import Prompt, RolloutGroup, SampledCompletion, Sampling, ScoredGroup, Verdict

if TYPE_CHECKING:
    from rlframe.prompts.stream import PromptStream
    from rlframe.reward.pool import RewardPool
    from rlframe.rollout.pool import RolloutPool


@dataclass(slots=True, kw_only=True)
class InFlight:
    """A prompt between admission and hand-out: its place in the stream, and what has come back so far."""

    prompt: Prompt
    position: int  # in the prompt stream
    version: int  # of the policy when it was admitted: none of its tokens is older
    drawn: dict[int, SampledCompletion] = field(default_factory=dict)  # by place in the group
    verdicts: dict[int, dict[str, Verdict]] = field(default_factory=dict)
    group: ScoredGroup | None = None  # once every completion has its verdicts


class Experience:
    """The ledger of prompts: each is admitted once, and leaves in one group or, without signal, not at all.

    At most (1 + max_staleness) * prompts_per_step prompts are out at a time. `take` waits for those that would
    else be too stale by their turn and fills up with whatever is ready, so no token is trained on that is more
    than `max_staleness` versions old. At 0 that is every prompt, in order: the result does not depend on timing.
    """

    def __init__(
        self,
        stream: PromptStream,
        rollouts: RolloutPool,
        rewards: RewardPool,
        sampling: Sampling,
        *,
        prompts_per_step: int,
        max_staleness: int,
        dynamic_sampling: bool,
        stall_timeout_s: float,
    ) -> None:
        self.stream = stream
        self.rollouts = rollouts
        self.rewards = rewards
        self.sampling = sampling
        self.capacity = (1 + max_staleness) * prompts_per_step
        self.max_staleness = max_staleness
        self.dynamic_sampling = dynamic_sampling
        self.in_flight: list[InFlight] = []  # in order of admission
        self.dropped = 0  # groups without signal that dynamic sampling replaced, since `metrics` last told
        self.throughput = Throughput()
        self.position = 0  # of the stream's next new prompt
        self._readmit: list[int] = []  # positions of prompts that a saved run had out
        self._background = Background("experience", stall_timeout_s)

    def take(self, count: int) -> list[ScoredGroup]:
        """The next `count` groups, in order of admission; admits as many new prompts as the gate allows.

        Raises whatever an engine or a reward worker raised, and Stalled when nothing moves for too long.
        """
        return self._background.run(self._take(count))

    def score(self, prompts: list[Prompt], sampling: Sampling) -> list[ScoredGroup]:
        """Draws and scores prompts that are no part of training, beside those that are; in the order given."""
        records = [InFlight(prompt=prompt, position=-1, version=self.rollouts.version) for prompt in prompts]
        return self._background.run(self._score(records, sampling))

    def metrics(self) -> dict[str, float]:
        """Drawing speed, and groups that dynamic sampling replaced, since the last call; and the reward pool's own."""
        dropped, self.dropped = self.dropped, 0
        speed = {"rollout/tokens_per_s": self.throughput.take(), "rollout/groups_replaced": float(dropped)}
        return speed | self.rewards.metrics()

    def state(self) -> dict[str, Any]:
        """What a checkpoint keeps: the place in the stream, and the places of the prompts that are out."""
        out = [record.position for record in self.in_flight]
        return {"position": self.position, "out": out + self._readmit}

    def restore(self, state: dict[str, Any]) -> None:
        """Continues from `state`: prompts that were out are drawn anew, before any new one."""
        self.position = state["position"]
        self._readmit = list(state["out"])

    def close(self) -> None:
        """Drops whatever is in flight."""
        self._background.close()

    async def _take(self, count: int) -> list[ScoredGroup]:
        self._admit()
        while True:
            self._drop_groups_without_signal()
            ready = [record for record in self.in_flight if record.group is not None]
            if len(ready) >= count and self._in_time(count):
                chosen = {id(record) for record in ready[:count]}
                self.in_flight = [record for record in self.in_flight if id(record) not in chosen]
                return [record.group for record in ready[:count] if record.group is not None]
            await self._background.change(partial(self._who_waits, self.in_flight))

    def _in_time(self, count: int) -> bool:
        """Whether this take of `count` and later ones can hand out every prompt before it is too stale.

        Of those whose last chance is now none may be waited for, of those whose last is `later` takes away at most
        what these can carry.
        """
        for later in range(self.max_staleness + 1):
            bound = self.rollouts.version - self.max_staleness + later
            waiting = [record.group is None for record in self.in_flight if record.version <= bound]
            if sum(waiting) > later * count:
                return False
        return True

    def _admit(self) -> None:
        """Fills the gate: prompts that a saved run had out first, then new ones of the stream."""
        admitted = []
        while len(self.in_flight) + len(admitted) < self.capacity:
            admitted.append(self._next_prompt())
        self.in_flight += admitted
        if admitted:
            self._background.start(self._draw(admitted, self.sampling))

    def _next_prompt(self) -> InFlight:
        if self._readmit:
            position = self._readmit.pop(0)
            prompt = self.stream.at(position)
        else:
            position = self.position
            prompt = self.stream.at(position)
            self.position += 1
        return InFlight(prompt=prompt, position=position, version=self.rollouts.version)

    def _drop_groups_without_signal(self) -> None:
        """With dynamic sampling, makes room for new prompts; on-policy only once all are in, for repeatability."""
        if not self.dynamic_sampling:
            return
        if self.max_staleness == 0 and any(record.group is None for record in self.in_flight):
            return
        kept = [record for record in self.in_flight if record.group is None or has_signal(record.group)]
        self.dropped += len(self.in_flight) - len(kept)
        self.in_flight = kept
        self._admit()

    async def _draw(self, records: list[InFlight], sampling: Sampling) -> None:
        """Draws all completions of `records`; each is scored as it ends, while others are still drawn."""
        by_prompt = {record.prompt.id: record for record in records}
        scoring = []
        with self.throughput:
            async for drawn in self.rollouts.generate([record.prompt for record in records], sampling):
                self.throughput.tokens += len(drawn.completion.token_ids)
                self._background.moved()
                scoring.append(asyncio.create_task(self._judge(by_prompt[drawn.prompt_id], drawn, sampling)))
        await asyncio.gather(*scoring)

    async def _judge(self, record: InFlight, drawn: SampledCompletion, sampling: Sampling) -> None:
        record.drawn[drawn.index] = drawn
        record.verdicts[drawn.index] = await self.rewards.score(record.prompt, drawn.completion)
        if len(record.verdicts) == sampling.completions:
            order = range(sampling.completions)
            group = RolloutGroup(prompt=record.prompt, completions=[record.drawn[i].completion for i in order])
            record.group = await self.rewards.score_group(group, [record.verdicts[i] for i in order])
        self._background.moved()

    async def _score(self, records: list[InFlight], sampling: Sampling) -> list[ScoredGroup]:
        drawing = self._background.start(self._draw(records, sampling))
        while not drawing.done():
            await self._background.change(partial(self._who_waits, records))
        await drawing
        return [record.group for record in records if record.group is not None]

    def _who_waits(self, records: list[InFlight]) -> str:
        waiting = [record for record in records if record.group is None]
        lines = [
            f"  {record.prompt.id}: {len(record.drawn)} completions drawn, {len(record.verdicts)} scored"
            for record in waiting[:8]
        ]
        return (
            f"nothing was drawn or scored for {self._background.stall_timeout_s:.0f} s (cluster.stall_timeout_s); "
            f"{len(waiting)} prompts wait, engines have {self.rollouts.outstanding} completions to draw, "
            f"reward workers {self.rewards.in_flight} to score:\n" + "\n".join(lines)
        )


class Throughput:
    """Tokens drawn per second of drawing: time in which nothing is drawn does not count."""

    def __init__(self) -> None:
        self.tokens = 0
        self.seconds = 0.0
        self._running = 0
        self._since = 0.0

    def __enter__(self) -> None:
        if self._running == 0:
            self._since = time.monotonic()
        self._running += 1

    def __exit__(self, *_: object) -> None:
        self._running -= 1
        if self._running == 0:
            self.seconds += time.monotonic() - self._since

    def take(self) -> float:
        """Tokens per second since the last call."""
        now = time.monotonic()
        seconds = self.seconds + (now - self._since if self._running else 0.0)
        rate = self.tokens / seconds if seconds > 0 else 0.0
        self.tokens, self.seconds, self._since = 0, 0.0, now
        return rate
