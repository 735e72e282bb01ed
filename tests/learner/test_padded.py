"""A model of short convolutions on real ZeRO-3 ranks: padded rows."""

from pathlib import Path

import numpy as np
import pytest
import torch
from transformers import AutoModelForCausalLM

from rlframe.learner import selftest
from rlframe.learner.config import LearnerConfig
from tests.conftest import compose, tiny_overrides
from tests.learner.conftest import Launch
from tests.tiny import learner as tiny
from tests.tiny.models import make_lfm2


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_lfm2(tmp_path_factory.mktemp("lfm2"))


@pytest.fixture(scope="module")
def config(model: Path) -> LearnerConfig:
    run = compose(tiny_overrides(model))
    assert selftest.choose_packing(model, run.learner, run.longest_sequence) == "padded"
    return run.learner


def test_log_probabilities_are_those_of_the_model_itself(launch: Launch, config: LearnerConfig, model: Path) -> None:
    samples = tiny.make_samples()
    plain = AutoModelForCausalLM.from_pretrained(model, dtype=torch.float32)
    for sample, logprobs in zip(
        samples, tiny.logprobs(launch(config, model, 2, packing="padded"), samples), strict=True
    ):
        token_ids = torch.from_numpy(sample.token_ids).long()
        log_softmax = plain(token_ids[None]).logits[0, :-1].log_softmax(-1).detach()
        wanted = log_softmax.gather(1, token_ids[1:, None])[:, 0].numpy()
        np.testing.assert_allclose(logprobs[sample.sampled], wanted[sample.sampled[1:]], atol=1e-4)


def test_two_ranks_of_padded_rows_learn_like_one(launch: Launch, config: LearnerConfig, model: Path) -> None:
    states = []
    for ranks in (1, 2):
        handles = launch(config, model, ranks, packing="padded")
        tiny.step(handles, 0)
        states.append(tiny.state(handles))
    one, two = states
    assert one.keys() == two.keys()
    for name, value in one.items():
        np.testing.assert_allclose(two[name], value, rtol=1e-3, atol=1e-5, err_msg=name)
