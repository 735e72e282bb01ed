"""The state of prompts as the fold of events: thousands of random sequences, and sequences with a mistake."""

from __future__ import annotations

import json
import random

import msgpack
import pytest

from rlframe.experience.events import (
    Admitted,
    Dropped,
    Event,
    RefusedEvent,
    Reopened,
    Scored,
    Taken,
    from_values,
    to_values,
)
from rlframe.experience.fold import Fold
from tests.tiny.ledgers import check_balance, random_events, random_ledger

BLOCKS, SEQUENCES = 20, 500  # 10,000 in all


def written(events: list[Event]) -> list[Event]:
    """Events as they come back from a log."""
    return [from_values(msgpack.unpackb(msgpack.packb(to_values(event)))) for event in events]


def fold(seed: int, events: list[Event]) -> Fold:
    folded = random_ledger(seed)
    for event in events:
        folded.apply(event)
    return folded


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_fold_of_random_events_is_the_ledger_that_made_them(block: int) -> None:
    for seed in range(SEQUENCES * block, SEQUENCES * (block + 1)):
        ledger, events = random_events(seed, calls=40)
        events = written(events)
        whole = fold(seed, events)
        assert whole.snapshot(0) == ledger.snapshot(0)
        check_balance(whole)

        assert msgpack.unpackb(msgpack.packb(whole.snapshot(0))) == whole.snapshot(0)  # as heads are compared
        cut = random.Random(seed).randint(0, len(events))
        continued = random_ledger(seed)
        continued.load(json.loads(json.dumps(fold(seed, events[:cut]).snapshot(0))))
        for event in events[cut:]:
            continued.apply(event)
        assert continued.snapshot(0) == whole.snapshot(0)


@pytest.mark.parametrize("block", range(BLOCKS))
def test_a_sequence_with_a_mistake_is_refused_or_in_balance(block: int) -> None:
    refused = 0
    for seed in range(SEQUENCES // 10 * block, SEQUENCES // 10 * (block + 1)):
        _, events = random_events(seed, calls=40)
        rng = random.Random(seed)
        place, other = rng.randrange(len(events)), rng.randrange(len(events))
        wrong = {
            "left out": events[:place] + events[place + 1 :],
            "twice": events[: place + 1] + events[place:],
            "moved": [*events[:place], events[other], *events[place:other], *events[other + 1 :]],
        }[rng.choice(["left out", "twice", "moved"])]
        folded = random_ledger(seed)
        for event in wrong:
            before = folded.snapshot(0)
            try:
                folded.apply(event)
            except RefusedEvent:
                refused += 1
                assert folded.snapshot(0) == before
                break
        check_balance(folded)
    assert refused > 20  # of 50


def admitted(position: int, **changes: object) -> Admitted:
    values = {"number": 1, "version": 0, "order": position, "epoch": 1} | changes
    return Admitted(position=position, prompt_id=f"o{position}", **values)  # pyright: ignore


def scored(name: str, signal: bool = True) -> Scored:
    return Scored(key=f"{name}#1", location=None, signal=signal, outcome=None)


START = [admitted(0), admitted(1), scored("o0"), scored("o1", signal=False)]
REFUSED = [
    (admitted(0, order=2), "the next position is 2"),
    (admitted(3, order=2), "the next position is 2"),
    (admitted(2, order=1), "the next admission is number 2, attempt 1"),
    (admitted(2, number=2), "the next admission is number 2, attempt 1"),
    (scored("o2"), "the prompt is not in flight under this attempt"),
    (Dropped(key="o0#1", reason="no signal"), "the prompt can only be taken"),
    (Dropped(key="o1#1", reason="given up"), "the prompt can only be no signal"),
    (Taken(version=0, keys=("o1#1",)), "ready are ['o0#1']"),
    (Taken(version=0, keys=("o0#1", "o0#1")), "ready are ['o0#1']"),
    (Taken(version=0, keys=()), "ready are []"),
    (Reopened(key="o5#1"), "the prompt is not in flight under this attempt"),
]


@pytest.mark.parametrize("event, reason", REFUSED)
def test_an_event_that_cannot_follow_is_refused_with_its_reason(event: Event, reason: str) -> None:
    folded = Fold(prompts_per_step=1, max_staleness=1)
    for earlier in START:
        folded.apply(earlier)
    with pytest.raises(RefusedEvent, match="cannot follow") as refusal:
        folded.apply(event)
    assert reason in str(refusal.value)


def test_steps_take_their_batches_at_versions_without_a_gap() -> None:
    folded = Fold(prompts_per_step=1, max_staleness=1)
    for event in [*START, Taken(version=4, keys=("o0#1",)), Reopened(key="o1#1"), scored("o1")]:
        folded.apply(event)
    with pytest.raises(RefusedEvent, match="the next step trains version 5"):
        folded.apply(Taken(version=6, keys=("o1#1",)))
    folded.apply(Taken(version=5, keys=("o1#1",)))
    assert {version: [entry.key for entry in batch] for version, batch in folded.batches.items()} == {
        4: ["o0#1"],
        5: ["o1#1"],
    }
    folded.forget(5)
    assert (list(folded.batches), folded.taken, folded.admitted) == ([5], 2, 2)


@pytest.mark.parametrize("values", [[], ["Gone", 1], ["Taken", 1], ["Scored", "o0#1", ["file"], True, None], None])
def test_values_that_are_no_event_are_refused(values: object) -> None:
    with pytest.raises(RefusedEvent, match="is no event"):
        from_values(values)  # pyright: ignore
