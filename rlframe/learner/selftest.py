"""`choose_packing`: the self-test of a run's model, which no setting switches off.

A learner computes log-probabilities in another way than the model's own `forward`: sequences of a micro-batch stand
end to end, a group's prompt counts once, and a head of our own follows. A layer that does not know the boundaries
would be silently wrong. So before a run starts, the run's model, shrunk and with random weights, computes a few
sequences in both ways, and the run takes a packing only where both agree.
"""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from rlframe.batch.collate import collate, neighbours, to_device
from rlframe.batch.records import to_record
from rlframe.batch.samples import to_probes
from rlframe.batch.sequences import to_train_sample
from rlframe.errors import ConfigError
from rlframe.model import attention
from rlframe.model.policy import Policy, attention_of, without_noise
from rlframe.model.shrink import VOCABULARY, shrunk
from rlframe.training import PACKED_ATTENTION, GroupRecord, Packing, TrainSample
from rlframe.types import Completion, Prompt, RolloutGroup, ScoredGroup, VersionSpan

if TYPE_CHECKING:
    from torch import Tensor

    from rlframe.learner.config import LearnerConfig

Result = TypeVar("Result")

BOUND = 1e-3  # nats; ways that agree differ by 1e-5 at most, ways that do not by 1e-1
SEEDS = 2  # a tie between two experts may differ under one seed; a wrong way differs under every seed
SYSTEM_TOKENS = 5  # that two prompts begin with
COMPLETION_TOKENS = {9: (11, 3), 13: (16,), 6: (2, 5)}  # tokens of a prompt -> tokens of its completions
MAX_REASON = 300  # characters of an error that a refusal quotes
MAX_PARAMETERS = 200_000_000  # of a shrunk model: 0.8 GB


def choose_packing(model_path: Path, config: LearnerConfig, longest: int) -> Packing:
    """The packing that the learner takes: `learner.packing`, or for `auto` the fastest that is right for the model.

    `longest`: tokens of the run's longest sequence. Raises ConfigError with the model type, the largest difference of
    a log-probability and the remedies where none is right.
    """
    import torch
    from transformers import AutoConfig

    model_config = AutoConfig.from_pretrained(model_path, trust_remote_code=False)
    found = differences(model_config, config.attention, candidates(config), longest)
    if not any(map(is_right, found.values())) and config.gpus and torch.cuda.is_available():
        # Kernels of linear attention and of convolutions run on GPUs only, and read the boundaries of `whole` packing.
        found = differences(model_config, config.attention, candidates(config), longest, device="cuda")
    packing, difference = next(iter(found.items()))
    if is_right(difference):
        return packing
    raise ConfigError(_refusal(model_config.model_type, config, found))


def candidates(config: LearnerConfig) -> list[Packing]:
    """The packings to try, the fastest first."""
    if config.packing != "auto":
        return [config.packing]
    if config.sequence_parallel > 1:
        return ["shared"]
    if config.attention == PACKED_ATTENTION:
        return ["shared", "whole", "padded"]
    return ["whole", "padded"] if config.attention.startswith("flash") else ["padded"]


def is_right(difference: float | str) -> bool:
    """True if both ways agree; an error's text never does."""
    return not isinstance(difference, str) and difference <= BOUND


def differences(
    model_config: Any, attention_name: str, packings: list[Packing], longest: int, device: str = "cpu"
) -> dict[Packing, float | str]:
    """Tries packings up to the first right one -> by packing, the largest difference of a log-probability in nats.

    A right packing comes first, if any. The text of an error stands where the model or its attention cannot
    compute a packing. Flash attention runs on GPUs only: our own attention takes its place here, so the layers are
    tested, and the kernel is not.
    """
    if attention_name.startswith("flash"):
        attention_name = PACKED_ATTENTION
    found: dict[Packing, float | str] = {}
    with _one_thread():
        for seed in range(SEEDS):
            test = _result_or_error(partial(_self_test, model_config, longest, seed, device))
            if isinstance(test, str):
                return dict.fromkeys(packings, test)
            for packing in packings:
                found[packing] = _result_or_error(partial(test.difference, packing, attention_name))
                if is_right(found[packing]):
                    return {packing: found.pop(packing), **found}
    return found


@contextmanager
def _one_thread() -> Iterator[None]:
    """Computes in one thread: the test's model is so small that threads would only wait for each other."""
    import torch

    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        yield
    finally:
        torch.set_num_threads(threads)


def _result_or_error(compute: Callable[[], Result]) -> Result | str:
    """The result, or an error's text: the code is the model's, so the error may be of any kind."""
    try:
        return compute()
    except Exception as error:
        return f"{type(error).__name__}: {error}"


def _self_test(model_config: Any, longest: int, seed: int, device: str) -> SelfTest:
    """The test with a narrow model, or else with a model of full width."""
    try:
        return SelfTest(model_config, longest, seed, device)
    except Exception:  # a rule between keys that shrinking has broken
        return SelfTest(model_config, longest, seed, device, narrow=False)


class SelfTest:
    """A small random model of a config, and the log-probabilities that it gives to each of a few sequences alone."""

    def __init__(self, model_config: Any, longest: int, seed: int, device: str, *, narrow: bool = True) -> None:
        import torch

        attention.register()
        small = without_noise(shrunk(model_config, longest, narrow=narrow))
        self.samples = _samples(seed, min(VOCABULARY, small.get_text_config(decoder=True).vocab_size))
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            self.model = _random_model(small).to(device)
        with torch.no_grad():
            self.own_logprobs = torch.cat([_own_logprobs(self.model, sample) for sample in self.samples])

    def difference(self, packing: Packing, attention_name: str) -> float:
        """Largest difference in nats between these log-probabilities and those in `packing`; infinite for NaN."""
        import torch

        model: Any = copy.deepcopy(self.model)
        model.set_attn_implementation(attention_of(attention_name, packing) or self.model.preferred_attention)
        batch = to_device(collate(self.samples, packing), self.own_logprobs.device)
        with torch.no_grad():
            logprobs, _ = Policy(model, torch.float32, packing).train()(batch, temperature=1.0)
        difference = float((logprobs[batch.loss_weights != 0] - self.own_logprobs).abs().max())
        return math.inf if math.isnan(difference) else difference


def _refusal(model_type: str, config: LearnerConfig, found: dict[Packing, float | str]) -> str:
    reasons = "; ".join(
        f"{packing}: {_first_line(reason)}" if isinstance(reason, str) else f"{packing}: {reason:.2g} nats"
        for packing, reason in found.items()
    )
    if len(errors := {reason for reason in found.values() if isinstance(reason, str)}) == 1 and len(found) > 1:
        reasons = f"every packing: {_first_line(errors.pop())}"
    remedies = [
        *([] if config.packing == "auto" else ["learner.packing=auto"]),
        *([] if config.attention == PACKED_ATTENTION else [f"learner.attention={PACKED_ATTENTION}"]),
        *([] if config.sequence_parallel == 1 else ["learner.sequence_parallel=1"]),
    ]
    return (
        f"model.path: the learner cannot compute the log-probabilities of the model type {model_type!r} as the model's "
        f"own forward pass does, so it would train on wrong numbers. Largest difference by learner.packing ({BOUND:g} "
        f"is allowed), or the error: {reasons}. "
        + (f"Try {' or '.join(remedies)}" if remedies else "No setting helps; take another model, or report this one")
    )


def _first_line(text: str) -> str:
    line = text.splitlines()[0]
    return line if len(line) <= MAX_REASON else f"{line[:MAX_REASON]}..."


def _random_model(config: Any) -> Any:
    """The model of a config with weights so large that a wrong layer shows in every log-probability.

    Its attention is `eager`, the definition, because some models' `sdpa` leaves out a cap.
    """
    import torch
    from transformers import AutoModelForCausalLM

    with torch.device("meta"):
        size = sum(parameter.numel() for parameter in AutoModelForCausalLM.from_config(config).parameters())
    if size > MAX_PARAMETERS:
        raise ValueError(f"the self-test cannot shrink it below {size / 1e6:.0f}M parameters")
    model = AutoModelForCausalLM.from_config(config, dtype=torch.float32)
    model.preferred_attention = model.config._attn_implementation
    model.set_attn_implementation("eager")
    with torch.no_grad():
        for parameter in model.parameters():
            if parameter.ndim > 1:
                parameter.normal_(std=parameter.shape[-1] ** -0.5)
            else:
                parameter.add_(torch.randn_like(parameter), alpha=0.1)
    return model.eval()


def _samples(seed: int, vocabulary: int) -> list[TrainSample]:
    """Five completions of three prompts, of which two begin alike; in the order of a micro-batch."""
    random = np.random.default_rng(seed)
    system = random.integers(3, vocabulary, SYSTEM_TOKENS)
    records = []
    for number, (length, completion_lengths) in enumerate(COMPLETION_TOKENS.items()):
        prompt = random.integers(3, vocabulary, length)
        if number < 2:
            prompt[:SYSTEM_TOKENS] = system
        completions = [_completion(random.integers(3, vocabulary, tokens)) for tokens in completion_lengths]
        records.append(_record(str(number), prompt.tolist(), completions))
    probes = [probe for probes in to_probes(records).values() for probe in probes]
    samples = [to_train_sample(probe, probe.body) for probe in probes]
    return [samples[index] for index in neighbours(samples)]


def _completion(token_ids: np.ndarray) -> Completion:
    length = len(token_ids)
    versions = [VersionSpan(version=0, start=0, end=length)]
    logprobs = np.zeros(length, np.float32)
    return Completion(token_ids=token_ids, logprobs=logprobs, versions=versions, text="", finish_reason="stop")


def _record(prompt_id: str, prompt: list[int], completions: list[Completion]) -> GroupRecord:
    group = RolloutGroup.single_turn(
        Prompt(id=prompt_id, messages=[], token_ids=prompt, reference="", task=""), completions
    )
    scored = ScoredGroup(group=group, rewards=[0.0] * len(completions), verdicts={})
    return to_record(scored, body=scored, worker="")


def _own_logprobs(model: Any, sample: TrainSample) -> Tensor:
    """[sampled tokens] by the model's own forward pass of this sequence alone."""
    import torch

    token_ids = torch.from_numpy(sample.token_ids).long().to(model.device)
    logits = model(input_ids=token_ids[None], use_cache=False).logits[0].float()
    logprobs = logits[:-1].log_softmax(-1).gather(1, token_ids[1:, None])[:, 0]
    return logprobs[sample.prefix_tokens - 1 :]
