"""The ledger of prompts: admission, deadlines, hand-out, drops, and thousands of random orders of events."""

from __future__ import annotations

import json
import random

import pytest

from rlframe.errors import Fenced
from rlframe.experience.events import Event
from rlframe.experience.ledger import Ledger
from rlframe.training import GroupRecord
from rlframe.types import Attempt, Prompt, Skipped
from tests.tiny.groups import make_record


def prompt_at(position: int) -> Prompt:
    return Prompt(id=f"o{position}", messages=[], token_ids=[1], reference="", task="math")


def make_ledger(prompts_per_step: int = 2, max_staleness: int = 0, dynamic_sampling: bool = False) -> Ledger:
    return Ledger(prompts_per_step=prompts_per_step, max_staleness=max_staleness, dynamic_sampling=dynamic_sampling)


def score(ledger: Ledger, attempts: list[Attempt], *, equal: tuple[str, ...] = ()) -> None:
    for attempt in attempts:
        rewards: list[float | None] = [1.0, 1.0 if attempt.prompt.id in equal else 0.0]
        assert ledger.record_score(attempt.key, make_record(rewards, [1, 1], name=attempt.prompt.id))


def names(groups: list[GroupRecord] | list[Attempt]) -> list[str]:
    return [entry.prompt_id if isinstance(entry, GroupRecord) else entry.prompt.id for entry in groups]


def taken(ledger: Ledger, count: int, version: int) -> list[str] | None:
    groups = ledger.take(count, version)
    return None if groups is None else names(groups)


@pytest.mark.parametrize("max_staleness, in_flight", [(0, 2), (1, 4), (2, 6)])
def test_one_plus_k_steps_of_prompts_are_in_flight(max_staleness: int, in_flight: int) -> None:
    ledger = make_ledger(max_staleness=max_staleness)
    admitted = ledger.admit(prompt_at, version=0, limit=99)
    assert names(admitted) == [f"o{position}" for position in range(in_flight)]
    assert {(attempt.number, attempt.version) for attempt in admitted} == {(1, 0)}
    assert ledger.admit(prompt_at, version=0, limit=99) == []
    score(ledger, admitted[:2])
    assert taken(ledger, 2, version=0) == ["o0", "o1"]
    assert names(ledger.admit(prompt_at, version=1, limit=99)) == [f"o{in_flight}", f"o{in_flight + 1}"]


def test_on_policy_a_step_takes_prompts_in_the_order_of_admission() -> None:
    ledger = make_ledger()
    first, second = ledger.admit(prompt_at, version=0, limit=99)
    score(ledger, [second])
    assert taken(ledger, 2, version=0) is None
    score(ledger, [first])
    assert taken(ledger, 2, version=0) == ["o0", "o1"]


def test_after_a_score_that_the_log_refuses_a_take_has_the_log_s_reason() -> None:
    ledger = make_ledger()

    def refuse(event: Event) -> None:
        raise Fenced("another driver has taken over")

    attempts = ledger.admit(prompt_at, version=0, limit=99)
    ledger.emit = refuse
    for attempt in attempts:
        with pytest.raises(Fenced):
            score(ledger, [attempt])
    with pytest.raises(Fenced):
        ledger.take(2, version=0)


def test_one_step_ahead_a_prompt_that_is_due_is_waited_for() -> None:
    ledger = make_ledger(max_staleness=1)
    late, *others = ledger.admit(prompt_at, version=0, limit=99)
    score(ledger, others)
    assert taken(ledger, 2, version=0) == ["o1", "o2"]  # o0 has time: it may be one version old
    score(ledger, ledger.admit(prompt_at, version=1, limit=99))
    assert taken(ledger, 2, version=1) is None  # o3, o4 and o5 are scored, and yet
    score(ledger, [late])
    assert taken(ledger, 2, version=1) == ["o0", "o3"]


def test_two_late_prompts_are_not_both_left_for_the_last_step() -> None:
    ledger = make_ledger(prompts_per_step=1, max_staleness=2)
    first, second, third = ledger.admit(prompt_at, version=0, limit=99)
    score(ledger, [third])
    assert taken(ledger, 1, version=0) == ["o2"]
    score(ledger, ledger.admit(prompt_at, version=1, limit=99))
    assert taken(ledger, 1, version=1) is None  # were o3 taken, o0 and o1 would both be left for version 2
    score(ledger, [second])
    assert taken(ledger, 1, version=1) == ["o1"]
    score(ledger, [first])
    assert taken(ledger, 1, version=2) == ["o0"]


def test_dynamic_sampling_drops_groups_of_equal_rewards() -> None:
    ledger = make_ledger(dynamic_sampling=True)
    first, second = ledger.admit(prompt_at, version=0, limit=99)
    score(ledger, [second], equal=("o1",))
    assert ledger.drop_without_signal() == []  # on-policy: not before all are scored
    score(ledger, [first])
    assert names(ledger.drop_without_signal()) == ["o1"]
    assert names(ledger.admit(prompt_at, version=0, limit=99)) == ["o2"]
    assert (ledger.admitted, ledger.taken, ledger.dropped) == (3, 0, 1)


def test_the_algorithm_may_say_which_groups_have_signal() -> None:
    ledger = make_ledger(dynamic_sampling=True)
    ledger.has_signal = lambda group: group.prompt_id == "o0"  # whose rewards are equal
    score(ledger, ledger.admit(prompt_at, version=0, limit=99), equal=("o0",))
    assert names(ledger.drop_without_signal()) == ["o1"]
    assert [entry.key for entry in ledger.in_flight] == ["o0#1"]


def test_without_dynamic_sampling_equal_rewards_are_taken() -> None:
    ledger = make_ledger()
    score(ledger, ledger.admit(prompt_at, version=0, limit=99), equal=("o0", "o1"))
    assert ledger.drop_without_signal() == []
    assert taken(ledger, 2, version=0) == ["o0", "o1"]


def test_a_restored_ledger_admits_interrupted_prompts_first() -> None:
    ledger = make_ledger(max_staleness=1)
    score(ledger, ledger.admit(prompt_at, version=0, limit=99)[1:3])
    assert taken(ledger, 2, version=0) == ["o1", "o2"]
    state = json.loads(json.dumps(ledger.state(version=1)))
    assert state == {
        "next_position": 4,
        "in_flight": [[0, 1], [3, 1]],
        "taken": 2,
        "dropped": 0,
        "given_up": 0,
        "skipped": {},
    }

    resumed = make_ledger(max_staleness=1)
    resumed.restore(state)
    attempts = resumed.admit(prompt_at, version=1, limit=99)
    assert [(attempt.prompt.id, attempt.number) for attempt in attempts] == [("o0", 2), ("o3", 2), ("o4", 1), ("o5", 1)]
    assert (resumed.admitted, resumed.taken) == (6, 2)


def test_a_checkpoint_counts_prompts_that_were_given_up() -> None:
    ledger = make_ledger(max_staleness=1)
    assert ledger.give_up(ledger.admit(prompt_at, version=0, limit=99)[0].key)
    resumed = make_ledger(max_staleness=1)
    resumed.restore(json.loads(json.dumps(ledger.state(version=0))))
    assert (resumed.dropped, resumed.given_up) == (1, 1)


def test_prompts_that_were_taken_and_not_trained_on_are_in_flight() -> None:
    ledger = make_ledger(max_staleness=1)
    score(ledger, ledger.admit(prompt_at, version=0, limit=99)[1:3])
    ledger.take(2, version=0)
    state = ledger.state(version=0)  # a signal came before the step that makes version 1
    assert (state["in_flight"], state["taken"]) == ([[1, 1], [2, 1], [0, 1], [3, 1]], 0)

    resumed = make_ledger(max_staleness=1)
    resumed.restore(json.loads(json.dumps(state)))
    assert names(resumed.admit(prompt_at, version=0, limit=99)) == ["o1", "o2", "o0", "o3"]


def test_a_restored_ledger_with_less_room_keeps_the_rest() -> None:
    resumed = make_ledger(prompts_per_step=1)
    state = {
        "next_position": 4,
        "in_flight": [[0, 1], [1, 1], [3, 2]],
        "taken": 1,
        "dropped": 0,
        "given_up": 0,
        "skipped": {},
    }
    resumed.restore(state)
    assert resumed.state(version=0) == state
    score(resumed, resumed.admit(prompt_at, version=0, limit=99))
    assert taken(resumed, 1, version=0) == ["o0"]
    assert resumed.state(version=1) == {
        "next_position": 4,
        "in_flight": [[1, 1], [3, 2]],
        "taken": 2,
        "dropped": 0,
        "given_up": 0,
        "skipped": {},
    }


def test_an_answer_to_an_earlier_attempt_is_ignored() -> None:
    ledger = make_ledger()
    earlier, _ = ledger.admit(prompt_at, version=0, limit=99)
    resumed = make_ledger()
    resumed.restore(ledger.state(version=0))
    assert not resumed.record_score(earlier.key, make_record([1.0, 0.0], [1, 1], name="o0"))  # not admitted yet
    resumed.admit(prompt_at, version=0, limit=99)
    assert not resumed.record_score(earlier.key, make_record([1.0, 0.0], [1, 1], name="o0"))
    assert resumed.take(2, version=0) is None


def test_an_answer_after_the_prompt_was_taken_is_ignored() -> None:
    ledger = make_ledger()
    attempts = ledger.admit(prompt_at, version=0, limit=99)
    score(ledger, attempts)
    assert taken(ledger, 2, version=0) == ["o0", "o1"]
    assert not ledger.record_score(attempts[0].key, make_record([1.0, 0.0], [1, 1], name="o0"))


def test_a_prompt_that_cannot_be_made_leaves_the_ledger_unchanged() -> None:
    def broken(position: int) -> Prompt:
        raise ValueError(f"prompt {position} is too long")

    ledger = make_ledger()
    with pytest.raises(ValueError, match="prompt 0 is too long"):
        ledger.admit(broken, version=0, limit=99)
    assert (ledger.admitted, ledger.in_flight, ledger.state(version=0)["next_position"]) == (0, [], 0)


def every_third_skipped(position: int) -> Prompt | Skipped:
    return Skipped(id=f"o{position}", reason="overlong") if position % 3 == 0 else prompt_at(position)


def test_a_skipped_position_is_counted_and_the_next_one_admitted() -> None:
    ledger = make_ledger()
    admitted = ledger.admit(every_third_skipped, version=0, limit=99)
    assert names(admitted) == ["o1", "o2"]
    assert (ledger.admitted, dict(ledger.skipped)) == (2, {"overlong": 1})
    score(ledger, admitted)
    ledger.take(2, version=0)
    assert names(ledger.admit(every_third_skipped, version=1, limit=99)) == ["o4", "o5"]
    state = {
        "next_position": 6,
        "in_flight": [[4, 1], [5, 1]],
        "taken": 2,
        "dropped": 0,
        "given_up": 0,
        "skipped": {"overlong": 2},
    }
    assert ledger.state(version=1) == state

    resumed = make_ledger()
    resumed.restore(json.loads(json.dumps(state)))
    assert names(resumed.admit(every_third_skipped, version=1, limit=99)) == ["o4", "o5"]
    assert dict(resumed.skipped) == {"overlong": 2}


def test_an_interrupted_prompt_may_be_skipped_under_a_new_config() -> None:
    ledger = make_ledger()
    ledger.restore({"next_position": 2, "in_flight": [[0, 1], [1, 1]], "taken": 0, "dropped": 0, "skipped": {}})
    assert names(ledger.admit(every_third_skipped, version=0, limit=99)) == ["o1", "o2"]
    assert (ledger.admitted, dict(ledger.skipped)) == (2, {"overlong": 1})


def check(ledger: Ledger, out: list[str], dropped: set[str]) -> None:
    """Every admitted prompt is in exactly one place, and none was handed out twice."""
    in_flight = [entry.admitted.prompt_id for entry in ledger.in_flight]
    assert ledger.admitted == len(in_flight) + ledger.taken + ledger.dropped
    assert ledger.taken == len(out) and ledger.dropped == len(dropped)
    assert len({*in_flight, *out, *dropped}) == len(in_flight) + len(out) + len(dropped)
    # Every position up to the next one is admitted, skipped, or interrupted.
    assert ledger._next_position == ledger.admitted + ledger.skipped.total() + len(ledger._interrupted)


@pytest.mark.parametrize("block", range(20))
def test_random_events_lose_no_prompt_and_repeat_none(block: int) -> None:
    for seed in range(100 * block, 100 * (block + 1)):
        run_random_events(seed)


def run_random_events(seed: int) -> None:
    """60 random events: admissions, scores in any order, late answers, takes, restarts from a checkpoint.

    In half of the cases the ledger skips every third position of the stream.
    """
    rng = random.Random(seed)
    count, staleness = rng.randint(1, 4), rng.randint(0, 3)
    ledger = make_ledger(count, staleness, dynamic_sampling=rng.random() < 0.5)
    stream_at = rng.choice([prompt_at, every_third_skipped])
    pending: list[Attempt] = []  # that engines still work on
    stale: list[Attempt] = []  # of a process that died
    out: list[str] = []
    dropped: set[str] = set()
    version = 0
    for _ in range(60):
        match rng.choice(["admit", "score", "score", "late", "drop", "take", "take", "restart"]):
            case "admit":
                pending += ledger.admit(stream_at, version, limit=99)
            case "score" if pending:
                attempt = pending.pop(rng.randrange(len(pending)))
                equal = (attempt.prompt.id,) if rng.random() < 0.3 else ()
                score(ledger, [attempt], equal=equal)
            case "late" if stale:
                assert not ledger.record_score(rng.choice(stale).key, make_record([1.0, 0.0], [1, 1]))
            case "drop":
                dropped |= set(names(ledger.drop_without_signal()))
            case "take":
                unscored = {attempt.prompt.id for attempt in pending}
                if (groups := ledger.take(count, version)) is not None:
                    assert len(groups) == count and not unscored & set(names(groups))
                    out += names(groups)
                    version += 1
            case "restart" if rng.random() < 0.3:
                stale += pending
                state, pending = json.loads(json.dumps(ledger.state(version))), []
                in_flight = {entry.admitted.prompt_id for entry in ledger.in_flight}
                ledger = make_ledger(count, staleness, ledger.dynamic_sampling)
                ledger.restore(state)
                assert {prompt_at(position).id for position, _ in state["in_flight"]} >= in_flight
        # A prompt is never older at its hand-out than the bound: else a take waits.
        unscored = [entry for entry in ledger.in_flight if entry.scored is None]
        assert all(version - entry.admitted.version <= staleness for entry in unscored)
        check(ledger, out, dropped)
    # Nothing is lost: with everything scored, the stream comes out without a gap.
    for _ in range(40):
        pending += ledger.admit(stream_at, version, limit=99)
        score(ledger, pending)
        pending = []
        dropped |= set(names(ledger.drop_without_signal()))
        if (groups := ledger.take(count, version)) is not None:
            out += names(groups)
            version += 1
    positions = sorted(int(name[1:]) for name in {*out, *dropped})
    in_flight = {entry.admitted.prompt_id for entry in ledger.in_flight}
    admissible = {position for position in range(max(positions)) if isinstance(stream_at(position), Prompt)}
    assert admissible - set(positions) <= {int(name[1:]) for name in in_flight}
    assert all(isinstance(stream_at(position), Prompt) for position in positions)
