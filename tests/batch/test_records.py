"""Records of groups: small, and in agreement with the training samples that ranks build."""

from __future__ import annotations

import pickle
import subprocess
import sys
from dataclasses import replace

import numpy as np
import pytest

from rlframe.batch.records import to_record
from rlframe.batch.samples import to_probes
from rlframe.batch.sequences import to_train_sample
from rlframe.types import RewardTerm, Verdict
from tests.tiny.groups import make_group, make_multi_turn_group, make_turn, make_verdict, recorded
from tests.tiny.trees import make_tree_group


@pytest.mark.parametrize("seed", range(20))
def test_sizes_of_a_record_are_those_of_the_built_samples(seed: int) -> None:
    group = make_tree_group(np.random.default_rng(seed), "p")
    record = recorded(group)
    samples = [to_train_sample(probe, group) for probes in to_probes([record]).values() for probe in probes]
    sizes = [size for trajectory in record.trajectories for size in trajectory.sequences]
    assert [size.tokens for size in sizes] == [len(sample.token_ids) for sample in samples]
    # The first token with a loss weight follows the prefix.
    assert [size.prefix_tokens for size in sizes] == [int(np.flatnonzero(s.loss_weights)[0]) for s in samples]
    trained = [sum(end - start for start, end in size.trained) for size in sizes]
    assert trained == [int((sample.loss_weights != 0).sum()) for sample in samples]
    prefixes: dict[str, set[bytes]] = {}
    for size, sample in zip(sizes, samples, strict=True):
        prefixes.setdefault(size.prompt_id, set()).add(sample.token_ids[: size.prefix_tokens].tobytes())
    assert all(len(equal) == 1 for equal in prefixes.values())
    assert {size.prompt_id for size in sizes} == {sample.prompt_id for sample in samples}


@pytest.mark.parametrize("seed", range(20))
def test_every_sampled_token_is_trained_on_once(seed: int) -> None:
    for trajectory in recorded(make_tree_group(np.random.default_rng(seed), "p")).trajectories:
        ranges = sorted(part for size in trajectory.sequences for part in size.trained)
        assert [token for start, end in ranges for token in range(start, end)] == list(range(trajectory.sampled_tokens))


def test_a_chain_of_turns_trains_on_one_range() -> None:
    chain = [make_turn(None, [1, 2], [5, 6]), make_turn(0, [3], [7])]
    [trajectory] = recorded(make_multi_turn_group([chain], [1.0])).trajectories
    [size] = trajectory.sequences
    assert (size.prompt_id, size.prefix_tokens, size.tokens, size.trained) == ("p", 2, 6, [(0, 3)])
    assert (trajectory.sampled_tokens, trajectory.finish_reason) == (3, "stop")


def test_a_record_takes_less_than_1_kb_a_completion() -> None:
    failed = Verdict(score=None, status="failed", seconds=0.25, detail="Traceback " * 1000)
    names = ["math", "format", "length"]
    scored = replace(
        make_group([1.0] * 16, [1650] * 16, prompt_tokens=200, name="train.jsonl:12345@3"),
        verdicts={name: [make_verdict(0.5, detail="x" * 500)] * 15 + [failed] for name in names},
        terms={name: RewardTerm(weight=0.5, scores=[0.5] * 16) for name in names},
    )
    assert len(pickle.dumps(to_record(scored, body=b"r" * 28, worker="episodes-12"))) < 16 * 1024


def test_only_failed_verdicts_keep_a_detail_of_300_characters() -> None:
    scored = make_group([1.0, None], [1, 1])
    long = replace(scored.verdicts["math"][1], detail="fire " * 100)
    record = recorded(replace(scored, verdicts={"math": [make_verdict(1.0, detail="5 = 5"), long]}))
    assert [verdict.detail for verdict in record.verdicts["math"]] == ["", "fire " * 60]


def test_a_selection_has_the_chosen_trajectories_only() -> None:
    group = replace(
        recorded(make_group([1.0, 0.5, 0.0], [3, 4, 5], cut_off=[2])),
        terms={"math": RewardTerm(weight=2.0, scores=[1.0, 0.5, 0.0])},
        token_penalties=[np.full(length, float(length)) for length in (3, 4, 5)],
    )
    chosen = group.select([0, 2])
    assert (chosen.rewards, chosen.lengths, chosen.finish_reasons) == ([1.0, 0.0], [3, 5], ["stop", "length"])
    assert chosen.terms["math"] == RewardTerm(weight=2.0, scores=[1.0, 0.0])
    assert [verdict.score for verdict in chosen.verdicts["math"]] == [1.0, 0.0]
    assert [values.tolist() for values in chosen.token_penalties or []] == [[3.0] * 3, [5.0] * 5]


def test_making_records_needs_no_torch() -> None:
    command = "import sys; import rlframe.batch.records; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", command]).returncode == 0
