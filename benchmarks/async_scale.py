"""Asynchronous runs on a virtual clock: speed beside its bound, ages of tokens, and the driver's own time.

    python benchmarks/async_scale.py                                      # the published table, some minutes
    python benchmarks/async_scale.py --variant learner                    # the learner is slower than the engines
    python benchmarks/async_scale.py --variant thousand --late keep       # 1,000 engines, 64,000 completions a step
    python benchmarks/async_scale.py --variant slow --late keep           # an engine of 16 takes ten times longer
    python benchmarks/async_scale.py --engines 24 --slots 256 --late mask --max-staleness 4
    python benchmarks/async_scale.py --engine my_engines.py:Speculative   # a model of your own engine
    python benchmarks/async_scale.py --losses 0.1                         # engines or the learner die in 10 % of steps
    python benchmarks/async_scale.py --real                               # the driver's CPU over real Ray actors

The loop, feed, ledger, pools, episode workers and weight sync are the real ones. Engines, rewards and learner only take
time. Completions have lognormal lengths: median 1,000 tokens, sigma 1, at most 16,000, the same for equal seeds. No
schedule is faster than the bound: slots that never pause, the longest completion alone, or the learner alone.

`driver ms` is CPU of episode pool, flow and ledger for each completion. In the simulation engines and episode workers
share the driver's process, and their time does not count. `--real` has them as actors, and counts the whole process.

`--losses` compares the seconds of the same steps without and with losses. The paths of recovery are the real ones, from
the log of the prompts to the replay; new engines, new ranks and checkpoints take the seconds of the options below.
"""

from __future__ import annotations

import argparse
import dataclasses
import gc
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))

from benchmarks.async_parts.engine import TimedEngine
from benchmarks.async_parts.figures import Figures
from benchmarks.async_parts.judge import TimedJudge
from benchmarks.async_parts.learner import TimedLearner
from benchmarks.async_parts.loss_table import print_losses
from benchmarks.async_parts.losses import Losses
from benchmarks.async_parts.settings import VARIANTS, Policy, Scale
from benchmarks.async_parts.simulation import simulate
from benchmarks.async_parts.workers import Parts
from rlframe.schema import import_class

ON_POLICY = Policy(max_staleness=0)
POLICIES = [
    ON_POLICY,
    Policy(max_staleness=1),
    Policy(max_staleness=8),
    Policy(max_staleness=8, late="mask"),
    Policy(max_staleness=8, late="keep"),
    Policy(max_staleness=8, late="keep", ahead=0.0),
]
COLUMNS = [
    "policy",
    "of the bound",
    "x staleness 0",
    "s a step",
    "mean / max age",
    "older than 4 / 8",
    "idle slots / learner",
    "driver ms",
    "wall s",
]


def main() -> None:
    arguments = parse()
    changed = {name: value for name, value in vars(arguments).items() if name in SIZES and value is not None}
    variant = "real" if arguments.real else arguments.variant or ("cluster" if arguments.losses else "balanced")
    scale = Scale(**VARIANTS[variant] | changed)
    parts = Parts(
        engine=import_class(arguments.engine, TimedEngine),
        judge=import_class(arguments.judge, TimedJudge),
        learner=import_class(arguments.timed_learner, TimedLearner),
    )
    policies = POLICIES
    if arguments.late or arguments.max_staleness is not None:
        policies = [chosen_policy(arguments)]
    if arguments.real:
        return print_real(scale, parts)
    if arguments.losses:
        settings = {field.name: getattr(arguments, field.name) for field in RECOVERY}
        losses = Losses(share=arguments.losses, **settings)
        return print_losses(scale, policies if len(policies) == 1 else POLICIES[1:4:2], losses, arguments.seeds)
    print(f"{scale}\n\n{line(COLUMNS)}\n{line(['---'] * len(COLUMNS))}")
    on_policy: Figures | None = None
    for policy in policies:
        started = time.perf_counter()
        figures = simulate(scale, policy, parts)
        on_policy = figures if policy == ON_POLICY else on_policy
        print(line(cells(policy, figures, on_policy, time.perf_counter() - started)), flush=True)
    if scale.slow > 1:
        figures = simulate(dataclasses.replace(scale, slow=1.0), policies[-1], parts)
        print(f"\nall engines alike: {figures.seconds / scale.steps:.3f} s a step")


SIZES = {field.name: field for field in dataclasses.fields(Scale)}
RECOVERY = [field for field in dataclasses.fields(Losses) if field.name != "share"]


def parse() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--variant", choices=list(VARIANTS), help="a size that options change (default: balanced)")
    for name, field in SIZES.items():
        parser.add_argument(f"--{name.replace('_', '-')}", type=type(field.default), help=field.metadata.get("help"))
    parser.add_argument("--max-staleness", type=int, help="with --late: this policy alone (default: 8)")
    parser.add_argument("--late", choices=["wait", "mask", "keep"])
    parser.add_argument("--ahead", type=float, default=0.1)
    parser.add_argument("--engine", default="benchmarks.async_parts.engine:TimedEngine", help="import path of a class")
    parser.add_argument("--judge", default="benchmarks.async_parts.judge:TimedJudge")
    parser.add_argument("--timed-learner", default="benchmarks.async_parts.learner:TimedLearner")
    parser.add_argument("--losses", type=float, default=0.0, help="share of steps that lose an engine or the learner")
    parser.add_argument("--seeds", type=int, default=3, help="with --losses: runs, from --seed on (default: 3)")
    for field in RECOVERY:
        name, kind, default = f"--{field.name.replace('_', '-')}", type(field.default), field.default
        parser.add_argument(name, type=kind, default=default, help=f"with --losses: {field.metadata['help']}")
    parser.add_argument("--real", action="store_true", help="real Ray actors in real time: use few steps")
    return parser.parse_args()


def chosen_policy(arguments: argparse.Namespace) -> Policy:
    max_staleness = 8 if arguments.max_staleness is None else arguments.max_staleness
    return Policy(max_staleness=max_staleness, late=arguments.late or "wait", ahead=arguments.ahead)


def cells(policy: Policy, figures: Figures, on_policy: Figures | None, wall_s: float) -> list[str]:
    return [
        str(policy),
        f"{figures.share_of_bound:.3f}",
        f"{figures.share_of_bound / on_policy.share_of_bound:.1f}" if on_policy else "",
        f"{figures.seconds / figures.scale.steps:.3f}",
        f"{figures.mean_age:.2f} / {figures.largest_age}",
        f"{figures.older_than(4):.3f} / {figures.older_than(8):.4f}",
        f"{figures.slots_idle:.3f} / {figures.learner_idle:.3f}",
        f"{figures.driver_ms:.4f}",
        f"{wall_s:.1f}",
    ]


def line(cells: list[str]) -> str:
    return f"| {' | '.join(cells)} |"


def print_real(scale: Scale, parts: Parts) -> None:
    from benchmarks.async_parts.real import POLICY, measure

    print(f"{scale}\n{POLICY}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        figures, cpu = measure(scale, parts, Path(folder))
    print(f"{figures.share_of_bound:.3f} of the bound, mean / max age {figures.mean_age:.2f} / {figures.largest_age}")
    print(
        f"driver's CPU a completion of {figures.tokens / figures.completions:.0f} tokens: {cpu.take:.3f} ms for orders "
        f"and reports, {cpu.step:.3f} ms for whole steps ({cpu.completions} completions each)"
    )


if __name__ == "__main__":
    gc.disable()  # few cycles, and a collection would walk over all prompts in flight
    main()
