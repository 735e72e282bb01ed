"""`open_prompts`: the stream of training prompts and the held-out prompts, checked before an actor starts."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from itertools import chain
from typing import TYPE_CHECKING

from rlframe.errors import ConfigError
from rlframe.prompts.base import in_order, spread, until
from rlframe.prompts.overlap import HeldOut, Overlap, compare
from rlframe.prompts.rendering import Renderer
from rlframe.reward import composition
from rlframe.rollout.teacher_config import check_tasks
from rlframe.train import held_out
from rlframe.train.rendered import check_rendered

if TYPE_CHECKING:
    from pathlib import Path

    from transformers import PreTrainedTokenizerBase

    from rlframe.config.run import RunConfig
    from rlframe.prompts.base import Problems
    from rlframe.prompts.stream import PromptStream
    from rlframe.types import Problem, Prompt

SAMPLE = 256  # training problems whose length is checked at the start
# Bounds for the start. A million rows of a file take less; other sources may need a second to make a problem.
COMPARE_S = 15.0  # for the comparison of training problems with held-out ones
REFERENCES_S = 3.0  # for the references of training problems beyond the sample
SAMPLE_S = 5.0  # for the sample


def open_prompts(
    run: RunConfig, tokenizer: PreTrainedTokenizerBase, warn: Callable[[str], None]
) -> tuple[PromptStream, dict[str, list[Prompt]]]:
    """The endless stream of training prompts, and every prompt of each held-out set. `warn` gets lines for the console.

    Raises ConfigError for a row that is not a problem, a reference that no reward can use, a prompt that is too long,
    a training problem that is held out, and a rendered prompt that `check_rendered` refuses. Only held-out prompts and
    a sample of the training prompts are tokenized.
    """
    try:
        heldout = held_out.load(run)
        stream, first = _stream(run, tokenizer, heldout.values(), warn)
        heldout_prompts = held_out.tokenize(heldout, run, tokenizer, warn)
    except ValueError as error:
        raise ConfigError(f"prompts: {error}") from error
    check_rendered(Renderer(tokenizer, run.prompts.template), run.prompts.template, first, run.reward.terms)
    return stream, heldout_prompts


def open_stream(run: RunConfig, tokenizer: PreTrainedTokenizerBase | None, warn: Callable[[str], None]) -> PromptStream:
    """The stream of `open_prompts` alone, without held-out problems; `tokenizer` None: an endpoint renders prompts.

    Where prompts.heldout is prompts.train nothing is held out. Raises ConfigError as `open_prompts` does.
    """
    try:
        heldout = [each.load() for each in run.held_out_sources.values() if each != run.prompts.train]
        stream, first = _stream(run, tokenizer, heldout, warn)
    except ValueError as error:
        raise ConfigError(f"prompts: {error}") from error
    if tokenizer is not None:
        check_rendered(Renderer(tokenizer, run.prompts.template), run.prompts.template, first, run.reward.terms)
    return stream


def _stream(
    run: RunConfig,
    tokenizer: PreTrainedTokenizerBase | None,
    heldout: Iterable[Problems],
    warn: Callable[[str], None],
) -> tuple[PromptStream, Problem]:
    """The checked stream of training prompts, and its first problem. Raises ValueError."""
    config, terms, heldout = run.prompts, run.reward.terms, list(heldout)
    train = config.train.load()
    sample = list(until(spread(train, SAMPLE), SAMPLE_S))
    held_out.check_extra(sample)
    conversations = HeldOut(heldout)
    overlap = compare(until(in_order(train), COMPARE_S), conversations)
    _report(overlap, config.overlap, len(train), warn)
    composition.check(
        chain(sample, *map(in_order, heldout), overlap.tasks.values(), until(in_order(train), REFERENCES_S)),
        terms,
        every_task=overlap.compared == len(train),
    )
    if overlap.compared == len(train):
        check_tasks(run.teachers, set(overlap.tasks))
    stream = held_out.stream_of(train, run, tokenizer, heldout=conversations)
    if skipped := stream.count_skipped(sample):
        warn(f"prompts.train: {skipped} of a sample of {len(sample)} problems are skipped: held out, or too long")
    return stream, train[0]


def _report(overlap: Overlap, action: str, total: int, warn: Callable[[str], None]) -> None:
    """Raises ValueError for training problems that are held out, or warns of them where `action` is drop."""
    if overlap.compared < total:
        warn(
            f"prompts.train: {overlap.compared} of {total} problems were compared with held-out ones in "
            f"{COMPARE_S:g} s; the others are compared as they are taken, and skipped if they are held out"
        )
    if overlap.count == 0:
        return
    pairs = " and ".join(f"{train_id} is {heldout_id}" for train_id, heldout_id in overlap.named)
    if action == "error":
        raise ValueError(
            f"overlap: {overlap.count} of {overlap.compared} training problems have the conversation of a held-out "
            f"problem: {pairs}; choose slices, splits or seeds that share none, or set prompts.overlap=drop, which "
            "keeps such problems out of training"
        )
    warn(f"prompts.overlap: {overlap.count} of {overlap.compared} training problems are held out and dropped: {pairs}")


def open_tokenizer(model_path: Path) -> PreTrainedTokenizerBase:
    from transformers import AutoTokenizer

    return AutoTokenizer.from_pretrained(model_path, trust_remote_code=False)
