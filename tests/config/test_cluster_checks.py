"""Rules on the run's Ray cluster."""

from __future__ import annotations

from collections.abc import Callable

import pytest
from omegaconf import DictConfig

from rlframe.config.compose import load
from rlframe.errors import ConfigError

Composed = Callable[..., DictConfig]
LABEL = "{rlframe.io/role: 'in(a, b)'}"


@pytest.mark.parametrize(
    "key, override",
    [
        ("rollout.labels", f"rollout.labels={LABEL}"),
        ("learner.labels", f"learner.labels={LABEL}"),
        ("reward.labels", f"reward.labels={LABEL}"),
        (
            "reward.terms.math.actors.labels",
            f"+reward.terms.math.actors={{count: 1, cpus: 1, gpus: 0, pip: [], labels: {LABEL}}}",
        ),
    ],
)
def test_labels_need_a_running_cluster(composed: Composed, key: str, override: str) -> None:
    load(composed("cluster=existing", override))
    with pytest.raises(ConfigError, match=rf"^{key}: .* is on no node, since cluster\.address=null.* cluster=existing"):
        load(composed(override))


def test_a_label_that_ray_cannot_read_is_refused(composed: Composed) -> None:
    with pytest.raises(ConfigError, match=r"rollout\.labels\.zone: String should match pattern"):
        load(composed("cluster=existing", "rollout.labels={zone: 'in()'}"))


@pytest.mark.parametrize("address", ["http://head:8265", "ray://head:10001"])
def test_an_address_of_the_jobs_api_or_the_client_is_refused(composed: Composed, address: str) -> None:
    with pytest.raises(ConfigError, match=r"^cluster\.address: .* host:port of the head .* rlframe submit$"):
        load(composed("cluster=existing", f"cluster.address='{address}'"))
