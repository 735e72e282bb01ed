"""Bytes of a rank, worked out by hand for a llama of 1,448 parameters."""

import pytest

from rlframe.model import logprobs
from rlframe.plan import activations
from rlframe.plan.activations import Pass, head_bytes, kept_bytes
from rlframe.plan.learner_memory import rank_memory, tokens_of_a_pass
from rlframe.plan.shards import rank_shards
from tests.plan.conftest import QWEN3_8B, TINY, shapes_of

P = 1448  # parameters of TINY, of which 40 are norms
BUCKET = 4 << 25


def test_a_rank_keeps_18_bytes_a_parameter_in_bfloat16_and_20_in_float32(run_of):
    shapes = shapes_of(TINY)
    assert shapes.parameters == P
    kept = rank_memory(run_of(TINY), shapes).kept
    assert kept == {
        "weights": 2 * P, "master weights": 4 * P, "optimizer's moments": 8 * P, "gradients": 4 * P,
        "reduction bucket": BUCKET,
    }  # fmt: skip
    exact = rank_memory(run_of(TINY, "learner.dtype=float32"), shapes).kept
    assert sum(exact.values()) - BUCKET == 20 * P


def test_ranks_divide_every_parameter_and_pad_it(run_of):
    run = run_of(TINY, "learner.ranks=4", "prompts_per_step=4")
    # Every size of TINY is a multiple of 4.
    assert rank_shards(shapes_of(TINY), run.learner).trained == P // 4
    odd = run_of(TINY, "learner.ranks=16", "prompts_per_step=4")
    # Five norms of 8 values take 1 value on each of 16 ranks, where 2.5 would do.
    assert rank_shards(shapes_of(TINY), odd.learner).trained == (P - 40) // 16 + 5


def test_adapters_alone_have_master_weights_moments_and_gradients(run_of):
    run = run_of(TINY, "learner.lora={rank: 2, alpha: 4, targets: [q_proj, v_proj]}")
    # Two layers: q_proj 8 x 8 has 2 * (8 + 8), v_proj 4 x 8 has 2 * (8 + 4).
    adapters = 2 * (32 + 24)
    kept = rank_memory(run, shapes_of(TINY)).kept
    assert kept["weights"] == 2 * (P + adapters)
    assert kept["master weights"] + kept["optimizer's moments"] + kept["gradients"] == 16 * adapters


def test_muon_keeps_one_moment_for_hidden_matrices(run_of):
    kept = rank_memory(run_of(TINY, "learner.optimizer=muon"), shapes_of(TINY)).kept
    matrices = 2 * (64 + 64 + 64 + 384)
    assert kept["optimizer's moments"] == 4 * matrices + 8 * (P - matrices)


def test_a_reference_is_one_more_copy_and_can_stay_on_the_host(run_of):
    gpus = ("learner.gpus=1", "rollout.gpus=1")
    here = rank_memory(run_of(TINY, "kl=reference", "kl.offload=false", *gpus), shapes_of(TINY))
    away = rank_memory(run_of(TINY, "kl=reference", "kl.offload=true", *gpus), shapes_of(TINY))
    assert here.kept["reference"] == away.host["reference"] == 2 * P
    assert "reference" not in away.kept


def test_offload_moves_all_but_weights_to_the_host(run_of):
    gpus = ("learner.gpus=1", "rollout.gpus=1", "learner.offload_optimizer=true")
    memory = rank_memory(run_of(TINY, *gpus), shapes_of(TINY))
    assert memory.kept == {"weights": 2 * P, "reduction bucket": BUCKET}
    # DeepSpeed has the gradients twice there: as they arrive, and as the optimizer takes them.
    assert memory.host["gradients"] == memory.host["gradients for the optimizer"] == 4 * P
    both = rank_memory(run_of(TINY, *gpus, "learner.offload_parameters=true"), shapes_of(TINY))
    assert both.kept == {"reduction bucket": BUCKET} and both.host["weights"] == 2 * P


def test_a_sleeping_rank_has_its_state_on_the_host(run_of):
    colocated = ("placement=colocated", "learner.gpus=1", "rollout.gpus=1")
    memory = rank_memory(run_of(TINY, *colocated), shapes_of(TINY))
    assert memory.host["state of a sleeping rank"] == memory.kept_bytes == 18 * P + BUCKET


def test_a_checkpoint_copies_state_reference_and_export(run_of):
    shapes = shapes_of(TINY)
    assert rank_memory(run_of(TINY), shapes).checkpoint == 12 * P + 2 * P
    assert rank_memory(run_of(TINY, "kl=reference", "checkpoint.export=false"), shapes).checkpoint == 12 * P + 2 * P
    assert rank_memory(run_of(TINY, "checkpoint.every=0"), shapes).checkpoint == 0


def test_a_layer_keeps_what_its_backward_pass_reads():
    [layer] = shapes_of(TINY).layers
    forward = Pass(tokens=1, longest=8, width=2, trains_all=True, on_gpu=True)
    norms = 2 * (4 + 2 + 2) * 8
    heads = 2 * (8 + 4 + 4)
    output, mlp = 2 * 2 * 8, 4 * 2 * 16
    assert kept_bytes(layer, 8, forward) == norms + heads + output + mlp


def test_gradient_checkpointing_keeps_the_input_of_each_layer(run_of):
    shapes = shapes_of(QWEN3_8B)
    gpus = ("learner.gpus=1", "rollout.gpus=1", "learner.ranks=8", "learner.micro_batch_tokens=8192")
    plenty = ("prompts_per_step=64", "rollout.max_tokens=4096", "prompts.max_tokens=1024")
    whole, saved = (
        rank_memory(run_of(QWEN3_8B, *gpus, *plenty, f"learner.gradient_checkpointing={value}"), shapes)
        for value in ("false", "true")
    )
    # 36 inputs of 8,192 x 4,096 values in bfloat16 are 2.25 GiB; all activations are about 40 times as much.
    assert saved.peak_bytes < whole.peak_bytes - (40 << 30)
    assert whole.kept == saved.kept


def test_a_pass_has_no_more_tokens_than_a_rank_gets(run_of):
    sizes = ("prompts.max_tokens=100", "rollout.max_tokens=100", "rollout.group_size=4", "prompts_per_step=2")
    # 2 x (100 + 4 x 100) tokens on one rank, 500 on each of two
    assert tokens_of_a_pass(run_of(TINY, *sizes)) == 1000
    assert tokens_of_a_pass(run_of(TINY, *sizes, "learner.ranks=2")) == 500
    assert tokens_of_a_pass(run_of(TINY, *sizes, "learner.micro_batch_tokens=300")) == 300


def test_the_heads_chunks_are_those_of_the_learner():
    assert activations.CHUNK_BYTES == logprobs.CHUNK_BYTES
    assert activations.GPU_CHUNK_BYTES == logprobs.GPU_CHUNK_BYTES
    assert activations.BLOCK_BYTES == 4 * logprobs.BLOCK


@pytest.mark.parametrize("head_width, matrix", [(4, 4), (2, 0)])
def test_a_head_in_float32_is_copied_from_bfloat16(head_width, matrix):
    shapes = shapes_of(QWEN3_8B)
    forward = Pass(tokens=16_384, longest=4096, width=2, trains_all=True, on_gpu=True)
    head = head_bytes(shapes, forward, head_width=head_width, trained=True)
    size = 151_936 * 4096
    assert head.matrix == matrix * size
    assert head.gradient >= 6 * size  # float32, and bfloat16 for the parameter
    assert head.logits <= 3.2 * (1 << 30)  # a chunk of 1 GiB, and its softmax
