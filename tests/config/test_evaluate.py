"""Held-out sets in a config: what they inherit, and what is refused."""

import re

import pytest

from rlframe.config.compose import load, merge_saved, save
from rlframe.config.run import EvaluationRun
from rlframe.errors import ConfigError
from rlframe.train.evaluate import sampling_of
from rlframe.types import Sampling


def test_a_set_has_the_keys_of_evaluate_but_for_its_own(composed):
    aime = "+evaluate.sets.aime={source: {size: 30}, samples: 16, temperature: 0.6, max_tokens: 512}"
    run = load(composed("evaluate.k=[1,2]", "evaluate.top_p=0.95", "rollout.stop=['</answer>']", aime))
    main, further = run.held_out_sets["heldout"], run.held_out_sets["aime"]
    assert (main.tries, further.tries) == ([1, 2], [1, 16])  # k belongs to samples
    assert sampling_of(main, run) == Sampling(
        completions=4, max_tokens=256, temperature=1.0, seed=0, top_p=0.95, stop=["</answer>"]
    )
    assert sampling_of(further, run) == Sampling(
        completions=16, max_tokens=512, temperature=0.6, seed=0, top_p=0.95, stop=["</answer>"]
    )
    assert run.rollout.sampling(0).top_p == 1.0
    assert run.max_model_len == 128 + 512


def test_a_source_names_what_differs_from_prompts_heldout(composed):
    file = "{name: jsonl, path: aime.jsonl, prompt_field: q, messages_field: null, reference_field: a, offset: 0,"
    file += " reference_pattern: null, task: math, task_field: null, extra_fields: [], size: null}"
    sets = [
        "+evaluate.sets.small={source: {size: 5}}",
        "+evaluate.sets.same={}",
        f"+evaluate.sets.file={{source: {file}}}",
    ]
    sources = load(composed(*sets)).held_out_sources
    assert sources["small"].model_dump() == sources["heldout"].model_dump() | {"size": 5}
    assert sources["same"] == sources["heldout"]
    assert (sources["file"].name, sources["file"].path) == ("jsonl", "aime.jsonl")


def test_a_saved_run_keeps_its_sets_and_takes_new_ones(composed, tmp_path):
    run = load(composed("+evaluate.sets.greedy={temperature: 0.0, samples: 1}"))
    save(run, tmp_path / "config.yaml")
    assert load(merge_saved(tmp_path / "config.yaml", composed(), [])) == run
    more = "+evaluate.sets.more={samples: 2}"
    resumed = load(merge_saved(tmp_path / "config.yaml", composed(more), [more]))
    assert {name: one.samples for name, one in resumed.held_out_sets.items()} == {"heldout": 4, "greedy": 1, "more": 2}


@pytest.mark.parametrize(
    "override, message",
    [
        ("evaluate.k=[1,4,16]", "evaluate.k: pass@16 needs 16 completions of a prompt, but evaluate.samples=4; raise"),
        ("+evaluate.sets.a={k: [8]}", "evaluate.sets.a.k: pass@8 needs 8 completions of a prompt, but"),
        ("evaluate.k=[]", "evaluate.k: List should have at least 1 item"),
        ("evaluate.temperature=0.0", "evaluate.samples: at temperature 0 all 4 completions of a prompt are the same"),
        ("+evaluate.sets.a={reward: maths}", "evaluate.sets.a.reward: 'maths' is none of the rewards math, format"),
        ("+evaluate.sets.heldout={}", "evaluate.sets.heldout: is the name of the set of prompts.heldout; choose"),
        ("+evaluate.sets.a={tempurature: 1.0}", "evaluate.sets.a.tempurature: there is no such key"),
        ("+evaluate.sets.a={source: {sise: 3}}", "evaluate.sets.a.source.sise: there is no such key"),
        (
            "+evaluate.sets.a={max_tokens: 3969}",
            "evaluate.sets.a.max_tokens: prompts.max_tokens=128 + 3969 = 4097 tokens, but the model at model.path "
            "takes 4096; at most 3968 would fit",
        ),
        ("rollout.top_p=0.9", "rollout.top_p: the engine would sample from a part of the vocabulary, but the learner"),
        ("rollout.top_k=20", "rollout.top_k: the engine would sample from a part of the vocabulary"),
        ("rollout.min_p=0.1", "rollout.min_p: the engine would sample from a part of the vocabulary"),
        ("rollout.temperature=0.0", "rollout.temperature: at 0 the completions of a prompt are nearly the same"),
        ("rollout.temperature=0.005", "rollout.temperature: at 0.005 the completions of a prompt are nearly the same"),
        ("rollout.stop=['']", "rollout.stop.0: String should have at least 1 character"),
    ],
)
def test_settings_that_cannot_work_are_refused_with_the_remedy(composed, override, message):
    with pytest.raises(ConfigError, match=f"^{re.escape(message)}"):
        load(composed(override))


def test_rules_of_training_do_not_stop_an_evaluation(composed):
    training_only = ["learner.micro_batch_tokens=1", "learner.ranks=7", "rollout.temperature=0.0"]
    with pytest.raises(ConfigError):
        load(composed(*training_only))
    assert load(composed(*training_only), EvaluationRun).max_model_len == 128 + 256
    with pytest.raises(ConfigError, match=r"evaluate\.k: pass@16"):
        load(composed(*training_only, "evaluate.k=[16]"), EvaluationRun)
