"""Routers watched, balanced and replayed: transformers' own on a CPU, in float32."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from torch import Tensor, nn
from transformers import DeepseekV3Config
from transformers.models.deepseek_v3.modeling_deepseek_v3 import DeepseekV3TopkRouter

from rlframe.errors import RunFailed
from rlframe.model.moe import Routers, blocks_of_separate_experts
from rlframe.model.policy import Policy
from rlframe.training import PACKED_ATTENTION, UNRECORDED_EXPERT, Packing, TrainBatch
from tests.tiny.models import load_model

MODELS = ["qwen3_moe_model", "deepseek_v3_model"]


class OneLayer(nn.Module):
    """A router of 4 experts, 1 a token, that sends a token of one-hot hidden state e to expert e."""

    packing: Packing = "shared"

    def __init__(self) -> None:
        super().__init__()
        config = DeepseekV3Config(
            hidden_size=4, n_routed_experts=4, num_experts_per_tok=1, n_group=1, topk_group=1, norm_topk_prob=True
        )
        self.layers = nn.ModuleList([DeepseekV3TopkRouter(config)])
        self.layers[0].weight.data = 10 * torch.eye(4)

    def forward(self, batch: TrainBatch) -> Tensor:
        return self.layers[0](nn.functional.one_hot(batch.token_ids, 4).float())[2]


def batch(token_ids: list[int], routed_experts: Tensor | None = None) -> TrainBatch:
    """One sequence, its first two tokens the prompt."""
    count = len(token_ids)
    return TrainBatch(
        token_ids=torch.tensor(token_ids),
        rollout_logprobs=torch.zeros(count),
        old_logprobs=torch.zeros(count),
        ref_logprobs=None,
        advantages=torch.ones(count),
        loss_weights=(torch.arange(count) >= 2).float(),
        mean_weights=(torch.arange(count) >= 2).float(),
        sequence_ids=torch.zeros(count, dtype=torch.int64),
        position_ids=torch.arange(count),
        routed_experts=routed_experts,
    )


SENTENCE = batch(list(b"Twelve and thirty make forty-two."))

Loaded = Callable[[], Policy]


def make_policy(folder: Path, packing: Packing = "shared") -> Policy:
    model = load_model(folder, torch.float32, PACKED_ATTENTION, packing)
    return Policy(model, torch.float32, packing)


@pytest.fixture(params=MODELS)
def loaded(request: pytest.FixtureRequest) -> Loaded:
    folder: Path = request.getfixturevalue(request.param)
    return lambda: make_policy(folder)


def choices(policy: Policy, sentence: TrainBatch) -> Tensor:
    """[T, layers, k] int16: where the policy sends the tokens of `sentence`; layers without experts say nothing."""
    routers = Routers(policy, 0.0).by_layer
    seen: dict[int, Tensor] = {}
    hooks = [
        router.register_forward_hook(lambda _, __, output, layer=layer: seen.update({layer: output[2]}))
        for layer, router in routers.items()
    ]
    policy(sentence, 1.0)
    for hook in hooks:
        hook.remove()
    nothing = torch.full((len(sentence.token_ids), 2), UNRECORDED_EXPERT)
    return torch.stack([seen.get(layer, nothing) for layer in range(2)], dim=1).to(torch.int16)


def learn(policy: Policy, sentence: TrainBatch) -> tuple[Tensor, dict[str, Tensor]]:
    logprobs, _ = policy(sentence, 1.0)
    logprobs.sum().backward()
    return logprobs.detach(), {name: parameter.grad for name, parameter in policy.named_parameters()}


def test_expert_loads_give_imbalance_and_unused_experts() -> None:
    layer = OneLayer()
    routers = Routers(layer, 0.0)
    layer(batch([0, 0, 1]))
    layer(batch([0]))
    routers.end_update(applied=True)
    metrics = routers.metrics()
    assert metrics["moe/imbalance"] == 3.0  # loads 3, 1, 0, 0: the largest over their mean 1
    assert metrics["moe/unused_experts"] == 0.5
    # Scores of a token: sigmoid(10) once and 1/2 three times, so shares of about 2/5 and 1/5.
    assert metrics["moe/router_entropy"] == pytest.approx(0.4 * 0.9163 + 0.6 * 1.6094, abs=1e-3)
    routers.end_update(applied=True)
    assert routers.metrics() == {}


def test_a_step_moves_each_bias_by_the_rate_towards_even_load() -> None:
    layer = OneLayer()
    routers = Routers(layer, 0.125)
    layer(batch([0, 0, 0, 1]))
    routers.end_update(applied=True)
    assert layer.layers[0].e_score_correction_bias.tolist() == [-0.125, 0.0, 0.125, 0.125]
    layer(batch([0, 1, 2, 3]))
    routers.end_update(applied=True)
    assert layer.layers[0].e_score_correction_bias.tolist() == [-0.125, 0.0, 0.125, 0.125]


def test_an_update_that_was_skipped_moves_no_bias() -> None:
    layer = OneLayer()
    routers = Routers(layer, 0.25)
    layer(batch([0, 0, 0, 1]))
    routers.end_update(applied=False)
    assert layer.layers[0].e_score_correction_bias.tolist() == [0.0, 0.0, 0.0, 0.0]


def test_what_is_computed_without_gradient_is_no_load() -> None:
    layer = OneLayer()
    routers = Routers(layer, 0.25)
    with torch.no_grad():
        layer(batch([0, 0, 0, 1]))
    routers.end_update(applied=True)
    assert routers.metrics() == {}


def test_a_rate_is_refused_where_routers_have_no_bias(qwen3_moe_model: Path) -> None:
    policy = make_policy(qwen3_moe_model)
    with pytest.raises(RunFailed, match="bias_update_rate: Qwen3MoeTopKRouter has no e_score_correction_bias"):
        Routers(policy, 0.001)


def test_layers_that_run_again_in_the_backward_pass_count_once(loaded: Loaded) -> None:
    policy = loaded()
    policy.train()
    policy.model.gradient_checkpointing_enable({"use_reentrant": False})
    routers = Routers(policy, 0.0)
    learn(policy, SENTENCE)
    assert routers.sums is not None
    assert routers.sums[:, :-4].sum(1).tolist() == [2 * len(SENTENCE.token_ids)] * len(routers.by_layer)


def test_replaying_own_routes_changes_no_bit(loaded: Loaded) -> None:
    plain = learn(loaded(), SENTENCE)
    routes = choices(loaded(), SENTENCE)
    policy = loaded()
    routers = Routers(policy, 0.0)
    replayed = learn(policy, replace(SENTENCE, routed_experts=routes))
    assert torch.equal(plain[0], replayed[0])
    assert [name for name in plain[1] if not torch.equal(plain[1][name], replayed[1][name])] == []
    routers.end_update(applied=True)
    assert routers.metrics()["moe/rerouted"] == 0.0


def test_padding_is_no_load_and_replays_no_route(qwen3_moe_model: Path) -> None:
    lengths = torch.tensor([20, 13])
    two = replace(
        SENTENCE,
        sequence_ids=torch.arange(2).repeat_interleave(lengths),
        position_ids=torch.cat([torch.arange(20), torch.arange(13)]),
        routed_experts=torch.tensor([2, 5], dtype=torch.int16).expand(33, 2, 2),
    )
    found = {}
    for packing in ("whole", "padded"):
        policy = make_policy(qwen3_moe_model, packing)
        routers = Routers(policy, 0.0)
        logprobs, _ = learn(policy, two)
        routers.end_update(applied=True)
        found[packing] = logprobs, routers.metrics()
    torch.testing.assert_close(found["padded"][0], found["whole"][0])
    assert found["padded"][1] == pytest.approx(found["whole"][1], rel=1e-5)
    assert found["padded"][1]["moe/imbalance"] == 4.0


def test_a_router_with_another_answer_has_no_metrics_and_no_replay() -> None:
    layer = OneLayer()
    layer.layers[0].register_forward_hook(lambda module, inputs, output: (output[0], output[1].float()))
    routers = Routers(layer, 0.0)
    layer.forward = lambda batch: layer.layers[0](nn.functional.one_hot(batch.token_ids, 4).float())[0]
    layer(batch([0, 1]))
    routers.end_update(applied=True)
    assert routers.metrics() == {}
    with pytest.raises(RunFailed, match="replay does not know what DeepseekV3TopkRouter returns"):
        layer(batch([0, 1], torch.zeros(2, 1, 1, dtype=torch.int16)))


def test_replaying_other_routes_moves_the_gradient_to_those_experts(loaded: Loaded) -> None:
    routes = torch.tensor([6, 7], dtype=torch.int16).expand(len(SENTENCE.token_ids), 2, 2)
    policy = loaded()
    routers = Routers(policy, 0.0)
    _, gradients = learn(policy, replace(SENTENCE, routed_experts=routes))
    experts = {name: gradient.abs().amax((1, 2)) for name, gradient in gradients.items() if ".experts." in name}
    assert experts
    for of_expert in experts.values():
        assert (of_expert > 0).tolist() == [False] * 6 + [True] * 2
    for layer, router in routers.by_layer.items():
        gradient = gradients[f"model.model.layers.{layer}.mlp.gate.weight"]
        assert gradient is not None and router.weight.grad is gradient
        assert (gradient[6:] != 0).any()
    routers.end_update(applied=True)
    metrics = routers.metrics()
    assert metrics["moe/unused_experts"] == 0.75 and metrics["moe/imbalance"] == 4.0
    assert metrics["moe/rerouted"] > 0.2


def test_tokens_without_a_route_follow_the_learner_s_choice(loaded: Loaded) -> None:
    own = choices(loaded(), SENTENCE)
    routes = own.clone()
    routes[5:] = UNRECORDED_EXPERT
    policy = loaded()
    Routers(policy, 0.0)
    assert torch.equal(choices(policy, replace(SENTENCE, routed_experts=routes)), own)


def test_a_checkpointed_layer_replays_the_same_routes(loaded: Loaded) -> None:
    routes = torch.tensor([0, 5], dtype=torch.int16).expand(len(SENTENCE.token_ids), 2, 2)
    gradients = []
    for checkpointing in (False, True):
        policy = loaded()
        policy.train()
        if checkpointing:
            policy.model.gradient_checkpointing_enable({"use_reentrant": False})
        Routers(policy, 0.0)
        gradients.append(learn(policy, replace(SENTENCE, routed_experts=routes))[1])
    assert [name for name in gradients[0] if not torch.equal(gradients[0][name], gradients[1][name])] == []


def test_replay_refuses_a_router_with_unknown_weights() -> None:
    layer = OneLayer()
    Routers(layer, 0.0)
    router = layer.layers[0]
    router.register_forward_hook(lambda _, __, output: (output[0], output[1] * 2, output[2]), prepend=True)
    with pytest.raises(RunFailed, match="replay does not know how DeepseekV3TopkRouter weighs"):
        layer(batch([0, 1], torch.zeros(2, 1, 1, dtype=torch.int16)))


def test_only_blocks_with_a_module_per_expert_are_found(loaded: Loaded) -> None:
    assert blocks_of_separate_experts(loaded()) == []
    block = nn.Module()
    block.experts = nn.ModuleList([nn.Linear(2, 2), nn.Linear(2, 2)])
    assert blocks_of_separate_experts(nn.Sequential(nn.Linear(2, 2), block)) == [block]
