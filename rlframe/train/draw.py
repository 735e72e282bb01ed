"""`draw`: a run that samples and scores prompts onto disk, part by part, and goes on with missing parts."""

from __future__ import annotations

import time
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import Future
from contextlib import ExitStack
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, TypeAlias

from rlframe.actors.chat import ChatClient
from rlframe.config import environment
from rlframe.config.compose import save
from rlframe.errors import ConfigError, RunFailed
from rlframe.experience.endpoint import EndpointScorer
from rlframe.experience.scoring import Scorer
from rlframe.model import base_model
from rlframe.prompts.visible_text import VisibleText
from rlframe.record.console import Console
from rlframe.record.directory import RunDir
from rlframe.record.draws import DrawCounts, DrawFolder
from rlframe.record.secrets import HOW, endpoint_key
from rlframe.rows.files import write_rows
from rlframe.select.items import read_items
from rlframe.select.steps import StepPrompts
from rlframe.train.evaluate import sampling_of
from rlframe.train.joining import join
from rlframe.train.prompts import open_stream, open_tokenizer
from rlframe.train.reporter import Reporter
from rlframe.train.signals import Stop, StopSignals
from rlframe.types import Prompt, Sampling, ScoredGroup, Skipped

if TYPE_CHECKING:
    from transformers import PreTrainedTokenizerBase

    from rlframe.cluster.actors import Actors
    from rlframe.cluster.placement import Role
    from rlframe.config.draw import DrawRun, EndpointConfig
    from rlframe.prompts.stream import PromptStream

AnyStream: TypeAlias = "PromptStream | StepPrompts"
ROWS = "rows.jsonl"  # of a draw that continues earlier completions
OPEN_PARTS = 2  # the second keeps the engines busy while the last completions of the first finish


class AnyScorer(Protocol):
    """Scored groups of prompts: `Scorer` by engines, `EndpointScorer` by an endpoint."""

    def begin(self, prompts: list[Prompt], sampling: Sampling) -> Future[list[ScoredGroup]]: ...

    def finish(self, future: Future[list[ScoredGroup]]) -> list[ScoredGroup]: ...

    def tokens(self, group: ScoredGroup) -> int: ...


@dataclass(frozen=True, slots=True, kw_only=True)
class Part:
    """The prompts of a part's positions, and the skipped ones."""

    number: int  # from 1 on
    prompts: list[Prompt]
    skipped: list[Skipped]


def draw(run: DrawRun) -> DrawCounts:
    """Draws all missing parts -> the counts of the whole draw, which are also printed and written.

    Raises Stop after a signal, ConfigError for a folder of something else and for prompts that cannot be used,
    RunFailed where too many prompts are given up or the endpoint is gone, and the errors of an evaluation. Parts on
    disk stay.
    """
    files, signals = RunDir(Path(run.run_dir)), StopSignals()
    signals.listen()
    key = _key(run.draw.endpoint)
    folder = DrawFolder(files.path, run.deciding_settings())
    with ExitStack() as stack:
        stack.callback(folder.close)
        console = stack.enter_context(Console(0, run.deciding_reward))
        reporter = stack.enter_context(Reporter(files, 0, console.warn))
        served = run.draw.endpoint.base_url is not None
        with console.phase("preparing the model and the prompts"):
            model_path = Path() if served else base_model.prepare(run.model.path)
            stream = _stream(run, None if served else open_tokenizer(model_path), console.warn)
        folder.note_problems(len(stream), run.draw.continue_from or "prompts.train")
        positions = _positions(run, stream)
        missing = folder.missing(-(-len(positions) // run.draw.part))
        if missing:
            save(run, files.config)
            roles: tuple[Role, ...] = ("reward",) if served else ("rollout", "reward")
            joined_cluster = join(stack, run, roles, console, signals)
            with console.phase("starting reward workers" if served else "starting engines and reward workers"):
                actors = joined_cluster.start(model_path, console.warn)
            scorer = _scorer(run, key, actors, stack, console.warn)
            progress = scorer.progress if isinstance(scorer, Scorer) else None
            reporter.follow(actors.background, actors.starter.handles, progress)
            writer = PartWriter(run, folder, scorer, signals, console.note)
            try:
                parts = read_parts(stream, positions, run.draw.part, missing)
                draw_parts(parts, scorer, sampling_of(run.draw, run), writer)
            except Stop as stop:
                console.warn(f"stopped by {stop}; the same command goes on with the parts that are missing")
                raise
        total = folder.finish()
        console.note(f"{total.words()}  in {files.path}")
        if isinstance(stream, StepPrompts):
            console.note(_write_rows(run, folder, stream, len(positions)))
        return total


def draw_parts(
    parts: Iterable[Part], scorer: AnyScorer, sampling: Sampling, write: Callable[[Part, list[ScoredGroup]], None]
) -> None:
    """Samples parts, and writes each in order. OPEN_PARTS are in memory at most, the one that is written included."""
    opened: deque[tuple[Part, Future[list[ScoredGroup]]]] = deque()
    for part in parts:
        opened.append((part, scorer.begin(part.prompts, sampling)))
        if len(opened) == OPEN_PARTS:
            _write_first(opened, scorer, write)
    while opened:
        _write_first(opened, scorer, write)


def _write_first(
    opened: deque[tuple[Part, Future[list[ScoredGroup]]]],
    scorer: AnyScorer,
    write: Callable[[Part, list[ScoredGroup]], None],
) -> None:
    part, future = opened.popleft()
    write(part, scorer.finish(future))


class PartWriter:
    """Counts a part and writes it; a line on each part for the console."""

    def __init__(
        self, run: DrawRun, folder: DrawFolder, scorer: AnyScorer, signals: StopSignals, note: Callable[[str], None]
    ) -> None:
        self.run = run
        self.folder = folder
        self.scorer = scorer
        self.signals = signals
        self.note = note
        self._written_at = time.monotonic()

    def __call__(self, part: Part, groups: list[ScoredGroup]) -> None:
        """Raises RunFailed, and writes nothing, where too many prompts of the part are given up."""
        now = time.monotonic()
        counts = self._counts(part, groups, now - self._written_at)
        if len(counts.given_up) > max(1, self.run.draw.max_given_up * len(part.prompts)):
            raise RunFailed(
                f"draw.max_given_up: {len(counts.given_up)} of {len(part.prompts)} prompts of part {part.number} are "
                "given up, for the reasons above; once they are gone, the same command draws the part again"
            )
        with self.signals.held_back():
            self.folder.save(part.number, groups, counts)
        self._written_at = now
        self.note(f"part {part.number}  {counts.words()}")

    def _counts(self, part: Part, groups: list[ScoredGroup], seconds: float) -> DrawCounts:
        decider = self.run.deciding_reward
        scores = [verdict.score for group in groups for verdict in group.verdicts.get(decider, [])]
        judged = [score for score in scores if score is not None]
        statuses = [verdict.status for group in groups for row in group.verdicts.values() for verdict in row]
        drawn = {group.group.prompt.id for group in groups}
        reasons = [skipped.reason for skipped in part.skipped]
        return DrawCounts(
            prompts=len(groups),
            completions=sum(len(group.rewards) for group in groups),
            tokens=sum(self.scorer.tokens(group) for group in groups),
            judged=len(judged),
            right=sum(score >= 1 for score in judged),
            unscored=sum(reward is None for group in groups for reward in group.rewards),
            failed_verdicts=statuses.count("failed"),
            cut_off=sum(reason == "length" for group in groups for reason in group.finish_reasons),
            overlong=reasons.count("overlong"),
            heldout=reasons.count("heldout"),
            given_up=[prompt.id for prompt in part.prompts if prompt.id not in drawn],
            seconds=round(seconds, 3),
        )


def _stream(run: DrawRun, tokenizer: PreTrainedTokenizerBase | None, warn: Callable[[str], None]) -> AnyStream:
    """The training prompts, or those behind steps of earlier completions. Raises ConfigError."""
    if run.draw.continue_from is None or tokenizer is None:
        return open_stream(run, tokenizer, warn)
    try:
        return StepPrompts(
            run.draw.continue_from,
            run.deciding_reward,
            run.draw.separator,
            VisibleText(tokenizer).of,
            max_prompt_tokens=run.prompts.max_tokens,
            max_tokens=run.draw.max_tokens or run.rollout.max_tokens,
        )
    except ValueError as error:
        raise ConfigError(f"draw.continue_from: {error}") from error


def _write_rows(run: DrawRun, folder: DrawFolder, stream: StepPrompts, prompts: int) -> str:
    """Writes rows.jsonl, with a label of each step -> a line for the console."""
    counts = stream.counts.copy()
    file = folder.path / ROWS
    drawn = read_items(str(folder.path))
    write_rows(stream.rows(drawn, prompts, soft=run.draw.labels == "soft", counts=counts), file)
    folder.note_rows(counts)
    words = [f"{count} {name}" for name, count in counts.items() if name != "rows"]
    return f"{counts['rows']} rows in {file}; completions: {', '.join(words)}"


def _positions(run: DrawRun, stream: AnyStream) -> range:
    wanted = run.draw.prompts or len(stream)
    if wanted > len(stream) and run.draw.continue_from:
        raise ConfigError(f"draw.prompts: {run.draw.continue_from} has {len(stream)} prompts, fewer than {wanted}")
    if wanted > len(stream):
        raise ConfigError(
            f"draw.prompts: prompts.train has {len(stream)} problems, fewer than {wanted}; leave it out, and raise "
            "draw.samples for more completions of each"
        )
    return range(wanted)


def read_parts(stream: AnyStream, positions: range, size: int, numbers: Iterable[int]) -> Iterator[Part]:
    """The parts with these numbers, each read when it is asked for."""
    for number in numbers:
        found = [stream.at(position) for position in positions[(number - 1) * size : number * size]]
        yield Part(
            number=number,
            prompts=[each for each in found if isinstance(each, Prompt)],
            skipped=[each for each in found if isinstance(each, Skipped)],
        )


def _scorer(run: DrawRun, key: str, actors: Actors, stack: ExitStack, warn: Callable[[str], None]) -> AnyScorer:
    endpoint = run.draw.endpoint
    if endpoint.base_url is None or endpoint.model is None:
        assert actors.episodes is not None, "a draw has engines and reward workers"
        return stack.enter_context(Scorer(actors.episodes, actors.background, slots=run.rollout.slots, warn=warn))
    assert actors.rewards is not None, "a draw has reward workers"
    client = ChatClient(
        endpoint.base_url,
        key,
        timeout_s=endpoint.timeout_s,
        attempts=endpoint.attempts,
        max_concurrent=endpoint.max_concurrent,
        requests_per_minute=endpoint.requests_per_minute,
    )
    stack.callback(client.close)
    return EndpointScorer(client, endpoint.model, endpoint.request, actors.rewards, actors.background, warn=warn)


def _key(endpoint: EndpointConfig) -> str:
    """The endpoint's key, which no error shows."""
    if not (key := endpoint_key(endpoint.key_env)):
        raise ConfigError(f"draw.endpoint.key_env: there is no environment variable {endpoint.key_env}; {HOW}")
    environment.provide([endpoint.key_env] if endpoint.key_env else [])
    return key
