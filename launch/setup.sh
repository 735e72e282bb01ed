#!/usr/bin/env bash
# The environment of `make setup`: everything a lock names into .venv, nothing resolved, then rlframe itself, editable.
#   PYTHON=python3.12 LOCK=requirements-gpu.lock launch/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3} LOCK=${LOCK:-requirements-cpu.lock}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "rlframe needs Python 3.11 or newer; $PYTHON is $("$PYTHON" --version 2>&1). Try: make PYTHON=python3.11 …" >&2; exit 1; }

pin() { grep "^$1==" "$LOCK"; }
[[ -x .venv/bin/pip ]] || "$PYTHON" -m venv .venv
.venv/bin/pip install --quiet "$(pin uv)"
uv() { VIRTUAL_ENV=$PWD/.venv .venv/bin/uv "$@"; }

# uv does not read pip's settings; wheels that pip would find in a folder, uv should find there too.
find_links=${PIP_FIND_LINKS:-$(.venv/bin/pip config get global.find-links 2>/dev/null || true)}
export UV_FIND_LINKS=${UV_FIND_LINKS:-$(tr -s ' \n' ',' <<<"$find_links" | sed 's/,$//')}
[[ -n $UV_FIND_LINKS ]] || unset UV_FIND_LINKS

# torch first: a CPU build that no folder or default index holds is on PyTorch's own index, which uv knows.
torch=$(pin torch)
uv pip install --no-deps "$torch" ||
    { [[ $torch == *+cpu ]] && uv pip install --no-deps --torch-backend cpu "$torch"; }
# With bytecode: where PYTHONDONTWRITEBYTECODE is set, as in many containers, every process would compile what it imports,
# which more than doubles the start of an engine.
uv pip sync --compile-bytecode "$LOCK"
uv pip install --no-deps --no-build-isolation --editable .

rm -f .venv/installed-*
touch ".venv/installed-$(basename "$LOCK")"
