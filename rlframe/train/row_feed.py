"""`RowFeed`: written rows as the groups that a step trains on, in place of rollouts."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

from rlframe.batch.records import to_record
from rlframe.errors import ConfigError, RunFailed
from rlframe.prompts.overlap import digest
from rlframe.types import Demonstration, Prompt, RolloutGroup, ScoredGroup

if TYPE_CHECKING:
    from rlframe.rows.records import Row
    from rlframe.rows.stream import RowStream
    from rlframe.rows.tokens import RowEncoder
    from rlframe.training import GroupRecord


class RowFeed:
    """Takes rows from a stream, and counts those that it drops because they are too long.

    Its state is a position of the stream, so a resumed run takes the rows that an uninterrupted one would take.
    """

    def __init__(
        self,
        stream: RowStream,
        encoder: RowEncoder,
        *,
        per_step: int,
        max_tokens: int,
        max_dropped_share: float,
        planned: int,
        total: int | None = None,
        held_out: Mapping[bytes, str] | None = None,
    ) -> None:
        """`planned`: rows that the whole run trains on. `total`: the same in a run of epochs, whose last step may have
        fewer than `per_step`; None: no bound. `held_out`: digest of a conversation -> id of the row.
        """
        self.stream = stream
        self.encoder = encoder
        self.per_step = per_step
        self.max_tokens = max_tokens
        self.max_dropped_share = max_dropped_share
        self.planned = planned
        self.total = total
        self.held_out = held_out or {}
        self.position = 0  # of the stream
        self.dropped = 0

    def take(self) -> list[GroupRecord]:
        """The next step's rows, a group of one for each, whose body is the group itself.

        Raises ConfigError for a record that is no row, or is held out, and RunFailed where too many rows are too long.
        """
        taken = self.position - self.dropped
        count = self.per_step if self.total is None else max(1, min(self.per_step, self.total - taken))
        groups: list[ScoredGroup] = []
        while len(groups) < count:
            try:
                row = self.stream.at(self.position)
                group = to_group(row, self.encoder, f"@{self.position}")
                if (heldout_id := held_out_id(row, self.encoder, self.held_out)) is not None:
                    raise ValueError(heldout_among(1, 1, [f"{row.id} is {heldout_id}"]))
            except ValueError as error:
                raise ConfigError(f"rows: {error}") from error
            self.position += 1
            if longest(group) > self.max_tokens:
                self.dropped += 1
                self._check_dropped()
            else:
                groups.append(group)
        return to_records(groups)

    def state(self) -> dict[str, Any]:
        return {"position": self.position, "dropped": self.dropped, "per_step": self.per_step}

    def restore(self, state: dict[str, Any]) -> None:
        """Raises ConfigError in a run of epochs whose earlier steps had another number of rows."""
        per_step = state.get("per_step", self.per_step)
        if self.total is not None and per_step != self.per_step:
            raise ConfigError(
                f"rows.per_step: {self.per_step}, but the run to resume took {per_step}, by which its epochs are "
                f"counted in steps; use {per_step}, or end the run by steps=N epochs=null"
            )
        self.position, self.dropped = state["position"], state["dropped"]

    def metrics(self) -> dict[str, float]:
        """Epochs that are taken, and rows that were too long so far."""
        return {"rows/epoch": self.position / len(self.stream), "rows/dropped": float(self.dropped)}

    def _check_dropped(self) -> None:
        """The share is of an epoch, or of a shorter run: after few rows it would be a matter of chance."""
        rows = max(self.position, min(self.planned + self.dropped, len(self.stream)))
        if self.dropped > self.max_dropped_share * rows:
            raise RunFailed(too_many_dropped(self.dropped, self.position, self.max_tokens, self.max_dropped_share))


def too_many_dropped(dropped: int, seen: int, max_tokens: int, max_share: float) -> str:
    return (
        f"rows.max_dropped_share: {dropped} of {seen} rows are longer than rows.max_tokens={max_tokens} and would be "
        f"dropped, more than the share {max_share:g}; raise rows.max_tokens (and learner.micro_batch_tokens), or the "
        "share"
    )


def held_out_id(row: Row, encoder: RowEncoder, held_out: Mapping[bytes, str]) -> str | None:
    """The held-out row whose conversation is before one of the row's turns to train on; None: there is none."""
    if not held_out or not isinstance(row, Demonstration):
        return None
    digests = map(digest, encoder.prompts(row))
    return next((held_out[found] for found in digests if found in held_out), None)


def heldout_among(count: int, rows: int, named: list[str]) -> str:
    return (
        f"heldout: {count} of {rows} rows have the conversation of a held-out row: {', '.join(named)}; take them out "
        "of one of the two"
    )


def to_group(row: Row, encoder: RowEncoder, suffix: str = "") -> ScoredGroup:
    """A demonstration as a group of one trajectory with reward 1; `suffix` makes its id unique in the run.

    Raises ValueError for a row that is no demonstration, or that the encoder refuses.
    """
    if not isinstance(row, Demonstration):
        raise ValueError(
            f"row {row.id} compares two answers, and algorithm=sft imitates one; give rows with messages and answer"
        )
    trajectory = encoder.trajectory(row)
    prompt = Prompt(
        id=row.id + suffix,
        messages=row.messages,
        token_ids=trajectory.turns[0].observed.tolist(),
        reference="",
        task=row.task,
    )
    return ScoredGroup(group=RolloutGroup(prompt=prompt, trajectories=[trajectory]), rewards=[1.0], verdicts={})


def to_records(groups: list[ScoredGroup]) -> list[GroupRecord]:
    """Records in which rows with the same prompt have one prompt id, so that a micro-batch computes it once."""
    prompts = [group.group.prompt for group in groups]
    first_ids = {tuple(prompt.token_ids): prompt.id for prompt in reversed(prompts)}
    return [
        to_record(group, body=group, worker="", prompt_id=first_ids[tuple(prompt.token_ids)])
        for group, prompt in zip(groups, prompts, strict=True)
    ]


def longest(group: ScoredGroup) -> int:
    """Tokens of the longest sequence of a group."""
    return max(size.tokens for trajectory in to_record(group, None, "").trajectories for size in trajectory.sequences)
