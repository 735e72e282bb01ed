"""Feeds over in-process episode workers, of prompts o0, o1, ... in this order, on a virtual clock."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import cache
from typing import TypeAlias

from tokenizers import Tokenizer, models, pre_tokenizers
from transformers import PreTrainedTokenizerFast

from rlframe.actors.background import Background
from rlframe.actors.in_process import InProcess
from rlframe.actors.replicas import Replica, Replicas
from rlframe.experience.errands import Errands
from rlframe.experience.flow import RolloutFeed
from rlframe.experience.ledger import Ledger
from rlframe.experience.resampling import Resampling
from rlframe.prompts.stream import PromptStream
from rlframe.rollout.pool import RolloutPool
from rlframe.training import GroupRecord
from rlframe.types import Problem
from tests.tiny.episodes import PAIR, TinyEngine, TinyJudge, make_pool
from tests.tiny.templates import make_template

PROBLEMS = 20

Start: TypeAlias = Callable[..., RolloutFeed]  # the fixture `start`: engines, a judge, settings -> an open feed


@cache
def tokenizer() -> PreTrainedTokenizerFast:
    words = Tokenizer(models.WordLevel({"<unk>": 0}, unk_token="<unk>"))
    words.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    return PreTrainedTokenizerFast(
        tokenizer_object=words, unk_token="<unk>", chat_template="{{ messages[-1].content }}"
    )


def make_stream() -> PromptStream:
    """Prompts o0@0, o1@0, ... o19@0, in this order: problems are named after their place in the first epoch."""
    numbered = _stream([str(n) for n in range(PROBLEMS)])
    places = [int(numbered.at(position).id.split("@")[0]) for position in range(PROBLEMS)]
    return _stream([f"o{places.index(n)}" for n in range(PROBLEMS)])


def _stream(names: list[str]) -> PromptStream:
    turn = [{"role": "user", "content": "2 + 3 ?"}]
    problems = [Problem(id=name, messages=turn, reference="5", task="math") for name in names]
    return PromptStream(problems, tokenizer(), make_template(), seed=0, max_prompt_tokens=9, overlong="skip")


def make_feed(
    background: Background,
    engines: Sequence[TinyEngine],
    judge: TinyJudge | None = None,
    *,
    slots: int = 8,
    ahead: float = 0.0,
    warn: Callable[[str], None] = print,
    errands: Errands | None = None,
    **changes: object,
) -> RolloutFeed:
    """A feed of two prompts a step and two completions a prompt; `changes` are of the ledger."""
    settings = {"prompts_per_step": 2, "max_staleness": 0, "dynamic_sampling": False} | changes
    replicas = [Replica(name=engine.name, handle=InProcess(engine)) for engine in engines]
    return RolloutFeed(
        Ledger(**settings),  # pyright: ignore[reportArgumentType]
        make_stream(),
        RolloutPool(Replicas("engine", replicas), background, timeout_s=background.stall_timeout_s),
        make_pool(engines, judge, slots=slots, ahead=ahead),
        background,
        PAIR,
        Resampling(prompts_per_step=2, max_resampled=2.0, reward="math"),
        slots=slots,
        warn=warn,
        errands=errands,
    )


def publish(feed: RolloutFeed, engines: Sequence[TinyEngine], version: int) -> None:
    """Lets engines load a version at once."""
    feed.rollouts.version = version
    feed.background.run(feed.episodes.announce(version))
    for engine in engines:
        engine.version = feed.rollouts.replicas[engine.name].version = version


def hold(engine: TinyEngine, *names: str) -> None:
    """Lets an engine sample no completion of prompts."""
    engine.held |= {f"{name}@0/{index}" for name in names for index in range(2)}


def release(engine: TinyEngine, *names: str) -> None:
    engine.held -= {f"{name}@0/{index}" for name in names for index in range(2)}


def names(groups: list[GroupRecord]) -> list[str]:
    return [group.prompt_id.removesuffix("@0") for group in groups]
