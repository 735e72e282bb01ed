"""The preference model: scores equal those of plain forward passes, in any batch."""

import asyncio
import json
import shutil
import threading
import traceback
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import cloudpickle
import pytest
from pydantic import ValidationError

from rlframe.actors.batching import Batcher
from rlframe.model.classifier import Classifier
from rlframe.reward import model as model_module
from rlframe.reward.model import PreferenceModel
from rlframe.types import Completion, Prompt, Verdict
from tests.tiny.models import byte_tokenizer, make_llama, make_preference_model

PROMPT = Prompt(id="p", messages=[{"role": "user", "content": "2 + 3?"}], token_ids=[], reference="5", task="math")
TEXTS = ["5", "five, as anyone can see", "It is " + "very " * 60 + "5.", "", "6", "<think>2 + 3</think>5"] * 4
TERM: dict[str, Any] = {
    "name": "model",
    "weight": 1.0,
    "dtype": "float32",
    "device": "cpu",
    "show": "all",
    "opened": False,
    "max_tokens": 512,
    "max_batch": 8,
    "max_batch_tokens": 4096,
    "timeout_s": 30.0,
    "mean": 0.0,
    "std": 1.0,
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_preference_model(tmp_path_factory.mktemp("preference"))


@pytest.fixture(scope="module")
def alone(folder: Path) -> dict[str, float]:
    """Text -> score by transformers alone, one text at a time and without padding."""
    import torch
    from transformers import AutoModelForSequenceClassification, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder)
    model = AutoModelForSequenceClassification.from_pretrained(folder, dtype=torch.float32).eval()

    def score(text: str) -> float:
        conversation = [*PROMPT.messages, {"role": "assistant", "content": text}]
        with torch.inference_mode():
            return model(
                tokenizer.apply_chat_template(conversation, return_tensors="pt", return_dict=False)
            ).logits.item()

    return {text: score(text) for text in TEXTS}


class Passes:
    """A started reward and the shape of each of its forward passes."""

    def __init__(self, folder: Path, **changes: Any) -> None:
        self.reward = PreferenceModel(**TERM | {"path": str(folder)} | changes)
        self.reward.start()
        self.shapes: list[tuple[int, int]] = []  # (B, L)
        assert self.reward._loading is not None
        self.classifier: Classifier = self.reward._loading.result(timeout=120)
        self.classifier.model.register_forward_pre_hook(
            lambda module, args, inputs: self.shapes.append(tuple(inputs["input_ids"].shape)), with_kwargs=True
        )

    def __call__(self, *texts: str) -> list[Verdict]:
        async def run() -> list[Verdict]:
            return await asyncio.gather(*[self.reward(PROMPT, completion(text)) for text in texts])

        return asyncio.run(run())


@pytest.fixture
def thread() -> Iterator[ThreadPoolExecutor]:
    with ThreadPoolExecutor(max_workers=1) as pool:
        yield pool


@pytest.fixture(scope="module")
def shared(folder: Path) -> Iterator[Passes]:
    started = Passes(folder)
    yield started
    started.reward.close()


def completion(text: str) -> Completion:
    return Completion(token_ids=[], logprobs=[], versions=[], text=text, finish_reason="stop")


# Scores -----------------------------------------------------------------------------------------------------------


def test_scores_in_a_batch_equal_those_of_single_forward_passes(shared: Passes, alone: dict[str, float]):
    verdicts = shared(*TEXTS)
    assert [verdict.status for verdict in verdicts] == ["scored"] * 24
    assert [verdict.score for verdict in verdicts] == pytest.approx([alone[text] for text in TEXTS], abs=1e-5)
    assert max(alone.values()) - min(alone.values()) > 0.1  # so a swap would show


def test_an_encoder_does_not_look_at_padding(tmp_path: Path):
    import torch
    from transformers import BertConfig, BertForSequenceClassification

    tokenizer = byte_tokenizer()
    torch.manual_seed(0)
    sizes = {"hidden_size": 64, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2}
    config = BertConfig(vocab_size=len(tokenizer), num_labels=1, pad_token_id=tokenizer.pad_token_id, **sizes)
    BertForSequenceClassification(config).save_pretrained(tmp_path)
    tokenizer.save_pretrained(tmp_path)
    encoder = Passes(tmp_path, max_tokens=256)
    together = [verdict.score for verdict in encoder("5", "It is " + "very " * 30)]
    apart = [encoder("5")[0].score, encoder("It is " + "very " * 30)[0].score]
    assert together == pytest.approx(apart, abs=1e-5)
    assert [count for count, _ in encoder.shapes] == [2, 1, 1]
    encoder.reward.close()


@pytest.mark.parametrize("max_batch", [1, 2, 3, 24])
def test_scores_do_not_depend_on_the_batch_size(folder: Path, alone: dict[str, float], max_batch: int):
    model = Passes(folder, max_batch=max_batch, max_batch_tokens=24 * 512)
    assert [verdict.score for verdict in model(*TEXTS)] == pytest.approx([alone[text] for text in TEXTS], abs=1e-5)
    assert len(model.shapes) == 24 // max_batch
    model.reward.close()


def test_mean_and_std_shift_and_scale(folder: Path, alone: dict[str, float]):
    model = Passes(folder, mean=2.0, std=0.5)
    [verdict] = model("5")
    assert verdict.score == pytest.approx((alone["5"] - 2.0) / 0.5, abs=1e-4)
    model.reward.close()


def test_a_completion_with_hidden_thoughts_scores_like_its_answer(folder: Path, alone: dict[str, float]):
    model = Passes(folder, show="answer")
    [verdict] = model("<think>2 + 3</think>5")
    assert verdict.score == pytest.approx(alone["5"], abs=1e-5)
    assert abs(alone["<think>2 + 3</think>5"] - alone["5"]) > 1e-3
    model.reward.close()


# Batches ----------------------------------------------------------------------------------------------------------


def test_24_concurrent_completions_take_three_passes_of_eight_by_length(shared: Passes):
    shared.shapes.clear()
    shared(*TEXTS)
    assert [count for count, _ in shared.shapes] == [8, 8, 8]
    lengths = [length for _, length in shared.shapes]
    assert lengths == sorted(lengths) and lengths[0] < lengths[2]


def test_a_pass_never_exceeds_its_tokens_with_padding(folder: Path):
    model = Passes(folder, max_batch=24, max_tokens=400, max_batch_tokens=400)
    model(*TEXTS)
    assert sum(count for count, _ in model.shapes) == 24
    assert all(count * length <= 400 for count, length in model.shapes)
    assert max(count for count, _ in model.shapes) > 4
    model.reward.close()


def test_a_single_completion_does_not_wait_for_others(shared: Passes):
    shared("5")
    assert min(shared("5")[0].seconds for _ in range(3)) < 0.5


def test_a_pass_that_raises_fails_its_own_sequences_and_no_later_ones(shared: Passes, thread: ThreadPoolExecutor):
    async def run() -> list[Any]:
        batcher = Batcher(shared.classifier.forward, thread, max_batch=1, max_batch_tokens=512, timeout_s=30.0)
        unknown_token = 10_000  # the embedding raises
        return await asyncio.gather(batcher.score([unknown_token]), batcher.score([1, 2]), return_exceptions=True)

    failed, scored = asyncio.run(run())
    assert isinstance(failed, RuntimeError) and "IndexError" in str(failed)
    assert isinstance(scored, float)


def test_close_leaves_no_call_waiting(folder: Path):
    model = Passes(folder, max_batch=1)
    begun, gate = threading.Event(), threading.Event()

    def keep_waiting() -> None:
        begun.set()
        gate.wait(60)

    async def run() -> list[Any]:
        assert model.reward._batcher is not None
        thread = model.reward._batcher.thread
        thread.submit(keep_waiting)
        assert await asyncio.to_thread(begun.wait, 60)
        calls = [asyncio.create_task(model.reward(PROMPT, completion(text))) for text in TEXTS]
        while thread._work_queue.empty():  # until the first pass waits
            await asyncio.sleep(0.01)
        model.reward.close()
        gate.set()
        return await asyncio.wait_for(asyncio.gather(*calls, return_exceptions=True), timeout=60)

    results = asyncio.run(run())
    assert [type(result) for result in results].count(Verdict) == 1
    assert [type(result) for result in results].count(RuntimeError) == 23


# Long conversations -----------------------------------------------------------------------------------------------


def test_a_long_conversation_is_truncated_and_its_verdict_says_so(folder: Path):
    model = Passes(folder, max_tokens=64)
    whole, short = model("x" * 500, "5")
    prompt_tokens = 1 + len("2 + 3?") + 1  # role, bytes, end
    length = prompt_tokens + 1 + 500 + 1
    assert whole.detail == f"truncated: of {length} tokens the first and the last 63"
    assert short.detail == ""
    assert max(length for _, length in model.shapes) == 64
    model.reward.close()


# Start and end ----------------------------------------------------------------------------------------------------


def test_a_reward_travels_starts_at_once_and_frees_its_model(folder: Path):
    reward = cloudpickle.loads(cloudpickle.dumps(PreferenceModel(**TERM | {"path": str(folder)})))
    reward.start()
    assert reward._loading is not None and not reward._loading.done()
    verdict = asyncio.run(reward(PROMPT, completion("5")))
    assert verdict.status == "scored"
    reward.close()
    assert (reward._loading, reward._batcher) == (None, None)


def changed(folder: Path, tmp_path: Path, file: str, **settings: Any) -> Path:
    """A copy of the folder with changed settings in one of its JSON files; None removes a setting."""
    copy = tmp_path / "changed"
    shutil.copytree(folder, copy)
    merged = json.loads((copy / file).read_text()) | settings
    (copy / file).write_text(json.dumps({key: value for key, value in merged.items() if value is not None}))
    return copy


def first_error(folder: Path, **changes: Any) -> str:
    reward = PreferenceModel(**TERM | {"path": str(folder)} | changes)
    reward.start()
    with pytest.raises(RuntimeError) as error:
        asyncio.run(reward(PROMPT, completion("5")))
    reward.close()
    return str(error.value)


def test_a_causal_language_model_is_refused_at_the_start(tiny_model: Path):
    with pytest.raises(ValueError, match=r"LlamaForCausalLM.*none of them .*ForSequenceClassification"):
        PreferenceModel(**TERM | {"path": str(tiny_model)}).start()
    with pytest.raises(ValueError, match="no such Hugging Face folder"):
        PreferenceModel(**TERM | {"path": "/nowhere"}).start()


def test_a_head_that_the_weights_lack_is_an_error(folder: Path, tmp_path: Path):
    causal = make_llama(tmp_path / "causal", tie_word_embeddings=True)
    impostor = changed(causal, tmp_path, "config.json", architectures=["LlamaForSequenceClassification"])
    assert "lack ['score.weight']" in first_error(impostor)


def test_two_labels_no_template_and_too_few_positions_are_errors(folder: Path, tmp_path: Path):
    assert "2 labels" in first_error(make_preference_model(tmp_path / "two", num_labels=2))
    assert "more than its 512 positions" in first_error(folder, max_tokens=513)
    bare = changed(folder, tmp_path, "config.json")
    (bare / "chat_template.jinja").unlink()
    assert "no chat template" in first_error(bare)


def test_the_tokenizers_padding_token_will_do_and_none_is_an_error(
    folder: Path, tmp_path: Path, alone: dict[str, float]
):
    unset = changed(folder, tmp_path, "config.json", pad_token_id=None)
    model = Passes(unset)
    assert [v.score for v in model(*TEXTS)] == pytest.approx([alone[text] for text in TEXTS], abs=1e-5)
    model.reward.close()
    without = changed(unset, tmp_path / "again", "tokenizer_config.json", pad_token=None)
    assert "padding token" in first_error(without)


def test_a_failed_load_fails_every_call_with_equally_many_lines(folder: Path):
    reward = PreferenceModel(**TERM | {"path": str(folder), "max_tokens": 513})
    reward.start()

    async def lines_of_error() -> int:
        try:
            await reward(PROMPT, completion("5"))
        except RuntimeError:
            return traceback.format_exc().count("\n")
        raise AssertionError("513 tokens in 512 positions")

    async def run() -> list[int]:
        return [await lines_of_error() for _ in range(20)]

    assert len(set(asyncio.run(run()))) == 1
    reward.close()


def test_a_load_that_takes_too_long_is_named(folder: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(model_module, "LOAD_S", 0.0)
    reward = PreferenceModel(**TERM | {"path": str(folder)})
    reward.start()
    with pytest.raises(RuntimeError, match=r"loading .* took more than 0 s"):
        asyncio.run(reward(PROMPT, completion("5")))
    reward.close()


@pytest.mark.parametrize(
    ("change", "what"),
    [
        ({"max_tokens": 5000}, "max_tokens 5000 is more than max_batch_tokens 4096"),
        ({"max_tokens": 1}, "greater than or equal to 2"),
        ({"std": 0.0}, "greater than 0"),
        ({"dtype": "int8"}, "'float32', 'bfloat16' or 'float16'"),
        ({"device": "tpu"}, "'auto', 'cpu' or 'cuda'"),
    ],
)
def test_a_wrong_config_says_what_is_wrong(change: dict[str, Any], what: str):
    with pytest.raises(ValidationError, match=what):
        PreferenceModel(**TERM | {"path": "/nowhere"} | change)


def test_relative_paths_of_rewards_hold_in_any_working_directory(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "preference").mkdir()
    monkeypatch.chdir(tmp_path)
    assert PreferenceModel(**TERM, path="preference").path == str(tmp_path / "preference")
    assert PreferenceModel(**TERM, path="org/model").path == "org/model"  # of the hub: there is no such folder
