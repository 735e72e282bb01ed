#!/usr/bin/env bash
# Submits a run to a running Ray cluster and follows the output. Every node must have rlframe installed.
#   RAY_ADDRESS=http://head:8265 launch/join.sh experiment=… run_dir=/shared/…
# If the cluster has RAY_AUTH_MODE=token, set RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (a file of mode 0600) here.
# `ray job stop` lets the run save a checkpoint, and kills it after five minutes; go on with resume=/shared/….
set -euo pipefail
: "${RAY_ADDRESS:?the jobs address of its head, such as http://head:8265}"
exec ray job submit --address "$RAY_ADDRESS" --runtime-env-json '{"env_vars": {"RAY_JOB_STOP_WAIT_TIME_S": "300"}}' \
    -- rlframe train cluster=existing "$@"
