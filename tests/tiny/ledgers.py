"""Random ways of prompts through a ledger: admissions, scores in any order, drops, takes, lost groups."""

from __future__ import annotations

import random
from dataclasses import replace

from rlframe.experience.curriculum import Curriculum
from rlframe.experience.events import Event
from rlframe.experience.fold import Fold
from rlframe.experience.ledger import Ledger
from rlframe.prompts.config import CurriculumConfig
from rlframe.record.frames import Location
from rlframe.types import Prompt, Skipped
from tests.tiny.groups import make_record

PROBLEMS = 12  # of an epoch


def prompt_at(position: int) -> Prompt | Skipped:
    """Problem 5 of 12 is too long."""
    epoch, index = divmod(position, PROBLEMS)
    if index == 5:
        return Skipped(id=f"o5@{epoch}", reason="overlong")
    return Prompt(id=f"o{index}@{epoch}", messages=[], token_ids=[1], reference="", task="math")


def random_ledger(seed: int) -> Ledger:
    """A ledger of any settings; equal seeds give equal settings."""
    rng = random.Random(seed)
    count, staleness = rng.randint(1, 4), rng.randint(0, 3)
    curriculum = Curriculum(
        CurriculumConfig(solved_weight=0.5, failed_weight=0.25),
        lambda position: divmod(position, PROBLEMS),
        problems=PROBLEMS,
        prompts_per_step=count,
        reward="math",
        seed=seed,
        warn=lambda _: None,
    )
    return Ledger(
        prompts_per_step=count,
        max_staleness=staleness,
        dynamic_sampling=rng.random() < 0.5,
        late=rng.choice(["wait", "mask"]),
        curriculum=rng.choice([None, curriculum]),
    )


def act(ledger: Ledger, rng: random.Random, version: int) -> int:
    """A random call of the ledger -> the version of the next step."""
    unscored = [entry for entry in ledger.in_flight if entry.scored is None]
    scored = [entry for entry in ledger.in_flight if entry.scored is not None]
    match rng.choice(
        ["admit", "score", "score", "score", "again", "reopen", "give up", "drop", "take", "take", "late"]
    ):
        case "admit":
            ledger.admit(prompt_at, version, limit=rng.randint(1, 6))
        case "score" if unscored:
            score(ledger, rng.choice(unscored).key, rng)
        case "again" if scored and rng.random() < 0.3:
            score(ledger, rng.choice(scored).key, rng)
        case "reopen" if scored and rng.random() < 0.3:
            ledger.reopen(rng.choice(scored).key)
        case "give up" if unscored and rng.random() < 0.3:
            assert ledger.give_up(rng.choice(unscored).key)
        case "drop":
            ledger.drop_without_signal()
        case "take":
            version += ledger.take(ledger.prompts_per_step, version) is not None
        case "late" if ledger.batches:
            key = next(iter(ledger.batches.values()))[0].key
            assert not ledger.record_score(key, make_record([1.0, 0.0], [1, 1])) and not ledger.give_up(key)
    return version


def score(ledger: Ledger, key: str, rng: random.Random) -> None:
    rewards: list[float | None] = rng.choice([[1.0, 0.0], [1.0, 1.0], [0.0, 0.0]])
    location = Location(file=f"{ledger.epoch:06d}/episodes-0.log", byte=rng.randrange(1000))
    group = replace(make_record(rewards, [1, 1], name=key.partition("#")[0]), location=location)
    assert ledger.record_score(key, group)


def random_events(seed: int, calls: int) -> tuple[Ledger, list[Event]]:
    """A ledger after random calls, and its events."""
    ledger, rng, events, version = random_ledger(seed), random.Random(-1 - seed), [], 0
    ledger.emit = events.append
    ledger.admit(prompt_at, version, limit=2)
    for _ in range(calls):
        version = act(ledger, rng, version)
    return ledger, events


def check_balance(fold: Fold) -> None:
    """Every admitted prompt is in exactly one place, and none was taken twice."""
    assert fold.admitted == len(fold.in_flight) + fold.taken + fold.dropped
    batches = [entry.admitted.prompt_id for entries in fold.batches.values() for entry in entries]
    in_flight = [entry.admitted.prompt_id for entry in fold.in_flight]
    assert len(batches) == fold.taken  # none is forgotten
    assert len({*batches, *in_flight}) == len(batches) + len(in_flight)
    assert fold._next_position == fold.admitted + fold.skipped.total() + len(fold._interrupted)
