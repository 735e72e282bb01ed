"""`RowFeed`: written rows as the groups that a step trains on, in place of rollouts."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from hashlib import blake2b
from itertools import count
from typing import TYPE_CHECKING, Any, Protocol

from rlframe.algorithm.row_loss import RowLoss
from rlframe.batch.records import to_record
from rlframe.errors import ConfigError, RunFailed
from rlframe.prompts.overlap import digest
from rlframe.rows.types import Assessment, Comparison, Demonstration
from rlframe.types import Message, Prompt, RolloutGroup, ScoredGroup, Trajectory

if TYPE_CHECKING:
    from rlframe.algorithm import Algorithm
    from rlframe.algorithm.base import Lesson
    from rlframe.rows.stream import RowStream
    from rlframe.rows.types import Row
    from rlframe.training import GroupRecord

# Rows of a lesson: their class, what such a row does, and its shape.
ROWS: dict[Lesson, tuple[type[Row], str, str]] = {
    "demonstrations": (Demonstration, "shows one answer", "messages and answer"),
    "comparisons": (Comparison, "compares two answers", "chosen and rejected"),
    "assessments": (Assessment, "labels an answer", "an answer and its label, or steps and their labels"),
}


class Encoder(Protocol):
    """The tokens of rows: `rows/tokens.py` for log-probabilities, `rows/scoring.py` for scores."""

    def prompts(self, row: Row) -> list[list[Message]]: ...

    def trajectories(self, row: Row) -> list[Trajectory]: ...


class RowFeed:
    """Takes rows from a stream, and counts those that it drops because they are too long.

    Its state is a position of the stream, so a resumed run takes the rows that an uninterrupted one would take.
    """

    def __init__(
        self,
        stream: RowStream,
        encoder: Encoder,
        algorithm: Algorithm,
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
        self.algorithm = algorithm
        self.per_step = per_step
        self.max_tokens = max_tokens
        self.max_dropped_share = max_dropped_share
        self.planned = planned
        self.total = total
        self.held_out = held_out or {}
        self.position = 0  # of the stream
        self.dropped = 0

    def take(self) -> list[GroupRecord]:
        """The next step's rows, a group for each, whose body is the group itself.

        Raises ConfigError for a record that is no row, or is held out, and RunFailed where too many rows are too long.
        """
        taken = self.position - self.dropped
        wanted = self.per_step if self.total is None else max(1, min(self.per_step, self.total - taken))
        groups: list[ScoredGroup] = []
        while len(groups) < wanted:
            group = self._group(self.position)
            self.position += 1
            if longest(group) > self.max_tokens:
                self.dropped += 1
                self._check_dropped()
            else:
                groups.append(group)
        return to_records(groups)

    def every_row(self) -> Iterator[GroupRecord]:
        """Yields each row that the whole run takes, once, however many epochs take it. Raises ConfigError as `take`."""
        fits: dict[int, bool] = {}  # by the row's index, of those that are not too long
        taken, positions = 0, count()
        while taken < self.planned:
            index = self.stream.index(position := next(positions))
            if index not in fits:
                group = self._group(position)
                fits[index] = longest(group) <= self.max_tokens
                if fits[index]:
                    yield from to_records([group])
            elif len(fits) == len(self.stream.rows):
                return
            taken += fits[index]

    def _group(self, position: int) -> ScoredGroup:
        try:
            row = self.stream.at(position)
            group = to_group(row, self.encoder, self.algorithm, f"@{position}")
            if (heldout_id := held_out_id(row, self.encoder, self.held_out)) is not None:
                raise ValueError(heldout_among(1, 1, [f"{row.id} is {heldout_id}"]))
        except ValueError as error:
            raise ConfigError(f"rows: {error}") from error
        return group

    def state(self) -> dict[str, Any]:
        counts = {"position": self.position, "dropped": self.dropped}
        return counts | {"per_step": self.per_step, "max_tokens": self.max_tokens, "order": self.stream.digest}

    def restore(self, state: dict[str, Any]) -> None:
        """Raises ConfigError for other rows than the saved ones, of which a position would mean others.

        And for another number of rows in a step where it decides epochs, or which rows have sums by a reference.
        """
        compares = isinstance(self.algorithm, RowLoss) and self.algorithm.compares_with_reference
        if state.get("order", self.stream.digest) != self.stream.digest:
            raise ConfigError(
                "rows: their number, order (seed) or weights have changed since the run to resume began, so some rows "
                "would be taken twice and others never; restore them, or start a new run"
            )
        by_sums = "by which the reference has computed the sums of its rows", ", or start a new run"
        by_epochs = "by which its epochs are counted in steps", ", or end the run by steps=N epochs=null"
        for key, matters in (("per_step", compares or self.total is not None), ("max_tokens", compares)):
            now, saved = getattr(self, key), state.get(key, getattr(self, key))
            if matters and now != saved:
                reason, remedy = by_sums if compares else by_epochs
                raise ConfigError(
                    f"rows.{key}: {now}, but the run to resume took {saved}, {reason}; use {saved}{remedy}"
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


def held_out_id(row: Row, encoder: Encoder, held_out: Mapping[bytes, str]) -> str | None:
    """The held-out row whose conversation is before one of the row's turns to train on; None: there is none."""
    digests = map(digest, encoder.prompts(row)) if held_out else ()
    return next((held_out[found] for found in digests if found in held_out), None)


def heldout_among(count: int, rows: int, named: list[str]) -> str:
    return (
        f"heldout: {count} of {rows} rows have the conversation of a held-out row: {', '.join(named)}; take them out "
        "of one of the two"
    )


def to_group(row: Row, encoder: Encoder, algorithm: Algorithm, suffix: str = "") -> ScoredGroup:
    """A row as a group of its answers. `suffix` makes its id unique in the run.

    A demonstration has reward 1, the chosen answer of a comparison the row's margin above the rejected one's 0. Raises
    ValueError for a row of another kind than the algorithm learns from, or that the encoder refuses.
    """
    kind, _, shape = ROWS[algorithm.learns_from]
    if not isinstance(row, kind):
        [does] = (does for other, does, _ in ROWS.values() if isinstance(row, other))
        wanted = f"algorithm={algorithm.name} learns from {algorithm.learns_from}"
        raise ValueError(f"row {row.id} {does}, and {wanted}; give rows with {shape}")
    trajectories = encoder.trajectories(row)
    if isinstance(row, Comparison) and len({trajectory_digest(trajectory) for trajectory in trajectories}) == 1:
        raise ValueError(f"row {row.id}: chosen and rejected have the same tokens, so the row compares nothing")
    prompt = Prompt(
        id=row.id + suffix,
        messages=row.messages,
        token_ids=trajectories[0].turns[0].observed.tolist(),
        reference="",
        task=row.task,
    )
    return ScoredGroup(
        group=RolloutGroup(prompt=prompt, trajectories=trajectories),
        rewards=[row.margin or 0.0, 0.0] if isinstance(row, Comparison) else [1.0],
        verdicts={},
        labels=row.labels if isinstance(row, Assessment) else None,
    )


def row_digest(row: GroupRecord) -> str:
    """Equal for rows whose answers have equal tokens, under the same conversation."""
    return "".join(map(trajectory_digest, row.body.group.trajectories))


def trajectory_digest(trajectory: Trajectory) -> str:
    turns = [(turn.observed.tolist(), turn.completion.token_ids.tolist()) for turn in trajectory.turns]
    return blake2b(repr(turns).encode(), digest_size=12).hexdigest()


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
