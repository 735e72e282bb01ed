"""The chunked head against PyTorch's own log-softmax of the full logits, in float64."""

import itertools
import json

import pytest
import torch
from torch import Tensor, nn

from rlframe.model import logprobs as module
from rlframe.model.logprobs import LogprobHead
from rlframe.model.scale import Scale

VOCABULARY, WIDTH = 37, 8


def head_and_input(rows: int) -> tuple[LogprobHead, Tensor, Tensor]:
    torch.manual_seed(rows)
    hidden = torch.randn(rows, WIDTH, requires_grad=True)
    return LogprobHead(nn.Linear(WIDTH, VOCABULARY, bias=False), torch.float32), hidden, torch.randint(37, (rows,))


def reference(head: LogprobHead, hidden: Tensor, targets: Tensor, temperature: float) -> dict[str, Tensor]:
    """The same through full float64 logits; gradients are of a sum in which each row has a weight of its own."""
    hidden = hidden.detach().double().requires_grad_()
    weight = head.weight.detach().double().requires_grad_()
    log_softmax = (hidden @ weight.T / temperature).log_softmax(1)
    logprobs = log_softmax[torch.arange(len(targets)), targets]
    (logprobs * row_weights(len(targets)).double()).sum().backward()
    assert hidden.grad is not None and weight.grad is not None
    entropies = -(log_softmax.exp() * log_softmax).sum(1)
    return {"logprobs": logprobs, "entropies": entropies, "hidden": hidden.grad, "weight": weight.grad}


def row_weights(rows: int) -> Tensor:
    return torch.linspace(-1, 1, rows)


@pytest.fixture(autouse=True)
def small_chunks(monkeypatch):
    """Chunks of 512 rows: 512 x 37 logits of 4 bytes; blocks of 200 rows."""
    monkeypatch.setattr(module, "CHUNK_BYTES", 512 * VOCABULARY * 4)
    monkeypatch.setattr(module, "BLOCK", 200 * VOCABULARY)


# Less than a chunk, exactly one, two and a part of a third.
@pytest.mark.parametrize("rows", [5, 512, 1100])
@pytest.mark.parametrize("temperature", [1.0, 0.6, 1.7])
def test_values_and_gradients_across_chunks_equal_the_full_softmax(rows, temperature):
    head, hidden, targets = head_and_input(rows)
    logprobs, entropies = head(hidden, targets, temperature)
    (logprobs * row_weights(rows)).sum().backward()
    wanted = reference(head, hidden, targets, temperature)
    got = {"logprobs": logprobs, "entropies": entropies, "hidden": hidden.grad, "weight": head.weight.grad}
    for name, value in got.items():
        torch.testing.assert_close(value.double(), wanted[name], rtol=1e-5, atol=1e-5, msg=name)


def test_a_second_backward_pass_adds_the_same_gradients_again():
    head, hidden, targets = head_and_input(1100)
    logprobs, _ = head(hidden, targets, 0.6)
    loss = (logprobs * row_weights(1100)).sum()
    loss.backward(retain_graph=True)
    assert hidden.grad is not None and head.weight.grad is not None
    once = hidden.grad.clone(), head.weight.grad.clone()
    loss.backward()
    torch.testing.assert_close(hidden.grad, 2 * once[0])
    torch.testing.assert_close(head.weight.grad, 2 * once[1])


@pytest.mark.parametrize("rows, products", [(500, 3), (1100, 3 + 2 * 4)])
def test_only_the_last_chunk_s_logits_are_computed_once(rows, products):
    head, hidden, targets = head_and_input(rows)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU]) as profile:
        head(hidden, targets, 1.0)[0].sum().backward()
    called = {event.key: event.count for event in profile.key_averages()}
    assert called["aten::mm"] + called.get("aten::addmm_", 0) == products


def test_peak_memory_is_one_chunk_of_logits(tmp_path, monkeypatch):
    rows, vocabulary = 1200, 5000
    chunk = 400 * vocabulary * 4  # bytes
    monkeypatch.setattr(module, "CHUNK_BYTES", chunk)
    monkeypatch.setattr(module, "BLOCK", 10 * vocabulary)
    head = LogprobHead(nn.Linear(1, vocabulary, bias=False), torch.float32)
    hidden, targets = torch.ones(rows, 1, requires_grad=True), torch.zeros(rows, dtype=torch.int64)
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        head(hidden, targets, 1.0)[0].sum().backward()
    profile.export_chrome_trace(str(tmp_path / "trace"))
    events = json.loads((tmp_path / "trace").read_text())["traceEvents"]
    taken = sorted((event["ts"], event["args"]["Bytes"]) for event in events if event["name"] == "[memory]")
    assert chunk < max(itertools.accumulate(size for _, size in taken)) < 1.2 * chunk


def test_two_equal_logits_make_log_a_half_and_an_entropy_of_log_2():
    head = LogprobHead(nn.Linear(1, 2, bias=False), torch.float32)
    nn.init.zeros_(head.weight)
    logprobs, entropies = head(torch.ones(1, 1), torch.tensor([1]), 1.0)
    assert logprobs.item() == pytest.approx(-0.693147)
    assert entropies.item() == pytest.approx(0.693147)


def test_a_batch_that_counts_no_token_has_gradient_0_rather_than_none():
    head, hidden, targets = head_and_input(0)
    logprobs, _ = head(hidden, targets, 1.0)
    logprobs.sum().backward()
    assert head.weight.grad is not None
    assert head.weight.grad.abs().sum() == 0


def test_bfloat16_weights_get_a_gradient_computed_in_float32():
    torch.manual_seed(0)
    head = LogprobHead(nn.Linear(WIDTH, VOCABULARY, bias=False).bfloat16(), torch.float32)
    hidden = torch.randn(600, WIDTH).bfloat16().requires_grad_()
    targets = torch.randint(37, (600,))
    logprobs, _ = head(hidden, targets, 1.0)
    (logprobs * row_weights(600)).sum().backward()
    wanted = reference(head, hidden, targets, 1.0)
    assert head.weight.grad is not None
    assert head.weight.grad.dtype == torch.bfloat16
    torch.testing.assert_close(logprobs.double(), wanted["logprobs"], rtol=1e-5, atol=1e-5)
    torch.testing.assert_close(head.weight.grad.double(), wanted["weight"], rtol=2**-8, atol=1e-3)  # half a last bit


@pytest.mark.parametrize("rows", [5, 1100])
@pytest.mark.parametrize("temperature", [1.0, 0.6])
@pytest.mark.parametrize("logprob_share", [0.0, 1.0])
def test_an_entropy_s_gradient_equals_the_full_softmax_s(rows, temperature, logprob_share):
    head, hidden, targets = head_and_input(rows)
    logprobs, entropies = head(hidden, targets, temperature)
    loss = (entropies * row_weights(rows).flip(0)).sum()
    (loss + logprob_share * (logprobs * row_weights(rows)).sum() if logprob_share else loss).backward()

    exact = hidden.detach().double().requires_grad_()
    weight = head.weight.detach().double().requires_grad_()
    log_softmax = (exact @ weight.T / temperature).log_softmax(1)
    wanted = (-(log_softmax.exp() * log_softmax).sum(1) * row_weights(rows).double().flip(0)).sum()
    wanted = wanted + logprob_share * (log_softmax[torch.arange(rows), targets] * row_weights(rows).double()).sum()
    wanted.backward()
    assert exact.grad is not None and weight.grad is not None and hidden.grad is not None
    torch.testing.assert_close(hidden.grad.double(), exact.grad, rtol=1e-5, atol=1e-5)
    assert head.weight.grad is not None
    torch.testing.assert_close(head.weight.grad.double(), weight.grad, rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("rows", [5, 1100])
@pytest.mark.parametrize("scale", [Scale(factor=0.25), Scale(cap=2.0), Scale(factor=3.0, cap=1.5)])
def test_scales_caps_and_biases_are_those_of_the_full_softmax(rows, scale):
    torch.manual_seed(rows)
    hidden = torch.randn(rows, WIDTH, requires_grad=True)
    linear, targets = nn.Linear(WIDTH, VOCABULARY), torch.randint(37, (rows,))
    exact = [tensor.detach().double().requires_grad_() for tensor in (hidden, linear.weight, linear.bias)]
    head = LogprobHead(linear, torch.float32, scale)
    product = (exact[0] @ exact[1].T + exact[2]) * scale.factor
    logits = product if scale.cap is None else scale.cap * torch.tanh(product / scale.cap)
    log_softmax = (logits / 0.6).log_softmax(1)
    wanted = log_softmax[torch.arange(rows), targets], -(log_softmax.exp() * log_softmax).sum(1)
    got = head(hidden, targets, 0.6)
    for mine, reference in zip(got, wanted, strict=True):
        torch.testing.assert_close(mine.double(), reference, rtol=1e-5, atol=1e-5)
    (got[0] * row_weights(rows) - 0.3 * got[1]).sum().backward()
    (wanted[0] * row_weights(rows).double() - 0.3 * wanted[1]).sum().backward()
    for mine, reference in zip((hidden, head.weight, head.bias), exact, strict=True):
        torch.testing.assert_close(mine.grad.double(), reference.grad, rtol=1e-5, atol=1e-4)


@pytest.mark.parametrize("vocabulary, dtype, chunks, blocks", [
    (49_152, torch.float32, [666, 667, 667], 32), (49_152, torch.bfloat16, [1000, 1000], 48),
    (151_936, torch.float32, [200] * 10, 34), (151_936, torch.bfloat16, [400] * 5, 67),
    (80_000_000, torch.bfloat16, [1] * 2000, 1),
])  # fmt: skip
def test_a_larger_vocabulary_makes_more_chunks_of_equal_size(vocabulary, dtype, chunks, blocks, monkeypatch):
    monkeypatch.setattr(module, "CHUNK_BYTES", 128 << 20)  # 682 rows of 49,152 in float32
    monkeypatch.setattr(module, "BLOCK", 1 << 20)  # 21 of them
    cut = module._chunks(torch.empty(1, dtype=dtype).expand(vocabulary), torch.arange(2000))
    assert sorted(len(rows) for (rows,) in cut) == chunks
    size = len(cut[0][0])
    of_first = list(module._blocks(torch.empty(1, 1).expand(size, vocabulary), torch.arange(size)))
    assert len(of_first) == blocks
    # Each row is in one chunk, and in one block of it, in order.
    assert [int(row) for (rows,) in cut for row in rows] == list(range(2000))
    assert [int(row) for _, rows in of_first for row in rows] == list(range(size))


def test_the_likeliest_token_alone_is_greedy_and_the_first_of_equals() -> None:
    head, hidden, targets = head_and_input(40)
    likeliest = (hidden @ head.weight.T).argmax(1)
    targets[::2] = likeliest[::2]
    with torch.no_grad(), head.comparing_with_greedy():
        logprobs, greedy = head(hidden, targets, 1.0)
    assert greedy.tolist() == (targets == likeliest).float().tolist()
    assert torch.allclose(logprobs, head(hidden, targets, 1.0)[0])
    head.weight.data.zero_()  # all tokens are equally likely
    with torch.no_grad(), head.comparing_with_greedy():
        assert head(hidden, targets, 1.0)[1].tolist() == (targets == 0).float().tolist()
