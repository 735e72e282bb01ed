"""Values from the environment: used by the run, and written as names."""

import resource
import stat

import pytest
import yaml
from omegaconf import OmegaConf

from rlframe.cli.exits import complain
from rlframe.config import environment
from rlframe.config.compose import load, merge_saved, reward_settings, save
from rlframe.errors import ConfigError

SECRET = "s3cret-of-the-environment"
JUDGE = (
    "{name: judge, weight: 1.0, base_url: '${oc.env:WALLS_URL}', model: m, key_env: null, instruction: '{answer}', "
    "show: all, opened: false, max_grade: 5, max_reason_chars: 9, request: {user: '${oc.env:WALLS_SECRET}'}, "
    "timeout_s: 1.0, attempts: 1, max_concurrent: 1, requests_per_minute: '${oc.decode:${oc.env:WALLS_RATE}}'}"
)


@pytest.fixture(autouse=True)
def variables(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setenv("WALLS_SECRET", SECRET)
    monkeypatch.setenv("WALLS_URL", f"https://me:{SECRET}@judge.example/v1")
    monkeypatch.setenv("WALLS_RATE", "60.5")
    monkeypatch.setenv("WALLS_PATH", f"/data/{SECRET}.jsonl")


def test_values_from_the_environment_are_used_and_written_as_names(composed, tmp_path):
    run = load(composed(f"+reward.terms.judge={JUDGE}"))
    judge = run.reward.terms["judge"]
    assert (judge.base_url, judge.requests_per_minute) == (f"https://me:{SECRET}@judge.example/v1", 60.5)
    assert judge.request == {"user": SECRET}
    save(run, tmp_path / "config.yaml")
    text = (tmp_path / "config.yaml").read_text()
    written = yaml.safe_load(text)["reward"]["terms"]["judge"]
    assert SECRET not in text and "60.5" not in text
    assert written["base_url"] == "${oc.env:WALLS_URL}"
    assert written["request"] == {"user": "${oc.env:WALLS_SECRET}"}
    assert written["requests_per_minute"] == "${oc.decode:${oc.env:WALLS_RATE}}"


@pytest.mark.parametrize(
    "overrides",
    [
        ["model_name=${oc.env:WALLS_SECRET}"],
        ["model_name='x ${oc.env:WALLS_SECRET} y'"],
        ["model_name='${oc.env:WALLS_NOWHERE,${oc.env:WALLS_SECRET}}'"],
        ["model_name='${oc.decode:${oc.env:WALLS_SECRET}}'"],
        ["+hop='${oc.env:WALLS_SECRET}'", "model_name='${hop}'"],
        ["+hop='${oc.env:WALLS_SECRET}'", "+second='${hop}'", "model_name='${second}'"],
        ["+hop={deep: ['${oc.env:WALLS_SECRET}']}", "model_name='${hop.deep.0}'"],
        ["+hop={deep: '${oc.env:WALLS_SECRET}'}", "model_name='${hop}'"],
        ["+variable=WALLS_SECRET", "model_name='${oc.env:${variable}}'"],
        ["model_name=['a', '${oc.env:WALLS_SECRET}']"],
    ],
)
def test_no_way_through_keys_and_resolvers_shows_the_value(overrides):
    config = OmegaConf.create({"model_name": None})
    for override in overrides:
        key, _, value = override.lstrip("+").partition("=")
        OmegaConf.update(config, key, yaml.safe_load(value), merge=False)
    settings, names = environment.resolve(config)
    assert SECRET in str(settings["model_name"])
    assert SECRET not in str(names)
    again, _ = environment.resolve(OmegaConf.create(names))
    assert again == settings


def test_only_values_from_the_environment_are_names():
    config = OmegaConf.create({"a": 1, "b": "${a}", "c": [{"d": "${oc.env:WALLS_RATE}"}, "${b}"], "e": None})
    settings, names = environment.resolve(config)
    assert settings == {"a": 1, "b": 1, "c": [{"d": "60.5"}, 1], "e": None}
    assert names == {"a": 1, "b": 1, "c": [{"d": "${oc.env:WALLS_RATE}"}, 1], "e": None}
    assert environment.paths(names) == {("c", 0, "d"): "${oc.env:WALLS_RATE}"}


def test_a_held_out_set_that_takes_over_a_value_takes_over_its_name(composed, tmp_path):
    overrides = ["prompts=jsonl", "prompts.train.path=train.jsonl", "prompts.heldout.path=${oc.env:WALLS_PATH}"]
    run = load(composed(*overrides, "+evaluate.sets.greedy={temperature: 0.0, samples: 1}"))
    assert run.evaluate.sets["greedy"].source.path == f"/data/{SECRET}.jsonl"
    save(run, tmp_path / "config.yaml")
    assert SECRET not in (tmp_path / "config.yaml").read_text()


def test_a_full_disk_leaves_the_saved_config_as_it_was(composed, tmp_path):
    path = tmp_path / "config.yaml"
    save(load(composed("steps=3")), path)
    before, limits = path.read_text(), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (200, limits[1]))  # Python ignores the signal and raises an error
    try:
        with pytest.raises(OSError, match="File too large"):
            save(load(composed("steps=4")), path)
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, limits)
    assert path.read_text() == before


def test_a_saved_config_is_for_its_owner_alone_even_if_it_was_there(composed, tmp_path):
    path = tmp_path / "config.yaml"
    path.write_text("")
    path.chmod(0o644)
    save(load(composed()), path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600


def test_a_resumed_run_reads_the_variables_again(composed, tmp_path, monkeypatch):
    first = load(composed(f"+reward.terms.judge={JUDGE}"))
    save(first, tmp_path / "config.yaml")
    again = load(merge_saved(tmp_path / "config.yaml", composed("steps=7"), ["steps=7"]))
    assert (again.reward.terms, again.steps) == (first.reward.terms, 7)
    monkeypatch.setenv("WALLS_RATE", "30.0")
    later = load(merge_saved(tmp_path / "config.yaml", composed(), []))
    assert later.reward.terms["judge"].requests_per_minute == 30.0


def test_resuming_without_a_variable_names_the_key_and_the_variable(composed, tmp_path, monkeypatch):
    save(load(composed(f"+reward.terms.judge={JUDGE}")), tmp_path / "config.yaml")
    monkeypatch.delenv("WALLS_URL")
    with pytest.raises(ConfigError) as error:
        load(merge_saved(tmp_path / "config.yaml", composed(), []))
    assert str(error.value) == (
        "reward.terms.judge.base_url: the environment variable WALLS_URL is not set; set it, or give the key a value "
        "of its own"
    )


def test_a_name_in_an_override_of_a_resumed_run_stays_a_name(composed, tmp_path):
    path = tmp_path / "config.yaml"
    save(load(composed()), path)
    override = "prompts.template.system=${oc.env:WALLS_SECRET}"
    run = load(merge_saved(path, composed(override), [override]))
    assert run.prompts.template.system == SECRET
    save(run, path)
    assert SECRET not in path.read_text()


def test_a_text_with_a_dollar_and_a_brace_survives_a_resume(composed, tmp_path):
    text = r"a \${price} and \\\${x} of ${seed}"
    run = load(composed(f"prompts.template.system='{text}'", "seed=3"))
    assert run.prompts.template.system == r"a ${price} and \${x} of 3"
    save(run, tmp_path / "config.yaml")
    assert load(merge_saved(tmp_path / "config.yaml", composed(), [])) == run


def test_an_error_shows_the_name_in_place_of_the_value(composed):
    with pytest.raises(ConfigError) as error:
        load(composed("steps=${oc.env:WALLS_SECRET}", "learner.lr=${oc.env:WALLS_PATH}"))
    assert SECRET not in str(error.value) and error.value.__suppress_context__
    assert "steps: Input should be a valid integer, not '${oc.env:WALLS_SECRET}'" in str(error.value)


def test_a_whole_source_from_another_key_is_written_as_names(composed, tmp_path, monkeypatch):
    monkeypatch.setenv("WALLS_HELD", "openai/" + SECRET)
    heldout = ["prompts=hub", "prompts.train.path='${oc.env:WALLS_HELD}'", "prompts.heldout='${prompts.train}'"]
    run = load(composed(*heldout, "+evaluate.sets={greedy: {temperature: 0, samples: 1}}"))
    assert run.evaluate.sets["greedy"].source.path == "openai/" + SECRET
    save(run, tmp_path / "config.yaml")
    assert SECRET not in (tmp_path / "config.yaml").read_text()
    assert load(merge_saved(tmp_path / "config.yaml", composed(), [])) == run


def test_a_variable_that_holds_several_keys_is_refused(composed, monkeypatch):
    monkeypatch.setenv("WALLS_SOURCE", "{name: hub, path: x}")
    with pytest.raises(ConfigError, match=r"prompts\.heldout: \$\{oc\.decode:.*holds several keys; give each its own"):
        load(composed("prompts=hub", "prompts.heldout='${oc.decode:${oc.env:WALLS_SOURCE}}'"))


def test_errors_show_the_name_for_any_spelling_of_a_value(composed, monkeypatch, capsys):
    monkeypatch.setenv("WALLS_QUOTES", "it's a \\ " + SECRET)
    monkeypatch.setenv("WALLS_HOST", SECRET + ".example")
    with pytest.raises(ConfigError) as error:
        load(composed("steps='${oc.env:WALLS_QUOTES}'", "model.path='https://${oc.env:WALLS_HOST}/v1'"))
    assert SECRET not in str(error.value)
    complain(f"there is no file /work/{SECRET}.example.jsonl")
    assert capsys.readouterr().err == "there is no file /work/${oc.env:WALLS_HOST}.jsonl\n"


def test_a_setting_of_a_reward_that_is_tried_may_name_a_variable(tmp_path):
    settings = reward_settings("mine.py:Mine", ["user=${oc.env:WALLS_SECRET}"], tmp_path / "none.yaml")
    assert settings["user"] == SECRET


def test_a_reward_that_is_tried_reads_the_variables_of_its_saved_term(composed, tmp_path, monkeypatch):
    save(load(composed(f"+reward.terms.judge={JUDGE}")), tmp_path / "config.yaml")
    assert reward_settings("judge", ["attempts=2"], tmp_path / "config.yaml")["request"] == {"user": SECRET}
    monkeypatch.delenv("WALLS_SECRET")
    with pytest.raises(ConfigError, match=r"the environment variable WALLS_SECRET is not set"):
        reward_settings("judge", [], tmp_path / "config.yaml")


def test_a_hub_models_commit_is_kept_beside_the_name_of_its_variable(composed, monkeypatch, model_folder):
    monkeypatch.setenv("WALLS_MODEL", str(model_folder))
    run = load(composed("model.path=${oc.env:WALLS_MODEL}"))
    assert run.written()["model"]["path"] == "${oc.env:WALLS_MODEL}"
    pinned = run.model_copy(update={"model": run.model.model_copy(update={"path": f"{model_folder}@c1899de"})})
    pinned.keep_names({"model": {"path": str(model_folder)}, "evaluate": {}}, {"model": {}, "evaluate": {}})
    assert pinned.written()["model"]["path"] == "${oc.env:WALLS_MODEL}@c1899de"
