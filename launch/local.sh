#!/usr/bin/env bash
# Starts a Ray cluster of this machine alone, behind a token, to which `rlframe submit` sends runs. Ctrl-C ends it.
#   launch/local.sh [further arguments of `ray start`, such as --num-gpus=2]
# PORT and DASHBOARD_PORT choose other ports than Ray's own 6379 and 8265.
set -euo pipefail
cd "$(dirname "$0")/.."
export PATH="$PWD/.venv/bin:$PATH"

# Without a token, every user of this machine could run code as you.
mkdir -p .cache
export RAY_AUTH_MODE=token RAY_AUTH_TOKEN_PATH="$PWD/.cache/ray-token-local"
(umask 077; python -c 'import secrets; print(secrets.token_hex(32), end="")' >"$RAY_AUTH_TOKEN_PATH") # mode 0600

PORT=${PORT:-6379} DASHBOARD_PORT=${DASHBOARD_PORT:-8265}
echo "In another shell:"
echo "  export RAY_AUTH_TOKEN_PATH=$RAY_AUTH_TOKEN_PATH"
echo "  rlframe submit experiment=smollm2_arithmetic run_dir=$PWD/runs/submitted --address http://127.0.0.1:$DASHBOARD_PORT"
exec ray start --head --node-ip-address=127.0.0.1 --port="$PORT" --dashboard-host=127.0.0.1 \
    --dashboard-port="$DASHBOARD_PORT" --disable-usage-stats --block "$@"
