"""Learner ranks start on CPUs without compiling."""

import ray

from tests.conftest import compose, tiny_overrides


def test_two_cpu_ranks_meet_without_compiling_deepspeeds_kernel(tiny_model, launch):
    def kernel(rank: object) -> tuple[int, object]:
        from deepspeed import comm

        return comm.get_world_size(), comm.comm.cdb.shm_comm_op

    ranks = launch(compose(tiny_overrides(tiny_model)).learner, tiny_model, 2)
    assert ray.get([rank.__ray_call__.remote(kernel) for rank in ranks]) == [(2, None), (2, None)]
