"""`open_rows`: the rows of a tuning run, checked before a rank starts."""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from rlframe.errors import ConfigError
from rlframe.model.classifier import padding_of
from rlframe.prompts.overlap import digest
from rlframe.record.row_total import keep_total
from rlframe.rows.scoring import ScoreEncoder
from rlframe.rows.sources import in_order
from rlframe.rows.stream import RowStream
from rlframe.rows.tokens import RowEncoder, end_token_ids
from rlframe.train.row_feed import (
    Encoder,
    RowFeed,
    held_out_id,
    heldout_among,
    longest,
    to_group,
    to_records,
    too_many_dropped,
)

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlframe.config.tune import TuneConfig
    from rlframe.training import GroupRecord
    from rlframe.types import ScoredGroup

CHECK_S = 60.0  # for the check of rows at the start; the others are checked as they are taken
NAMED_ROWS = 3
HELD_OUT = "@heldout"  # between the id of a held-out row and its number


@dataclass(frozen=True, slots=True, kw_only=True)
class OpenRows:
    """The rows of a run, ready to be taken."""

    feed: RowFeed
    heldout: list[GroupRecord]
    steps: int  # of the whole run


def open_rows(
    run: TuneConfig,
    tokenizer: PreTrainedTokenizerBase,
    model_path: Path,
    total_file: Path,
    warn: Callable[[str], None],
) -> OpenRows:
    """Reads and encodes the rows, as many of them as a minute allows.

    `total_file` keeps the rows of all epochs for a resumed run. `warn` gets lines for the console.

    Raises ConfigError for a record of another kind than the algorithm learns from, an answer that contradicts its
    prompt, too many rows that are too long, and rows that are held out.
    """
    settings = run.rows
    try:
        encoder = _encoder(run, tokenizer, model_path)
        heldout = _held_out(run, encoder)
        stream = RowStream(settings.sources, run.seed)
        held_out = {digest(group.group.prompt.messages): _row_id(group) for group in heldout}
        checked = _check(stream, encoder, run, held_out)
    except ConfigError:
        raise
    except ValueError as error:
        raise ConfigError(f"rows: {error}") from error
    if checked.rows < len(stream.rows):
        seen = f"{checked.rows} of {len(stream.rows)} rows were checked in {CHECK_S:g} s"
        warn(f"rows: {seen}; the others are checked as they are taken")
    if checked.dropped:
        warn(f"rows: {checked.dropped} of {checked.rows} rows are longer than rows.max_tokens, and are dropped")
    total = None
    if run.epochs is not None:
        total = max(1, round(run.epochs * len(stream) * (1 - checked.dropped_share)))
        total = keep_total(total_file, epochs=run.epochs, epoch_rows=len(stream), total=total)
    planned = (run.steps or 0) * settings.per_step if total is None else total
    feed = RowFeed(
        stream,
        encoder,
        run.algorithm,
        per_step=settings.per_step,
        max_tokens=settings.max_tokens,
        max_dropped_share=settings.max_dropped_share,
        planned=planned,
        total=total,
        held_out=held_out,
    )
    steps = run.steps if total is None else math.ceil(total / settings.per_step)
    assert steps is not None, "a check has seen to steps or epochs"
    return OpenRows(feed=feed, heldout=to_records(heldout) if run.evaluation_every else [], steps=steps)


def _encoder(run: TuneConfig, tokenizer: PreTrainedTokenizerBase, model_path: Path) -> Encoder:
    """The encoder of answers for the head that the algorithm trains. Raises ValueError as the encoders do."""
    if run.algorithm.asks != "scores":
        return RowEncoder(tokenizer, run.rows.template, run.rows.turns, end_token_ids(model_path, tokenizer))
    return ScoreEncoder(tokenizer, run.rows.template, padding_of(model_path, tokenizer))


@dataclass(frozen=True, slots=True, kw_only=True)
class Checked:
    """The rows that were looked at before the start."""

    rows: int
    dropped: int  # of them, because they are too long
    dropped_share: float  # of an epoch, which takes rows of some parts more often


def _check(stream: RowStream, encoder: Encoder, run: TuneConfig, heldout: dict[bytes, str]) -> Checked:
    """Encodes rows for a minute. `heldout`: digest of a held-out conversation -> id. Raises ValueError."""
    deadline = time.monotonic() + CHECK_S
    checked = dropped = 0
    weight = dropped_weight = 0.0
    held_out: list[str] = []
    for index, row in enumerate(in_order(stream.rows)):
        too_long = longest(to_group(row, encoder, run.algorithm)) > run.rows.max_tokens
        checked += 1
        dropped += too_long
        weight += stream.weight(index)
        dropped_weight += too_long * stream.weight(index)
        if (heldout_id := held_out_id(row, encoder, heldout)) is not None:
            held_out.append(f"{row.id} is {heldout_id}")
        if time.monotonic() > deadline:
            break
    if held_out:
        raise ValueError(heldout_among(len(held_out), checked, held_out[:NAMED_ROWS]))
    if dropped > run.rows.max_dropped_share * checked:
        raise ConfigError(too_many_dropped(dropped, checked, run.rows.max_tokens, run.rows.max_dropped_share))
    return Checked(rows=checked, dropped=dropped, dropped_share=dropped_weight / weight)


def _held_out(run: TuneConfig, encoder: Encoder) -> list[ScoredGroup]:
    """Every held-out row. Raises ValueError for a row that is too long to be evaluated, and for a weight."""
    sources = run.rows.heldout.sources
    if not sources:
        return []
    if weighted := [name for name, source in sources.items() if source.weight != 1]:
        raise ValueError(f"heldout.parts.{weighted[0]}.weight: every held-out row is evaluated once; leave it out")
    rows = in_order(RowStream(sources, run.seed).rows)
    # Rows of two files may have the same id, and a learner shares the prompt of rows with one id.
    groups = [to_group(row, encoder, run.algorithm, f"{HELD_OUT}{index}") for index, row in enumerate(rows)]
    too_long = [group for group in groups if longest(group) > run.rows.max_tokens]
    if too_long and run.evaluation_every:
        raise ValueError(
            f"heldout: row {_row_id(too_long[0])} has {longest(too_long[0])} tokens, more than rows.max_tokens="
            f"{run.rows.max_tokens}; raise it, or leave the row out"
        )
    return groups


def _row_id(group: ScoredGroup) -> str:
    """The id of a held-out group's row."""
    return group.group.prompt.id.rpartition(HELD_OUT)[0]
