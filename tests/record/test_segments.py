"""Segments of the log: whatever the splits, files, tears and attempts, orders go on from their tokens."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest

from rlframe.record.frames import BrokenFrame, FrameWriter, Location
from rlframe.record.segments import LoggedOrder, Segment, read_body, read_segments
from rlframe.types import Completion, SampledTokens, VersionSpan
from tests.tiny.groups import make_group, make_multi_turn_group, make_turn, make_verdict, plain

KEY = "p@0#1"
KEYS = {KEY, "other", "p0@0#1", "p1@0#1"}


def random_tokens(count: int, seed: int) -> SampledTokens:
    """Tokens from 0 of several policy versions, with a span for each version."""
    rng = np.random.default_rng(seed)
    cuts = sorted({0, count, *rng.integers(0, count + 1, 3).tolist()})
    versions = [VersionSpan(version=4 + n, start=cuts[n], end=cuts[n + 1]) for n in range(len(cuts) - 1)]
    return SampledTokens(
        start=0,
        token_ids=rng.integers(0, 1000, count, np.int32),
        logprobs=-rng.random(count, np.float32),
        versions=versions,
    )


def part(tokens: SampledTokens, start: int, end: int) -> SampledTokens:
    spans = [(span.version, max(span.start, start), min(span.end, end)) for span in tokens.versions]
    return SampledTokens(
        start=start,
        token_ids=tokens.token_ids[start:end],
        logprobs=tokens.logprobs[start:end],
        versions=[VersionSpan(version=v, start=s, end=e) for v, s, e in spans if s < e],
    )


def write(file: Path, *events: Callable[[Segment], object]) -> None:
    file.parent.mkdir(exist_ok=True)
    segment = Segment(file)
    for event in events:
        event(segment)
    segment.close()


def read(ledger: Path, *names: str) -> dict[str, LoggedOrder]:
    warnings: list[str] = []
    orders = read_segments(ledger, [ledger / name for name in names], KEYS, warnings.append)
    assert warnings == []
    return orders


def adds(tokens: SampledTokens, key: str = KEY, index: int = 0, attempt: int = 1) -> Callable[[Segment], object]:
    return lambda segment: segment.add_tokens(key, index, attempt, tokens)


def ends(tokens: SampledTokens, key: str = KEY, index: int = 0) -> Callable[[Segment], object]:
    return lambda segment: segment.add_completion(key, index, completion(tokens))


def completion(tokens: SampledTokens) -> Completion:
    fields = {"token_ids": tokens.token_ids, "logprobs": tokens.logprobs, "versions": tokens.versions}
    return Completion(**fields, text="the end", finish_reason="stop")


@pytest.mark.parametrize("seed", range(40))
def test_random_parts_in_random_files_join_to_the_same_tokens(tmp_path: Path, seed: int):
    rng = random.Random(seed)
    wanted = {(f"p{p}@0#1", index): random_tokens(rng.randint(1, 60), 100 * seed + 10 * p + index)
              for p in range(2) for index in range(3)}  # fmt: skip
    queues = {place: [0, *sorted(rng.choices(range(1, len(t.token_ids) + 1), k=3)), len(t.token_ids)]
              for place, t in wanted.items()}  # fmt: skip
    events: list[Callable[[Segment], object]] = []
    while queues:
        (key, index), cuts = place, _ = rng.choice(list(queues.items()))
        events.append(adds(part(wanted[place], cuts[0], cuts[1]), key, index))
        del cuts[0]
        if len(cuts) == 1:
            del queues[place]
    files = sorted(rng.choices(range(4), k=len(events)))
    for number in range(4):
        write(tmp_path / "000001" / f"episodes-{number}.log",
              *[event for event, file in zip(events, files, strict=True) if file == number])  # fmt: skip
    orders = read(tmp_path, *[f"000001/episodes-{number}.log" for number in range(4)])
    found = {(key, index): tokens for key, order in orders.items() for index, tokens in order.tokens.items()}
    assert plain(found) == plain(wanted)


def test_tokens_of_a_later_attempt_replace_those_from_there_on(tmp_path: Path):
    old, new = random_tokens(50, 1), random_tokens(50, 2)
    write(tmp_path / "1" / "a", adds(part(old, 0, 10)), adds(part(old, 10, 20)), adds(part(old, 20, 30)))
    write(tmp_path / "1" / "b", adds(part(new, 15, 40), attempt=2))
    tokens = read(tmp_path, "1/a", "1/b")[KEY].tokens[0]
    assert tokens.token_ids.tolist() == [*old.token_ids[:15], *new.token_ids[15:40]]
    assert tokens.logprobs.tolist() == [*old.logprobs[:15], *new.logprobs[15:40]]
    covered = [span.start for span in tokens.versions] + [40]
    assert covered == [0, *[span.end for span in tokens.versions]]  # without gaps, also across the cut


def test_tokens_after_a_lost_part_are_not_used(tmp_path: Path):
    tokens = random_tokens(30, 1)
    write(tmp_path / "1" / "a", adds(part(tokens, 0, 10)), adds(part(tokens, 20, 30)), adds(part(tokens, 10, 12)))
    assert plain(read(tmp_path, "1/a")[KEY].tokens) == plain({0: part(tokens, 0, 12)})
    write(tmp_path / "1" / "b", adds(part(tokens, 10, 12)))
    assert read(tmp_path, "1/b") == {}


def test_a_completion_that_ended_has_its_verdicts_and_no_loose_tokens(tmp_path: Path):
    tokens, verdicts = random_tokens(9, 1), {"math": make_verdict(None, "the judge is down")}
    write(
        tmp_path / "1" / "a",
        adds(part(tokens, 0, 5)),
        ends(tokens),
        lambda segment: segment.add_verdicts(KEY, 0, verdicts),
        adds(part(tokens, 0, 3), index=1),
    )
    order = read(tmp_path, "1/a")[KEY]
    assert plain(order.completions) == plain({0: completion(tokens)})
    assert order.verdicts == {0: verdicts}
    assert plain(order.tokens) == plain({1: part(tokens, 0, 3)})


def test_a_completion_that_is_sampled_anew_loses_its_old_verdicts(tmp_path: Path):
    first, second = random_tokens(9, 1), random_tokens(7, 2)
    judged = ends(first), lambda segment: segment.add_verdicts(KEY, 0, {"math": make_verdict(1.0)})
    write(tmp_path / "1" / "a", *judged)
    write(tmp_path / "1" / "b", adds(part(second, 0, 4)))
    order = read(tmp_path, "1/a", "1/b")[KEY]
    assert (order.completions, order.verdicts) == ({}, {})
    assert plain(order.tokens) == plain({0: part(second, 0, 4)})
    write(tmp_path / "1" / "c", ends(second))
    order = read(tmp_path, "1/a", "1/c")[KEY]
    assert plain(order.completions) == plain({0: completion(second)})
    assert order.verdicts == {}


@pytest.mark.parametrize("ended_in_the_file", [True, False])
def test_a_body_comes_back_whole_by_its_location(tmp_path: Path, ended_in_the_file: bool):
    scored = make_group([1.0, None], [3, 5], name="p@0")
    (tmp_path / "000007").mkdir()
    segment = Segment(tmp_path / "000007" / "episodes-0.log")
    if ended_in_the_file:
        for index, sampled in enumerate(scored.group.completions):
            segment.add_completion(KEY, index, sampled)
    byte = segment.add_group(KEY, scored)
    segment.close()
    location = Location(file="000007/episodes-0.log", byte=byte)
    assert plain(read_body(tmp_path, location)) == plain(scored)
    assert read(tmp_path, "000007/episodes-0.log") == {KEY: LoggedOrder(body=location)}


def test_a_body_of_several_turns_comes_back_by_its_location(tmp_path: Path):
    tree = [make_turn(None, [1, 2], [3, 4]), make_turn(0, [5], [6])]
    scored = make_multi_turn_group([tree], [1.0])
    bytes_of: list[int] = []
    write(
        tmp_path / "1" / "a",
        lambda segment: segment.add_completion(KEY, 0, tree[1].completion),  # the first turn is not in the file
        lambda segment: bytes_of.append(segment.add_group(KEY, scored)),
    )
    assert plain(read_body(tmp_path, Location(file="1/a", byte=bytes_of[0]))) == plain(scored)


def test_a_completion_stands_once_in_a_file(tmp_path: Path):
    scored = make_group([1.0] * 4, [5000] * 4)
    events = [ends(random_tokens(1, 0), "other")]
    for index, sampled in enumerate(scored.group.completions):
        events.append(lambda segment, index=index, sampled=sampled: segment.add_completion(KEY, index, sampled))
    write(tmp_path / "1" / "a", *events, lambda segment: segment.add_group(KEY, scored))
    assert 4 * 5000 * 8 < (tmp_path / "1" / "a").stat().st_size < 4 * 5000 * 8 + 2000


def test_a_file_cut_at_any_byte_gives_the_orders_of_its_whole_events(tmp_path: Path):
    tokens = random_tokens(6, 1)
    write(tmp_path / "1" / "whole", *[adds(part(tokens, n, n + 1)) for n in range(6)])
    data = (tmp_path / "1" / "whole").read_bytes()
    lengths = []
    for cut in range(len(data) + 1):
        (tmp_path / "1" / "cut").write_bytes(data[:cut])
        orders = read(tmp_path, "1/cut")
        lengths.append(len(orders[KEY].tokens[0].token_ids) if orders else 0)
        assert plain(orders) == plain({KEY: LoggedOrder(tokens={0: part(tokens, 0, lengths[-1])})} if orders else {})
    assert lengths == sorted(lengths)
    assert set(lengths) == set(range(7))


def test_a_broken_middle_names_file_and_byte_and_gives_up_the_rest(tmp_path: Path):
    tokens = random_tokens(20, 1)
    write(tmp_path / "1" / "a", adds(part(tokens, 0, 5)))
    broken = (tmp_path / "1" / "a").stat().st_size
    write(tmp_path / "1" / "b", adds(part(tokens, 0, 5)), adds(part(tokens, 5, 9)), adds(part(tokens, 9, 12)))
    data = bytearray((tmp_path / "1" / "b").read_bytes())
    data[broken + 30] ^= 1  # in the second event's content
    (tmp_path / "1" / "b").write_bytes(data)
    write(tmp_path / "1" / "c", adds(part(tokens, 0, 3), key="other"))
    warnings: list[str] = []
    orders = read_segments(tmp_path, [tmp_path / "1" / name for name in "bc"], KEYS, warnings.append)
    assert plain(orders[KEY].tokens) == plain({0: part(tokens, 0, 5)})
    assert plain(orders["other"].tokens) == plain({0: part(tokens, 0, 3)})
    (warning,) = warnings
    assert f"1/b, byte {broken}: the frame's checksum is wrong; what the file holds from there on" in warning


def test_orders_that_nobody_asks_for_are_left_out(tmp_path: Path):
    write(tmp_path / "1" / "a", adds(random_tokens(3, 1)), adds(random_tokens(3, 1), key="taken@0#1"))
    assert list(read(tmp_path, "1/a")) == [KEY]


def test_a_file_that_is_gone_holds_nothing(tmp_path: Path):
    assert read(tmp_path, "000001/episodes-0.log") == {}


def test_a_segment_of_another_format_is_warned_about(tmp_path: Path):
    frames = FrameWriter(tmp_path / "a")
    frames.append(b"\x92\xa7segment\x02")  # ["segment", 2]
    frames.close()
    warnings: list[str] = []
    assert read_segments(tmp_path, [tmp_path / "a"], KEYS, warnings.append) == {}
    assert "byte 0: its format is 2, and this version of rlframe reads 1" in warnings[0]


def test_a_location_of_another_event_names_file_and_byte(tmp_path: Path):
    write(tmp_path / "1" / "a", adds(random_tokens(3, 1)))
    with pytest.raises(BrokenFrame, match=r"1/a, byte 0: the event is 'segment', not 'group'"):
        read_body(tmp_path, Location(file="1/a", byte=0))
