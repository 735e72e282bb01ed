"""`ledger/000007/episodes-0.log`: the segment of the run's log that an episode worker writes in an epoch.

A file of frames. The first one holds the format; each other one is an event of an order, in the order of time:

    ["tokens", key, index, attempt, tokens]      new tokens of completion `index`, which is not finished
    ["ended", key, index, completion]            the whole completion
    ["verdicts", key, index, verdicts]           of the rewards that look at one completion
    ["group", key, body]                         the scored group; completions that ended in this file stand there once
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Container, Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path

from rlframe.record.codec import (
    Encoded,
    decode_completion,
    decode_group,
    decode_tokens,
    decode_verdicts,
    encode_completion,
    encode_group,
    encode_tokens,
    encode_verdicts,
    from_bytes,
    to_bytes,
)
from rlframe.record.frames import BrokenFrame, FrameWriter, Location, read_frame, read_frames
from rlframe.types import Completion, SampledTokens, Sampling, ScoredGroup, Verdict, VersionSpan

FORMAT = 1


class Segment:
    """Writes a new segment. Events wait in memory until `flush`, which another thread may call."""

    def __init__(self, file: Path) -> None:
        """Makes the file in a folder that exists. Raises OSError, FileExistsError for a file that is there."""
        self.file = file
        self._frames = FrameWriter(file)
        self._bytes: dict[Completion, int] = {}  # ended completions of groups without a body -> first byte
        self._append(["segment", FORMAT])

    def add_tokens(self, key: str, index: int, attempt: int, tokens: SampledTokens) -> None:
        self._append(["tokens", key, index, attempt, encode_tokens(tokens)])

    def add_completion(self, key: str, index: int, completion: Completion) -> None:
        self._bytes[completion] = self._append(["ended", key, index, encode_completion(completion)])

    def add_verdicts(self, key: str, index: int, verdicts: dict[str, Verdict]) -> None:
        self._append(["verdicts", key, index, encode_verdicts(verdicts)])

    def add_group(self, key: str, scored: ScoredGroup) -> int:
        """-> the first byte of the group's frame."""
        return self._append(["group", key, encode_group(scored, lambda completion: self._bytes.pop(completion, None))])

    def forget(self, completions: Iterable[Completion]) -> None:
        """Frees the completions of a group that is given up."""
        for completion in completions:
            self._bytes.pop(completion, None)

    def flush(self) -> None:
        """Returns once the disk has all events so far. Raises OSError."""
        self._frames.flush()

    def close(self) -> None:
        self._frames.close()

    def _append(self, event: Encoded) -> int:
        return self._frames.append(to_bytes(event))


@dataclass(slots=True, kw_only=True)
class LoggedOrder:
    """The last state of an order in the log."""

    tokens: dict[int, SampledTokens] = field(default_factory=dict)  # index -> tokens from 0, of unfinished completions
    completions: dict[int, Completion] = field(default_factory=dict)  # index -> finished completion
    verdicts: dict[int, dict[str, Verdict]] = field(default_factory=dict)  # index -> of a finished completion
    body: Location | None = None  # of the scored group; then the rest is empty

    def extend(self, index: int, tokens: SampledTokens) -> None:
        """Adds tokens of an unfinished completion, unless tokens before them are missing."""
        known = self.tokens.get(index)
        length = known.end if known else 0
        if self.body is None and index not in self.completions and tokens.start <= length < tokens.end:
            new = tokens.since(length)
            self.tokens[index] = SampledTokens.joined([known, new]) if known else new

    def under(self, sampling: Sampling) -> LoggedOrder:
        """The part of an order that today's settings allow, where a resume has lowered them.

        Without completions beyond the group, and without unfinished ones of more than `max_tokens` tokens, after which
        no engine can go on.
        """
        group = range(sampling.completions)
        return LoggedOrder(
            tokens={i: part for i, part in self.tokens.items() if i in group and part.end <= sampling.max_tokens},
            completions={i: completion for i, completion in self.completions.items() if i in group},
            verdicts={i: verdicts for i, verdicts in self.verdicts.items() if i in group},
            body=self.body,
        )


def segment_files(ledger: Path, epochs: Iterable[int]) -> list[Path]:
    """The segments of all episode workers in these epochs, in the order of time.

    A worker that took the place of a lost one has a higher number: "episodes-2.log" is read before "episodes-10.log".
    """
    folders = [ledger / f"{epoch:06d}" for epoch in sorted(epochs)]
    return [file for folder in folders for file in sorted(folder.glob("episodes-*.log"), key=_number)]


def read_body(ledger: Path, location: Location) -> ScoredGroup:
    """The scored group at a location. Raises BrokenFrame naming file and byte, and OSError."""
    file = ledger / location.file

    def completion_at(byte: int) -> Completion:
        return decode_completion(_event(file, byte, "ended")[-1])

    return decode_group(_event(file, location.byte, "group")[-1], completion_at)


def read_segments(
    ledger: Path, files: Iterable[Path], keys: Container[str], warn: Callable[[str], None]
) -> dict[str, LoggedOrder]:
    """Order key -> the order's last state, for each of `keys` that has any event.

    `files`: segments in the order of time, below `ledger`, the folder of all epochs. Later events replace earlier ones:
    tokens from token n on replace all that were known from there. A file that is broken in the middle is warned about,
    and its later events are missing. A file that is gone is empty.
    """
    fold = OrderFold()
    for file in files:
        try:
            for byte, event in _events(file):
                if event[1] in keys:
                    fold.apply(event, Location(file=file.relative_to(ledger).as_posix(), byte=byte))
        except FileNotFoundError:
            continue
        except ValueError as error:
            warn(f"{error}; what the file holds from there on is sampled and scored again")
    return fold.orders()


class OrderFold:
    """The state of orders after a sequence of events."""

    def __init__(self) -> None:
        self._orders: dict[str, LoggedOrder] = {}
        # Order key -> index -> tokens of an unfinished completion, without gaps.
        self._chunks: defaultdict[str, dict[int, list[SampledTokens]]] = defaultdict(dict)

    def apply(self, event: Encoded, location: Location) -> None:
        """`location`: of the event."""
        kind, key, *rest = event
        order = self._orders.setdefault(key, LoggedOrder())
        match kind, rest:
            case "tokens", [index, _, tokens]:
                self._add_tokens(order, key, index, decode_tokens(tokens))
            case "ended", [index, completion]:
                self._reset(order, key, index)
                order.completions[index] = decode_completion(completion)
            case "verdicts", [index, verdicts] if index in order.completions:
                order.verdicts[index] = decode_verdicts(verdicts)
            case "group", _:
                self._chunks.pop(key, None)
                self._orders[key] = LoggedOrder(body=location)

    def orders(self) -> dict[str, LoggedOrder]:
        for key, order in self._orders.items():
            tokens = {index: SampledTokens.joined(chunks) for index, chunks in self._chunks[key].items()}
            order.tokens = {index: part for index, part in tokens.items() if part.end}
        return {key: order for key, order in self._orders.items() if order != LoggedOrder()}

    def _add_tokens(self, order: LoggedOrder, key: str, index: int, chunk: SampledTokens) -> None:
        """Adds tokens that continue the known ones, or replace them from an earlier token on."""
        if chunk.start == 0:
            self._reset(order, key, index)  # sampled anew
        elif index in order.completions or order.body is not None:
            return
        chunks = self._chunks[key].get(index, [])
        if chunk.start > (chunks[-1].end if chunks else 0):
            return  # a part in between is lost
        while chunks and chunks[-1].start >= chunk.start:
            chunks.pop()
        if chunks and chunks[-1].end > chunk.start:
            chunks[-1] = _cut(chunks[-1], chunk.start)
        chunks.append(chunk)
        self._chunks[key][index] = chunks

    def _reset(self, order: LoggedOrder, key: str, index: int) -> None:
        self._chunks[key].pop(index, None)
        order.completions.pop(index, None)
        order.verdicts.pop(index, None)
        order.body = None


def _number(file: Path) -> int:
    """The number of an episode worker, by its segment's name."""
    return int(file.stem.rpartition("-")[2])


def _cut(tokens: SampledTokens, end: int) -> SampledTokens:
    """The tokens before token `end` of the completion."""
    count = end - tokens.start
    spans = [span for span in tokens.versions if span.start < end]
    return SampledTokens(
        start=tokens.start,
        token_ids=tokens.token_ids[:count],
        logprobs=tokens.logprobs[:count],
        versions=[VersionSpan(version=s.version, start=s.start, end=min(s.end, end)) for s in spans],
    )


def _events(file: Path) -> Iterator[tuple[int, Encoded]]:
    """Yields (first byte, event). Raises BrokenFrame and OSError."""
    for byte, content in read_frames(file):
        event = _decoded(file, byte, content)
        if event[0] != "segment":
            yield byte, event
        elif event[1] != FORMAT:
            raise BrokenFrame(
                f"{file}, byte {byte}: its format is {event[1]}, and this version of rlframe reads {FORMAT}"
            )


def _event(file: Path, byte: int, kind: str) -> Encoded:
    """The event of a kind that begins at a byte. Raises BrokenFrame and OSError."""
    event = _decoded(file, byte, read_frame(file, byte))
    if event[0] != kind:
        raise BrokenFrame(f"{file}, byte {byte}: the event is {event[0]!r}, not {kind!r}")
    return event


def _decoded(file: Path, byte: int, content: bytes) -> Encoded:
    try:
        return from_bytes(content)
    except ValueError as error:
        raise BrokenFrame(f"{file}, byte {byte}: the frame holds no event: {error}") from error
