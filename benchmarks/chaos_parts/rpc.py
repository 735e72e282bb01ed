"""Ray's own injection of failed calls between its processes, in some of the driver's lives."""

from __future__ import annotations

import json
import random

SHARE = 0.3  # of the lives, the first one excepted
# Calls that Ray repeats by itself, and the tasks of actors, which Ray reports as failed.
CALLS = [
    "NodeManagerService.grpc_client.RequestWorkerLease",
    "NodeManagerService.grpc_client.ReturnWorkerLease",
    "NodeManagerService.grpc_client.PinObjectIDs",
    "CoreWorkerService.grpc_client.GetObjectStatus",
    "CoreWorkerService.grpc_client.PushTask",
    "ActorInfoGcsService.grpc_client.RegisterActor",
    "ActorInfoGcsService.grpc_client.CreateActor",
    "ActorInfoGcsService.grpc_client.GetActorInfo",
    "ActorInfoGcsService.grpc_client.KillActorViaGcs",
    "PlacementGroupInfoGcsService.grpc_client.CreatePlacementGroup",
]
FAILURES = 40  # at most, of each call in each process
PERCENT = {"req_failure_prob": 2, "resp_failure_prob": 2, "in_flight_failure_prob": 2}


def draw_failures(life: int, random_source: random.Random) -> str | None:
    """The value of RAY_testing_rpc_failure for a life, or None."""
    if random_source.random() >= SHARE or life == 1:
        return None
    chosen = random_source.sample(CALLS, 3)
    return json.dumps({call: {"num_failures": FAILURES} | PERCENT for call in chosen})
