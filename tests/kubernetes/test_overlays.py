"""Every overlay renders and passes all rules."""

import json
import shutil
import subprocess
import sys

import pytest

from kubernetes.check.check import check
from kubernetes.check.entrypoint import commands
from kubernetes.check.metrics import NAME, RUN, expressions
from kubernetes.check.pods import pods, quantity
from kubernetes.check.problem import of_kind
from kubernetes.check.render import RenderError, render
from tests.kubernetes.conftest import KUBERNETES, OVERLAYS, ROOT, rendered


def test_there_are_seven_overlays_each_a_cluster_and_a_job():
    names = {"deepseek-v3", "gcs-ft", "judge", "kueue", "one-gpu", "small", "spot"}
    assert sorted(f"{name}/{form}" for name in names for form in ("cluster", "job")) == OVERLAYS


@pytest.mark.parametrize("overlay", OVERLAYS)
def test_an_overlay_has_no_problem(overlay, definitions):
    assert [str(problem) for problem in check(rendered(overlay), definitions)] == []


@pytest.mark.parametrize("overlay", [name for name in OVERLAYS if name.endswith("/job")])
def test_a_job_has_the_cluster_of_its_overlay_and_one_command(overlay):
    (job,) = of_kind(rendered(overlay), "RayJob")
    (cluster,) = of_kind(rendered(overlay.replace("/job", "/cluster")), "RayCluster")
    assert job["spec"]["rayClusterSpec"] == cluster["spec"]
    (command,) = commands(rendered(overlay))
    assert command.value("run_dir") == f"/runs/{overlay.removesuffix('/job')}"
    assert of_kind(rendered(overlay), "RayCluster") == []


def test_shrunk_engines_fit_and_a_seventh_does_not(manifests):
    objects = manifests("spot/job")
    (job,) = of_kind(objects, "RayJob")
    job["spec"]["entrypoint"] = job["spec"]["entrypoint"].replace("max: 6", "max: 7")
    (problem,) = check(objects)
    assert problem.rule == "entrypoint/fits" and "rollout-6 needs CPU 2, GPU 1" in problem.text


def test_numbers_of_pods_are_those_of_the_groups():
    made = {pod.group: (pod.least, pod.most, pod.cpus, pod.gpus) for pod in pods(rendered("spot/job")) if pod.is_ray}
    assert made == {
        "headgroup": (1, 1, 0, 0),
        "learner": (1, 1, 8, 1),
        "rollout": (1, 6, 8, 1),
        "reward": (1, 2, 4, 0),
    }


@pytest.mark.parametrize(("text", "value"), [("500m", 0.5), ("2Gi", 2 * 1024**3), ("1k", 1000), (4, 4), ("1.5", 1.5)])
def test_quantities_are_numbers(text, value):
    assert quantity(text) == value


def test_the_dashboard_shows_every_metric_of_a_run():
    dashboard = json.loads((KUBERNETES / "base" / "dashboard.json").read_text())
    shown = {name for _, expression in expressions(dashboard) for name, _ in NAME.findall(expression)}
    assert shown == RUN.keys()
    assert len({panel["id"] for panel in dashboard["panels"]}) == len(dashboard["panels"]) == 12


def test_an_overlay_of_a_lab_is_checked_by_one_command(tmp_path):
    shutil.copytree(KUBERNETES, tmp_path / "kubernetes", ignore=shutil.ignore_patterns("__pycache__"))
    mine = tmp_path / "kubernetes" / "overlays" / "mine"
    mine.mkdir()
    (mine / "kustomization.yaml").write_text(
        "resources: [../small/cluster]\n"
        "images: [{name: registry.example.com/rlframe, newName: registry.lab/rlframe, newTag: latest}]\n"
    )
    result = checker(str(mine))
    assert result.returncode == 1
    assert "headGroupSpec ray-head image: registry.lab/rlframe:latest has no version [image/pinned]" in result.stdout


def test_an_overlay_that_does_not_render_is_refused(tmp_path):
    (tmp_path / "kustomization.yaml").write_text("resources: [nothing.yaml]\n")
    with pytest.raises(RenderError, match=r"does not render: .*nothing\.yaml"):
        render(tmp_path)
    result = checker(str(tmp_path / "no"))
    assert result.returncode == 2
    assert "there is no kustomization.yaml" in result.stderr


def checker(*arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "kubernetes.check", *arguments]
    return subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
