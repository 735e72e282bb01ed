#!/usr/bin/env bash
# Submits a run to a Ray cluster that is already up, and follows its output. Every node has rlframe installed.
#   RAY_ADDRESS=http://head:8265 launch/join.sh experiment=… run_dir=/shared/…
# A cluster with RAY_AUTH_MODE=token also needs RAY_AUTH_MODE=token and RAY_AUTH_TOKEN_PATH (a file of mode 0600) here.
set -euo pipefail
: "${RAY_ADDRESS:?the jobs address of its head, such as http://head:8265}"
exec ray job submit --address "$RAY_ADDRESS" -- rlframe train cluster.address=auto "$@"
