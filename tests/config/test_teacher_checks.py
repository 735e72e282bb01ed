"""Settings that cannot work with a teacher are refused, with the reason."""

import pytest

from rlframe.config.compose import load
from rlframe.errors import ConfigError

ONE = "teachers=one"


@pytest.mark.parametrize(
    ("overrides", "refusal"),
    [
        (
            ["+teachers.code={path: PATH, weight: 1.0, engines: 1, tasks: [code]}"],
            "teachers.code.tasks: 'code' has the",
        ),
        (["rollout.temperature=0.7"], "rollout.temperature: 0.7 with a teacher"),
        (["rollout.top_p=0.9"], "rollout.top_p: the engine would sample from a part of the vocabulary"),
        (["algorithm=gspo", "correction=proximal"], "algorithm: the loss of gspo has one ratio for a whole sequence"),
        (["rollout.max_tokens=3968"], "teachers.main.path: the model takes 4096 tokens, and a prompt with its"),
        (["teachers.main.gpus=4", "teachers.main.tensor_parallel=2"], "teachers.main.gpus: tensor_parallel=2 x"),
        (["teachers.main.weight=0"], "teachers.main.weight"),
    ],
)
def test_a_teacher_refuses(composed, model_folder, overrides, refusal):
    path = f"teachers.main.path={model_folder}"
    with pytest.raises(ConfigError, match=refusal.replace("(", ".")):
        load(composed(ONE, path, *[each.replace("PATH", str(model_folder)) for each in overrides]))


def test_teachers_of_different_tasks_have_the_engines_of_the_rollouts_but_for_their_own_keys(composed, model_folder):
    code = (
        f"+teachers.code={{path: {model_folder}, weight: 0.5, engines: 2, tasks: [code], gpus: 4, engine_args: null}}"
    )
    keys = [
        f"teachers.main.path={model_folder}",
        "teachers.main.tasks=[math]",
        "rollout.engine_args={kv_cache_dtype: fp8}",
    ]
    run = load(composed(ONE, *keys, code, "rollout.cpus=3"))
    main, second = (run.teachers[name].engine(run.rollout) for name in ("main", "code"))
    assert (main.gpus, main.cpus, main.tensor_workers, main.engine_args) == (0, 3, 1, {"kv_cache_dtype": "fp8"})
    assert (second.gpus, second.cpus, second.tensor_workers, second.engine_args) == (4, 3, 4, {"kv_cache_dtype": "fp8"})
    own = "+teachers.code={path: %s, weight: 1.0, engines: 1, tasks: [code], %s}"
    shared = ["rollout.engine_args={max_num_batched_tokens: 32768, kv_cache_dtype: fp8}"]
    run = load(composed(ONE, *keys[:2], *shared, own % (model_folder, "engine_args: {}")))
    main, second = (run.teachers[name].engine(run.rollout) for name in ("main", "code"))
    assert main.engine_args == {"kv_cache_dtype": "fp8"}  # a teacher has its own bound on tokens
    assert second.engine_args == {}
    assert run.teachers["code"].teaches("code") and not run.teachers["code"].teaches("math")
