"""Mixtures of experts: metrics of the routers' choices, DeepSeek's balance without a loss, and routing replay.

A router is a module that answers (logits [T, E], gate weights [T, k], chosen experts [T, k]), as most of
transformers' do since version 5; others have no metrics and no replay. DeepSpeed's, with expert parallelism, answers
(gate weights, chosen experts, load) and takes the logits from its `gate`: rlframe counts its choices and cannot replay
routes in it.
"""

from __future__ import annotations

import re
from typing import Any

import torch
from torch import Tensor, nn

from rlframe.errors import RunFailed
from rlframe.model.base_model import BIAS
from rlframe.model.layout import Layout
from rlframe.model.rows import Rows
from rlframe.training import UNRECORDED_EXPERT, TrainBatch


class Routers:
    """A policy's routers: counts their choices in training, and replays the choices of an engine.

    A model without routers has no metrics and costs nothing.
    """

    def __init__(self, policy: nn.Module, bias_update_rate: float) -> None:
        """Hooks onto `policy`, whose first argument is a TrainBatch.

        Raises RunFailed when a `bias_update_rate` is asked of routers that have no selection bias.
        """
        self.by_layer = {
            int(layer[1]): module
            for name, module in policy.named_modules()
            if (is_router(module) or is_autoep_router(module)) and (layer := re.search(r"\.(\d+)\b", name))
        }
        self.bias_update_rate = bias_update_rate
        if bias_update_rate and any(bias(router) is None for router in self.routers):
            raise RunFailed(f"learner.moe.bias_update_rate: {type(self.routers[0]).__name__} has no {BIAS} to move")
        self.sums: Tensor | None = None  # [routers, E + 4]: load, then tokens, entropy, rerouted, replayed
        self.of_step: list[Tensor] = []  # of each update, over all ranks
        self.counting = False
        self.routes: Tensor | None = None  # [tokens that routers see, layers, k] of the batch at hand
        self.is_token: Tensor | None = None  # [tokens that routers see] bool, False for padding; None: no padding
        self.checked: set[int] = set()  # indices of routers whose gate weights `gate_weights` reproduced
        if not self.by_layer:
            return
        policy.register_forward_pre_hook(self._open)
        policy.register_forward_hook(self._close)
        for place, (layer, router) in enumerate(self.by_layer.items()):
            if is_autoep_router(router):
                self._watch(place, router)
            else:
                router.register_forward_hook(self._hook(place, layer))

    @property
    def routers(self) -> list[nn.Module]:
        return list(self.by_layer.values())

    def end_update(self, *, applied: bool) -> None:
        """Sums the loads of the update's tokens over ranks, and moves the biases towards balance. A collective.

        Auxiliary-loss-free balance (Wang et al., 2024, arXiv:2408.15664): b_e += rate * sign(mean load - load_e).
        Every rank moves its copy by the same sums, so the copies stay equal. An update that was not `applied` moves
        nothing.
        """
        if self.sums is None:
            return
        sums, self.sums = self.sums, None
        if torch.distributed.is_initialized():
            torch.distributed.all_reduce(sums)
        self.of_step.append(sums)
        if not self.bias_update_rate or not applied:
            return
        for router, load in zip(self.routers, sums[:, :-4], strict=True):
            if (selection_bias := bias(router)) is not None:
                selection_bias.add_(self.bias_update_rate * torch.sign(load.mean() - load))

    def metrics(self) -> dict[str, float]:
        """Metrics of all updates since the last call, the same on every rank.

        `moe/imbalance`: load of the busiest expert over the mean, 1 when all are alike, E when one does all; the mean
        over layers. `moe/rerouted`: the share of replayed choices that the learner itself would not have made.
        """
        if not self.of_step:
            return {}
        sums, self.of_step = torch.stack(self.of_step).sum(0), []
        load, (tokens, entropy, rerouted, replayed) = sums[:, :-4], sums[:, -4:].T
        metrics = {
            "moe/imbalance": float((load.max(1).values / load.mean(1)).mean()),
            "moe/unused_experts": float((load == 0).double().mean()),
            "moe/router_entropy": float(entropy.sum() / tokens.sum()),
        }
        return metrics | ({"moe/rerouted": float(rerouted.sum() / replayed.sum())} if replayed.sum() else {})

    def _open(self, policy: Any, inputs: tuple[Any, ...]) -> None:
        batch: TrainBatch = inputs[0]
        self.routes, self.is_token = batch.routed_experts, None
        if policy.packing == "padded":
            rows = Rows.of(Layout.of(batch.sequence_ids, batch.position_ids))
            self.is_token = rows.is_token.flatten()
            if self.routes is not None:
                self.routes = rows.fill(self.routes, UNRECORDED_EXPERT).flatten(0, 1)
        # Count in the forward pass only: a checkpointed layer runs again in the backward pass.
        self.counting = torch.is_grad_enabled()

    def _close(self, *_: Any) -> None:
        self.counting = False

    def _hook(self, place: int, layer: int) -> Any:
        def hook(router: nn.Module, _: Any, output: tuple[Tensor, Tensor, Tensor]) -> tuple[Tensor, ...] | None:
            if not answers_choices(output):
                if self.routes is not None:
                    raise RunFailed(
                        f"rollout.routed_experts: replay does not know what {type(router).__name__} returns"
                    )
                return None
            logits, _, own_choice = output
            if self.routes is None:
                self._count(place, router, logits, own_choice)
                return None
            self._check(place, router, output)
            recorded = self.routes[:, layer].to(own_choice.dtype)
            is_recorded = recorded != UNRECORDED_EXPERT
            chosen = torch.where(is_recorded, recorded, own_choice)
            self._count(
                place,
                router,
                logits,
                chosen,
                is_recorded & (chosen[:, :, None] != own_choice[:, None]).all(2),
                is_recorded,
            )
            return logits, gate_weights(router, logits, chosen), chosen

        return hook

    def _watch(self, place: int, router: nn.Module) -> None:
        """Counts what AutoEP's router chooses; its logits are the output of its `gate`, which comes first."""
        latest: dict[str, Tensor] = {}
        gate: Any = router.gate
        gate.register_forward_hook(lambda _, __, output: latest.__setitem__("logits", output))
        router.register_forward_hook(lambda _, __, output: self._count(place, router, latest.pop("logits"), output[1]))

    @torch.no_grad()
    def _count(
        self, place: int, router: nn.Module, logits: Tensor, chosen: Tensor, *rerouted_and_replayed: Tensor
    ) -> None:
        if not self.counting:
            return
        if (is_token := self.is_token) is not None:
            logits, chosen = logits[is_token], chosen[is_token]
            rerouted_and_replayed = tuple(mask[is_token] for mask in rerouted_and_replayed)
        if self.sums is None:
            shape = (len(self.by_layer), logits.shape[1] + 4)
            self.sums = torch.zeros(shape, dtype=torch.float64, device=logits.device)
        row, scores = self.sums[place], expert_scores(router, logits)
        row.scatter_add_(0, chosen.flatten(), row.new_ones(chosen.numel()))
        row[-4] += len(logits)
        row[-3] += torch.special.entr(scores / scores.sum(1, keepdim=True)).sum()
        for column, mask in zip((-2, -1), rerouted_and_replayed, strict=False):
            row[column] += mask.sum()

    @torch.no_grad()
    def _check(self, place: int, router: nn.Module, output: tuple[Tensor, Tensor, Tensor]) -> None:
        if place in self.checked:
            return
        logits, weights, chosen = output
        if not torch.equal(gate_weights(router, logits, chosen), weights):
            raise RunFailed(f"rollout.routed_experts: replay does not know how {type(router).__name__} weighs experts")
        self.checked.add(place)


def is_router(module: nn.Module) -> bool:
    weight = getattr(module, "weight", None)
    return hasattr(module, "top_k") and hasattr(module, "num_experts") and isinstance(weight, nn.Parameter)


def answers_choices(output: Any) -> bool:
    """True for a router's output (logits, gate weights, chosen experts); Granite's and Llama 4's routers differ."""
    return isinstance(output, tuple) and len(output) == 3 and output[2].dtype in (torch.int32, torch.int64)


def is_autoep_router(module: nn.Module) -> bool:
    """DeepSpeed's TokenChoiceTopKRouter, recognised by its attributes, because DeepSpeed is slow to import."""
    return hasattr(module, "top_k") and hasattr(module, "num_experts") and hasattr(module, "route_norm")


def bias(router: nn.Module) -> Tensor | None:
    """[E], added to scores where experts are chosen, if this router has it."""
    return getattr(router, BIAS, None)


def expert_scores(router: nn.Module, logits: Tensor) -> Tensor:
    """[T, E] in float32: DeepSeek-V3's sigmoid of each expert alone, or the softmax over all."""
    return logits.float().sigmoid() if bias(router) is not None else logits.softmax(-1, dtype=torch.float32)


def gate_weights(router: nn.Module, logits: Tensor, chosen: Tensor) -> Tensor:
    """[T, k]: the router's own weights of these experts, to the last bit; gradients reach its logits."""
    weights = expert_scores(router, logits).gather(1, chosen)
    biased = bias(router) is not None
    if getattr(router, "norm_topk_prob", True):
        total = weights.sum(-1, keepdim=True)
        weights = weights / (total + 1e-20 if biased else total)
    factor: Any = router.routed_scaling_factor if biased else None
    return weights * factor if biased else weights.to(logits.dtype)


def blocks_of_separate_experts(model: nn.Module) -> list[nn.Module]:
    """Blocks that keep a module per expert.

    ZeRO-3 gathers a module's parameters when it runs, all ranks together, so ranks whose tokens visit different
    experts would wait for each other for ever: it must take such a block as one.
    """
    return [module for module in model.modules() if isinstance(getattr(module, "experts", None), nn.ModuleList)]
