"""Every `rlframe` command of the README and the docs composes, passes the checks of its config, and is planned."""

from __future__ import annotations

import json
import re
import subprocess
from pathlib import Path

import hydra
import pytest
from omegaconf import DictConfig
from transformers import Qwen3Config, Qwen3MoeConfig

from rlframe.cli import draw, plan
from rlframe.cluster.placement import RL, placement
from rlframe.config import compose as config
from rlframe.config.run import EvaluationRun, RunConfig
from rlframe.errors import ConfigError

ROOT = Path(__file__).parents[1]
PAGES = ["README.md", "CONTRIBUTING.md", *(f"docs/{page.name}" for page in sorted((ROOT / "docs").glob("*.md")))]
# Bash itself splits a command; these stand for the programs that pass their arguments to `rlframe train`.
SHELL = """
rlframe() { printf '%s\\0' "$@"; printf '\\n\\0'; }
sbatch() { while [[ $1 == --* ]]; do shift; done; shift; rlframe train "$@"; }
"""
LAUNCHED = r"(rlframe (train|evaluate|draw|plan|submit)|sbatch .*launch/slurm\.sbatch)\b"
SMALL = Qwen3Config(vocab_size=151_936, hidden_size=1024, num_hidden_layers=28, max_position_embeddings=40_960)
EXPERTS = Qwen3MoeConfig(hidden_size=2048, num_hidden_layers=48, num_experts=128, max_position_embeddings=40_960)


def commands(page: str) -> list[str]:
    """The commands of a page's code blocks, and those with a setting that stand in its sentences."""
    text = page.replace("\\\n", " ")
    blocks = re.findall(r"^```\w*\n(.*?)^```", text, re.MULTILINE | re.DOTALL)
    sentences = re.sub(r"^```.*?^```", "", text, flags=re.MULTILINE | re.DOTALL)
    found = [line.strip() for block in blocks for line in block.splitlines() if re.match(LAUNCHED, line.strip())]
    return found + [code for code in re.findall(r"`([^`\n]+)`", sentences) if re.match(LAUNCHED + r".*=", code)]


def arguments(command: str) -> list[str]:
    """As a shell hands them to `rlframe`: verb first."""
    split = subprocess.run(["bash", "-c", SHELL + command], capture_output=True, text=True, check=True)
    return split.stdout.split("\0\n\0")[0].split("\0")


def planned(command: str, folder: Path) -> RunConfig:
    """The checked config of a command, once its actors have slots. `folder` is that of its models and runs."""
    verb, *settings = arguments(command)
    if verb == "plan":
        _, settings = plan.options_and_overrides(settings)
    settings = [setting for setting in settings if not re.match(r"-m$|--|job$|http://", setting)]
    named = dict(setting.split("=", 1) for setting in settings if "=" in setting)
    name = named.get("model.path", "Qwen/Qwen3-0.6B")
    overrides = [setting for setting in settings if not setting.startswith(("model.path=", "resume="))]
    overrides = [
        re.sub(r"Qwen/[\w.-]+", lambda teacher: str(model_like(teacher[0], folder)), setting)
        if setting.lstrip("+").startswith("teachers.")
        else setting
        for setting in overrides
    ]
    served = "draw.endpoint.base_url" in named
    if not served and (not named.get("experiment", "").startswith("smollm2") or "model.path" in named):
        overrides.append(f"model.path={model_like(name, folder)}")
    composed = compose(overrides, "draw" if verb == "draw" else "train")
    if "resume" in named:
        saved = folder / "saved.yaml"
        config.save(config.load(compose(["experiment=smollm2_arithmetic"])), saved)
        composed = config.merge_saved(saved, composed, overrides[:-1])
    if verb == "evaluate":
        composed.prompts.train = composed.prompts.heldout
    kind = EvaluationRun if verb == "evaluate" else RunConfig
    run = draw.load(composed) if verb == "draw" else config.load(composed, kind)
    slots = placement(run, RL if verb in ("train", "plan", "submit") else ("rollout", "reward"))
    assert len(slots["rollout"]) == run.rollout.engines.min
    return run


def compose(overrides: list[str], name: str = "train") -> DictConfig:
    with hydra.initialize_config_dir(str(config.conf_dir()), version_base="1.3"):
        return hydra.compose(name, overrides)


def model_like(name: str, folder: Path) -> Path:
    """A folder with a config.json of the named model's kind: a mixture of experts if its name says so."""
    path = folder / Path(name).name
    path.mkdir(exist_ok=True)
    (EXPERTS if re.search(r"-A\d+B|DeepSeek", name) else SMALL).save_pretrained(path)
    return path


@pytest.mark.parametrize(
    "page, command", [(page, command) for page in PAGES for command in commands((ROOT / page).read_text())]
)
def test_a_command_of_the_docs_can_run(page: str, command: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.chdir(tmp_path)
    for name, code in re.findall(
        r"^```python\n# (\w+\.py)\n(.*?)^```", (ROOT / page).read_text(), re.MULTILINE | re.DOTALL
    ):
        Path(name).write_text(code)  # a file of the user's, which the page shows
    planned(command, tmp_path)


def test_the_readme_s_commands_are_found():
    found = commands((ROOT / "README.md").read_text())
    assert len(found) >= 20 and any("launch/slurm.sbatch" in command for command in found)


def test_a_command_with_an_unknown_key_is_refused(tmp_path: Path):
    [command] = commands("```\nrlframe train experiment=smollm2_arithmetic \\\n  learner.lrr=1  # a rate\n```\n")
    with pytest.raises(Exception, match=r"learner\.lrr|Key 'lrr'"):
        planned(command, tmp_path)
    with pytest.raises(ConfigError, match=r"weights\.backend: nccl moves weights between GPUs"):
        planned("rlframe train experiment=smollm2_arithmetic weights.backend=nccl", tmp_path)


def test_braces_quotes_and_launchers_are_the_shell_s():
    assert arguments("rlframe train prompts.{train,heldout}.path='a b' # both") == [
        "train",
        "prompts.train.path=a b",
        "prompts.heldout.path=a b",
    ]
    assert arguments("sbatch --nodes=4 launch/slurm.sbatch steps=3") == ["train", "steps=3"]


def test_a_model_s_kind_follows_from_its_name(tmp_path: Path):
    for name, experts in (("Qwen/Qwen3-30B-A3B", True), ("/models/Qwen3-8B", False)):
        settings = json.loads((model_like(name, tmp_path) / "config.json").read_text())
        assert settings["model_type"] == ("qwen3_moe" if experts else "qwen3")
