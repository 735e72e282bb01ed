"""The text of a plan for a person, and its last line."""

from __future__ import annotations

from collections.abc import Iterator
from typing import TYPE_CHECKING

from rlframe.plan.machines import alike
from rlframe.plan.numbers import GIB, billions, gib, plural, seconds

if TYPE_CHECKING:
    from rlframe.plan.host_memory import HostMemory
    from rlframe.plan.plan import Plan
    from rlframe.plan.remedies import Remedy

LABEL = 12  # cells of the first column
ALSO = 3  # instants that are named beside the worst


def report(plan: Plan, remedy: Remedy | None) -> str:
    """All lines of a plan."""
    parts = [_model(plan), _rank(plan), _engine(plan), _teachers(plan), _hosts(plan), _step(plan)]
    return "\n".join([line for part in parts for line in part] + ["", verdict(plan, remedy)])


def verdict(plan: Plan, remedy: Remedy | None) -> str:
    """The last line: whether the run fits, the time of a step, and the keys that would help."""
    if plan.fits:
        return f"plan: fits ({', '.join(_figures(plan))})"
    word = "cannot fit" if any(problem.certain for problem in plan.problems) else "may not fit"
    helps = ""
    if remedy:
        helps = f"; {'' if remedy.fits else f'with {remedy.gpus} GPUs '}it would fit with {remedy}"
    return f"plan: {word}: {'; '.join(problem.text for problem in plan.problems)}{helps}"


def _figures(plan: Plan) -> Iterator[str]:
    if plan.rank.on_gpu and plan.learner_gpu:
        yield f"rank {gib(plan.rank.peak_bytes)} of {gib(plan.learner_gpu.memory)} GiB"
    if plan.engine.on_gpu and plan.engine_gpu:
        yield f"keys and values {gib(plan.engine.cache)} GiB a worker"
    if not plan.rank.on_gpu and plan.hosts:
        node, memory = max(plan.hosts, key=lambda host: host[1].peak + host[1].shm)
        yield f"host {gib(memory.peak + memory.shm)} of {gib(node.machine.host_bytes)} GiB"
    if plan.times:
        yield f"about {seconds(plan.times.step_s)} a step by stated speeds"


def _model(plan: Plan) -> Iterator[str]:
    shapes = plan.shapes
    counted = "" if shapes.counted_by == "config.json" else ", counted by transformers"
    sizes = f"{billions(shapes.parameters)} parameters, {billions(shapes.active_parameters)} active for a token"
    yield _row("model", f"{shapes.kind}: {sizes}{counted}")
    for number, machine in alike(plan.machines):
        gpus = f"{machine.gpus} {machine.gpu.name if machine.gpu else 'GPUs'}, " if machine.gpus else ""
        memory = f"{gib(machine.host_bytes)} GiB of memory, {gib(machine.shm_bytes)} of /dev/shm"
        yield _row("machines", f"{number} x {gpus}{memory}{'' if machine.measured else ' (not measured)'}")
    for line in plan.layout.text():
        yield _row("where", line)


def _rank(plan: Plan) -> Iterator[str]:
    rank = plan.rank
    yield ""
    yield _row("rank", f"keeps {gib(rank.kept_bytes)} GiB: {_parts(rank.kept)}")
    worst, *others = sorted(rank.instants.items(), key=lambda item: -item[1])
    holes = f", {gib(rank.holes)} unused between blocks" if rank.holes else ""
    yield _row("", f"worst instant: {worst[0]}, {gib(worst[1])} more{holes} = {gib(rank.peak_bytes)} GiB")
    yield _row("", "then: " + ", ".join(f"{name} {gib(size)}" for name, size in others[:ALSO]))
    if rank.host:
        yield _row("", f"on its host: {_parts(rank.host)}")
    if rank.checkpoint:
        yield _row("", f"copy for a checkpoint, on its host: {gib(rank.checkpoint)} GiB")


def _engine(plan: Plan) -> Iterator[str]:
    engine = plan.engine
    workers = plural(plan.run.rollout.workers, "worker")
    yield _row("engine", f"{workers}, each keeps {_parts(engine.kept)}; a batch takes {gib(engine.passing)} GiB")
    if not engine.on_gpu or engine.limit:
        room = f"{gib(max(0, engine.cache))} GiB a worker, {engine.token_bytes / 1024:.1f} KiB a token"
        yield _row("", f"keys and values: {room}, {engine.cached_tokens:,} tokens an engine")
    longest = f"{engine.sequences(0):,} sequences of {plan.run.max_model_len:,} tokens fit at once"
    yield _row("", f"slots: {engine.slots:,} an engine; {longest}" if engine.cache else f"slots: {engine.slots:,}")


def _teachers(plan: Plan) -> Iterator[str]:
    for name, memory in plan.teachers.items():
        engines = plural(plan.run.teachers[name].engines, "engine")
        kept = f"each worker keeps {_parts(memory.kept)}; a batch takes {gib(memory.passing)} GiB"
        yield _row("teacher", f"{name}: {engines}, {kept}")


def _hosts(plan: Plan) -> Iterator[str]:
    counted: dict[tuple[str, HostMemory], int] = {}
    for node, memory in plan.hosts:
        if node.actors or node.workers:
            key = (node.contents(), memory)
            counted[key] = counted.get(key, 0) + 1
    for (contents, memory), number in counted.items():
        sizes = f"{gib(memory.kept)} GiB kept, {gib(memory.peak)} at worst, {gib(memory.shm)} of /dev/shm"
        yield _row("host", f"{number} x {sizes} ({contents})")


def _step(plan: Plan) -> Iterator[str]:
    run, times = plan.run, plan.times
    completions = run.prompts_per_step * run.rollout.group_size
    yield ""
    yield _row("step", f"{run.prompts_per_step} prompts x {run.rollout.group_size} = {completions:,} completions")
    yield _row("", f"a sync of weights brings {gib(plan.synced_bytes)} GiB to every engine ({run.weights.backend})")
    if times is None:
        yield _row("", "no seconds: the kind of GPU is not known; name it with --cluster or plan.gpu")
        return
    yield _row("", f"about {times.tokens:,} tokens, {times.completion_tokens:,.0f} a completion")
    parts = f"engines {seconds(times.rollout_s)}, learner {seconds(times.learner_s)}, weights {seconds(times.sync_s)}"
    turns = f", turns {seconds(times.turns_s)}" if times.turns_s else ""
    order = "at the same time" if times.overlapping else "one after the other"
    yield _row("seconds", f"{seconds(times.step_s)} a step: {parts}{turns}, {order}")
    yield _row("", f"the learner is bound by {times.learner_bound}")
    yield _row("", f"idle: engines {times.engines_idle:.0%}, learner {times.learner_idle:.0%}")
    speeds = f"an engine {times.engine_tokens_per_s:,.0f}, a rank {times.rank_tokens_per_s:,.0f}"
    yield _row("", f"tokens per second: {speeds}")
    if run.max_staleness:
        slots = f"{times.concurrent:,} completions at once = {times.concurrent / completions:.1f} steps"
        ages = f"a completion takes {times.age:.1f} steps, the longest {times.longest_s / times.step_s:.1f}"
        yield _row("staleness", f"{slots}; {ages}; max_staleness={run.max_staleness}")
        if times.longest_s / times.step_s > run.max_staleness:
            yield _row("", f"completions that take longer than max_staleness steps: late={run.late}")
    hours = plan.gpu_hours or 0.0
    cost = f", {hours:,.{0 if hours >= 10 else 1}f} GPU hours" if hours else ""
    yield _row("run", f"{plural(run.steps, 'step')}: {seconds(times.step_s * run.steps)}{cost}")
    yield _row("", "by stated speeds (plan.*), none measured; without evaluations, checkpoints and rewards")


def _parts(parts: dict[str, int]) -> str:
    """Largest first; what would show as 0.00 is left out."""
    shown = sorted(((name, size) for name, size in parts.items() if size >= GIB // 200), key=lambda item: -item[1])
    return ", ".join(f"{name} {gib(size)}" for name, size in shown) or "nothing"


def _row(label: str, text: str) -> str:
    return f"{label:<{LABEL}}{text}"
