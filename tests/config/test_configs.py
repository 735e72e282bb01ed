"""Every file in `conf/` composes and validates, has few keys, and explains every key."""

import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hydra import compose, initialize_config_dir
from omegaconf import DictConfig, OmegaConf

from rlframe.algorithm import BUILTIN
from rlframe.config.compose import conf_dir, load
from rlframe.config.run import RunConfig
from rlframe.config.tune import TuneConfig

FILES = sorted(path.relative_to(conf_dir()) for path in conf_dir().rglob("*.yaml"))
# Choices of a run: algorithm=dapo, ...; select=best is a choice of another verb.
CHOICES = [f"{file.parent}={file.stem}" for file in FILES if str(file.parent) not in (".", "select")]
GROUPS = [file for file in FILES if file.parent != Path("experiment")]
MOST_KEYS = 200

# A choice that works only together with another.
LESSONS = [f"algorithm={name}" for name, kind in BUILTIN.items() if kind.learns_from != "rollouts"]
COMPANIONS = {"algorithm=gspo": ["correction=proximal"]} | {key: ["rows.path=rows.jsonl"] for key in LESSONS}
# Choices of `rlframe tune`; all others are of `rlframe train`.
TUNING = [*LESSONS, "experiment=smollm2_tune", "experiment=smollm2_reward_model"]

# An experiment of a model with a longer context than that of `model_folder`.
MODELS = {"experiment=deepseek_v3_r1_zero": conf_dir() / "shapes" / "deepseek_v3"}

# Values for the keys that an experiment or a group leaves to its user.
FILL = {
    f"prompts.{use}.{part}path": f"{use}.jsonl"
    for use in ("train", "heldout")
    for part in ("", "parts.math.", "parts.code.")
}
MODEL_KEYS = ["model.path", "teachers.main.path", "reward.terms.steps.path"]


def leaves(node: DictConfig, path: str = "") -> Iterator[tuple[str, Any]]:
    """Dotted keys and their values; a list is a single value."""
    for key in node:
        child = node._get_node(key)
        if isinstance(child, DictConfig):
            yield from leaves(child, f"{path}{key}.")
        else:
            yield f"{path}{key}", child


def compose_choice(choice: str, model_folder: Path) -> DictConfig:
    with initialize_config_dir(str(conf_dir()), version_base="1.3"):
        config = compose("tune" if choice in TUNING else "train", [choice, *COMPANIONS.get(choice, [])])
    for key in OmegaConf.missing_keys(config):
        OmegaConf.update(config, key, str(MODELS.get(choice, model_folder)) if key in MODEL_KEYS else FILL[key])
    return config


@pytest.mark.parametrize("choice", CHOICES)
def test_every_experiment_and_every_choice_of_a_group_loads(model_folder, choice):
    load(compose_choice(choice, model_folder), TuneConfig if choice in TUNING else RunConfig)


@pytest.mark.parametrize("choice", CHOICES)
def test_a_run_has_a_bounded_number_of_keys(model_folder, choice):
    keys = [key for key, _ in leaves(compose_choice(choice, model_folder))]
    assert len(keys) == len(set(keys)) <= MOST_KEYS


def test_only_experiments_choose_from_other_groups():
    assert {len(file.parts) for file in FILES} == {1, 2}
    with_defaults = [str(file) for file in FILES if re.search(r"^defaults:", (conf_dir() / file).read_text(), re.M)]
    assert sorted({Path(file).parent.name for file in with_defaults}) == ["", "cluster", "experiment"]


@pytest.mark.parametrize("file", GROUPS, ids=str)
def test_every_key_has_a_comment(file):
    assert unexplained((conf_dir() / file).read_text()) == []


@pytest.mark.parametrize("file", FILES, ids=str)
def test_every_file_starts_with_a_description(file):
    lines = [line for line in (conf_dir() / file).read_text().splitlines() if line != "# @package _global_"]
    assert re.match(r"# \w.{20,}", lines[0])


def unexplained(text: str) -> list[str]:
    """Keys that have a value but no comment, neither on their line nor on the line above.

    Needs no comment: a section (a key with keys below), an entry of a list, and Hydra's `defaults` and `hydra`.
    Experiments are not checked, because the groups explain their keys.
    """
    uncommented, lines = [], text.splitlines()
    skipped = ""
    for number, line in enumerate(lines):
        if match := re.match(r"(\w+):", line):
            skipped = match[1] if match[1] in ("defaults", "hydra") else ""
        key = re.match(r"\s*(\w+):\s*\S", line)
        below_list = any(re.match(r"\s*- ", above) for above in lines[max(0, number - 1) : number])
        if key is None or skipped or below_list:
            continue
        if "#" not in line and not lines[number - 1].lstrip().startswith("#"):
            uncommented.append(f"line {number + 1}: {key[1]}")
    return uncommented
