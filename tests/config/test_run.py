"""A config that cannot run is refused with the key's path, the problem and the remedy."""

import re

import pytest
from omegaconf import OmegaConf

from rlframe.config.compose import load, merge_saved, save
from rlframe.errors import ConfigError


def test_a_run_holds_the_values_of_conf(composed, model_folder):
    run = load(composed("steps=7", "algorithm=dapo", "algorithm.clip_high=0.3"))
    assert (run.steps, run.algorithm.name, run.algorithm.clip_high) == (7, "dapo", 0.3)
    assert run.model.path == str(model_folder)
    assert run.reward.terms["math"].weight == 0.8


def test_a_resumed_run_keeps_the_resolved_value_of_auto(composed, tmp_path, monkeypatch):
    monkeypatch.setattr("rlframe.model.precision.fastest", lambda gpus: "bfloat16" if gpus else "float32")
    run = load(composed("learner.gpus=1", "learner.head_dtype=auto"))
    assert (run.rollout.dtype, run.learner.dtype, run.learner.head_dtype) == ("float32", "bfloat16", "bfloat16")
    save(run, tmp_path / "config.yaml")
    monkeypatch.setattr("rlframe.model.precision.fastest", lambda gpus: "bfloat16")
    assert load(merge_saved(tmp_path / "config.yaml", composed(), [])).rollout.dtype == "float32"


@pytest.mark.parametrize(
    "override, message",
    [
        # Unknown and missing keys.
        ("+rollout.tempurature=1", "rollout.tempurature: there is no such key"),
        ("+algorithm.clip_high=0.3", "algorithm.clip_high: there is no such key"),
        ("+prompts.train.sise=3", "prompts.train.sise: there is no such key"),
        ("~learner.lr", "learner.lr: is missing"),
        # Values of a wrong type.
        ("learner.lr=fast", "learner.lr: Input should be a valid number, not 'fast'"),
        ("steps=1.5", "steps: Input should be a valid integer, not 1.5"),
        ("seed=true", "seed: Input should be a valid integer, not True"),
        ("dynamic_sampling=1", "dynamic_sampling: Input should be a valid boolean, not 1"),
        ("reward.terms.math.timeout_s=null", "reward.terms.math.timeout_s: Input should be a valid number, not None"),
        # Values out of range.
        ("rollout.group_size=0", "rollout.group_size: Input should be greater than or equal to 1, not 0"),
        ("max_staleness=-1", "max_staleness: Input should be greater than or equal to 0, not -1"),
        ("algorithm.clip=0", "algorithm.clip: Input should be greater than 0, not 0"),
        ("rollout.gpu_memory_share=1.2", "rollout.gpu_memory_share: Input should be less than or equal to 1, not 1.2"),
        ("learner.betas=[0.9,1.0]", "learner.betas.1: Input should be less than 1, not 1.0"),
        ("learner.lora={rank: 0, alpha: 1, targets: [q_proj]}", "learner.lora.rank: Input should be greater than"),
        (
            "learner.lora={rank: 8, alpha: 16, targets: [lm_head]}",
            "learner.lora.targets: lm_head cannot have an adapter; leave it out",
        ),
        (
            "learner={optimizer: muon, offload_optimizer: true}",
            "learner.optimizer: muon is for whole matrices on the device, not for learner.offload_optimizer; use adamw",
        ),
        (
            "learner={optimizer: muon, offload_parameters: true}",
            "learner.optimizer: muon is for whole matrices on the device, not for learner.offload_parameters; use",
        ),
        (
            "learner={sequence_parallel: 2, attention: sdpa}",
            "learner.sequence_parallel: 1 ranks do not divide into groups of 2\n"
            "learner.sequence_parallel: 2 works with learner.attention=rlframe_packed only",
        ),
        ("learner.gpus=2", "learner.gpus: Input should be less than or equal to 1, not 2"),
        ("learner.dtype=float16", "learner.dtype: Input should be 'bfloat16' or 'float32', not 'float16'"),
        ("learner.lr=${peak}", "learner.lr: Interpolation key 'peak' not found"),
        # Unknown names.
        (
            "algorithm.name=ppo",
            "algorithm: name: 'ppo' is none of bradley_terry, cispo, dapo, dpo, dpo_norm, dr_grpo, gdpo, gmpo, grpo, "
            "gspo, ipo, pointwise, reinforce, reinforce_pp, reinforce_pp_baseline, rloo, scalerl, sft",
        ),
        (
            "prompts.train.name=gsm8k",
            "prompts.train: name: 'gsm8k' is none of arithmetic, hub, jsonl, mixture, parquet, reasoning_gym",
        ),
        (
            "+reward.terms.math.requires=[fromat]",
            "reward.terms: math refers to the reward 'fromat'; there are besides it:",
        ),
        (
            "+reward.terms.math.requires=[math]",
            "reward.terms: math refers to the reward 'math'; there are besides it: format",
        ),
        (
            "+reward.terms.math.clip=[1.0,0.0]",
            "reward.terms.math: clip: its lower bound 1.0 is above its upper bound 0.0",
        ),
        ("reward.attempts=0", "reward.attempts: Input should be greater than or equal to 1, not 0"),
        ("evaluate.reward=maths", "evaluate.reward: 'maths' is none of the rewards math, format"),
        # Missing files.
        ("model.path=/no/model", "model.path: /no/model: there is no such Hugging Face folder or .gguf file"),
        ("algorithm.name=/no/mine.py:Mine", "algorithm: '/no/mine.py:Mine': there is no file /no/mine.py"),
        # Combinations that cannot work.
        (
            "learner.ranks=7",
            "learner.ranks: 256 completions a step (prompts_per_step=32 x rollout.group_size=8) do not divide over 7",
        ),
        (
            "mismatch.action=correct",
            "mismatch.action: correct switches on `correction`, but that is none; choose one, as tis",
        ),
        (
            "rollout.group_size=1",
            "rollout.group_size: grpo compares the completions of a prompt, and there is only one; use 2 or more, or",
        ),
        (
            "algorithm=gspo",
            "correction: gspo clips closer than engine and learner agree, so noise would stop whole completions; use "
            "correction=proximal",
        ),
        ("truncated=skip", "truncated: Input should be 'train', 'mask' or 'drop', not 'skip'"),
        ("learner.min_lr=1", "learner.min_lr: 1 is above learner.lr=1e-06; make it smaller"),
        ("learner.adam_epsilon=0", "learner.adam_epsilon: Input should be greater than 0, not 0"),
        (
            "learner.minibatches=3",
            "learner.minibatches: prompts_per_step=32 prompts do not divide into 3 minibatches; choose a divisor",
        ),
        (
            "rollout.max_tokens=3969",
            "rollout.max_tokens: prompts.max_tokens=128 + rollout.max_tokens=3969 = 4097 tokens, but the model at "
            "model.path takes 4096; at most 3968 would fit",
        ),
        (
            "learner.micro_batch_tokens=383",
            "learner.micro_batch_tokens: 383 cannot hold one sequence of up to 384 tokens (prompts.max_tokens + "
            "rollout.max_tokens); make it at least 384",
        ),
        (
            "learner.moe.bias_update_rate=0.001",
            "learner.moe.bias_update_rate: 0.001 moves a bias that chooses experts (e_score_correction_bias), and the "
            "model at model.path has none; use 0",
        ),
        (
            ["learner.ranks=2", "learner.sequence_parallel=2", "learner.packing=padded"],
            "learner.packing: padded is not divided over learner.sequence_parallel=2 ranks; use auto",
        ),
        ("rollout.routed_experts=true", "rollout.routed_experts: vLLM records them on GPUs only, and rollout.gpus=0"),
        (
            "weights.backend=ipc",
            "weights.backend: ipc moves weights between GPUs, but rollout.gpus=0 and learner.gpus=0; use object_store",
        ),
    ],
)
def test_an_error_names_the_key_the_problem_and_the_remedy(composed, override, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        load(composed(*([override] if isinstance(override, str) else override)))


@pytest.mark.parametrize(
    "model, override, message",
    [
        (
            "llama",
            "learner.expert_parallel=2",
            "learner.expert_parallel: is for qwen3_moe, whose blocks DeepSpeed's own",
        ),
        ("deepseek_v3", "learner.expert_parallel=2", "learner.expert_parallel: is for qwen3_moe, whose blocks"),
        ("qwen3_moe", "learner.expert_parallel=1", "learner.expert_parallel: Input should be greater than or equal"),
        (
            "qwen3_moe",
            "learner={expert_parallel: 16, ranks: 8}",
            "learner.expert_parallel: 16 does not divide learner.ranks=8; choose a divisor\n"
            "learner.expert_parallel: 16 does not divide the model's 8 experts; choose a divisor",
        ),
        (
            "qwen3_moe",
            "learner={expert_parallel: 2, ranks: 2, optimizer: muon}",
            "learner.expert_parallel: muon wants whole gradients of the same parameters on all ranks; use adamw",
        ),
        (
            "qwen3_moe",
            "learner={expert_parallel: 2, ranks: 2, lora: {rank: 8, alpha: 16, targets: [q_proj]}}",
            "learner.expert_parallel: learner.lora freezes the experts that it would share out; use null",
        ),
        (
            "qwen3_moe",
            "learner.lora={rank: 8, alpha: 16, targets: [q_proj, gate, mlp.down_proj]}",
            "learner.lora.targets: down_proj, gate name experts or their router, which are one tensor a layer that "
            "no adapter is merged into; name matrices of the attention",
        ),
    ],
)
def test_settings_that_a_kind_of_model_cannot_use_are_refused(request, composed, model, override, message):
    folder = request.getfixturevalue("tiny_model" if model == "llama" else f"{model}_model")
    fitting = ["prompts.max_tokens=256", "rollout.max_tokens=256"]
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        load(composed(*fitting, f"model.path={folder}", override))


@pytest.mark.parametrize(
    "overrides, message",
    [
        (
            ["algorithm=gspo", "correction=tis", "mismatch.action=correct"],
            "mismatch.action: gspo clips closer than engine and learner agree, so noise would stop whole completions "
            "until the correction is switched on; use warn or stop",
        ),
        (
            ["algorithm=gdpo", "kl=reference", "kl.place=reward", "kl.estimator=k1"],
            "kl.place: gdpo takes the scores of the reward's terms, of which the KL is none; use kl.place=loss",
        ),
        (["kl=reference", "kl.place=reward"], "kl: estimator: k3 in the reward does not pull towards the reference"),
    ],
)
def test_settings_that_contradict_each_other_are_refused(composed, overrides, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        load(composed(*overrides))


def test_reinforce_pp_takes_one_completion_of_each_prompt(composed):
    run = load(
        composed("algorithm=reinforce_pp", "rollout.group_size=1", "kl=reference", "kl.estimator=k1", "kl.place=reward")
    )
    assert run.rollout.group_size == 1


def test_several_corrections_are_chosen_saved_and_overridden(composed, tmp_path):
    run = load(composed("correction=[sequence,tis]", "correction.tis.cap=3.0"))
    assert list(run.correction) == ["sequence", "tis"]
    assert run.correction["tis"].cap == 3.0
    save(run, tmp_path / "config.yaml")
    assert load(OmegaConf.load(tmp_path / "config.yaml")) == run
    merged = merge_saved(tmp_path / "config.yaml", composed("correction=tis"), ["correction=tis"])
    assert list(load(merged).correction) == ["tis"]


def test_a_value_at_its_bound_is_accepted(composed):
    load(composed("rollout.max_tokens=3968"))
    load(composed("learner.micro_batch_tokens=384"))
    load(composed("learner.ranks=64"))


def test_all_problems_are_reported_together(composed):
    with pytest.raises(ConfigError) as error:
        load(composed("learner.lr=-1", "rollout.group_size=0", "+rolout=3"))
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == [
        "learner.lr",
        "rollout.group_size",
        "rolout",
    ]


def test_all_missing_values_are_reported_together(composed):
    with pytest.raises(ConfigError) as error:
        load(composed("prompts=jsonl"))
    assert [line.partition(":")[0] for line in str(error.value).splitlines()] == [
        "prompts.heldout.path",
        "prompts.train.path",
    ]


@pytest.mark.parametrize("prompts", ["arithmetic", "reasoning_gym", "hub"])
def test_a_saved_run_loads_as_the_same_run(composed, tmp_path, prompts):
    run = load(composed(f"prompts={prompts}", "algorithm=dapo", "cluster.address='host:6379'", "run_dir=runs/${seed}"))
    save(run, tmp_path / "config.yaml")
    assert load(OmegaConf.load(tmp_path / "config.yaml")) == run
    assert run.run_dir == "runs/0"


def test_a_saved_run_keeps_the_fields_of_a_users_reward(composed, tmp_path):
    file = tmp_path / "short.py"
    file.write_text(
        "from rlframe.reward import Reward\n\n\n"
        "class Short(Reward):\n    max_tokens: int\n\n"
        "    def __call__(self, prompt, completion):\n        return 1.0\n"
    )
    run = load(composed(f"+reward.terms.short={{name: '{file}:Short', weight: 0.1, max_tokens: 64}}"))
    save(run, tmp_path / "config.yaml")
    loaded = load(OmegaConf.load(tmp_path / "config.yaml"))
    assert loaded == run
    assert loaded.reward.terms["short"].model_dump(exclude_defaults=True) == {
        "name": f"{file}:Short",
        "weight": 0.1,
        "max_tokens": 64,
    }


def test_the_command_line_overrides_the_saved_config(composed, tmp_path):
    path = tmp_path / "config.yaml"
    save(load(composed("steps=7", "seed=3", "learner.lr=0.25")), path)
    overrides = ["experiment=smollm2_arithmetic", "steps=40", "algorithm=dapo", "resume=runs/old"]
    merged = load(merge_saved(path, composed(*overrides), overrides))
    assert (merged.steps, merged.resume) == (40, "runs/old")
    assert (merged.seed, merged.learner.lr, merged.rollout.max_tokens) == (
        3,
        0.25,
        256,
    )  # saved values, not the experiment's
    assert merged.algorithm.model_dump() == {
        "name": "dapo",
        "clip_low": 0.2,
        "clip_high": 0.28,
        "dual_clip": None,
    }  # replaces the whole group


def test_a_resumed_run_leaves_out_what_the_command_line_takes_away(composed, tmp_path):
    path = tmp_path / "config.yaml"
    save(load(composed()), path)
    merged = load(merge_saved(path, composed("~reward.terms.format"), ["~reward.terms.format"]))
    assert list(merged.reward.terms) == ["math"]


def test_without_overrides_a_resumed_run_equals_the_saved_run(composed, tmp_path):
    path = tmp_path / "config.yaml"
    run = load(composed("steps=7", "algorithm=dapo"))
    save(run, path)
    assert load(merge_saved(path, composed(), [])) == run
