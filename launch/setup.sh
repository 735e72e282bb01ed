#!/usr/bin/env bash
# Makes the environment of `make setup`: installs the pinned packages of a lock into .venv, then rlframe as editable.
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

# uv does not read pip's settings: pass pip's folders of wheels on to uv.
find_links=${PIP_FIND_LINKS:-$(.venv/bin/pip config get global.find-links 2>/dev/null || true)}
export UV_FIND_LINKS=${UV_FIND_LINKS:-$(tr -s ' \n' ',' <<<"$find_links" | sed 's/,$//')}
[[ -n $UV_FIND_LINKS ]] || unset UV_FIND_LINKS

# torch first: if neither a folder nor the default index has the CPU build, uv takes it from PyTorch's index.
torch=$(pin torch)
uv pip install --no-deps "$torch" ||
    { [[ $torch == *+cpu ]] && uv pip install --no-deps --torch-backend cpu "$torch"; }
# Compile to bytecode now. Many containers set PYTHONDONTWRITEBYTECODE: every process would then compile its imports
# again, which more than doubles the start time of an engine.
uv pip sync --compile-bytecode "$LOCK"
uv pip install --no-deps --no-build-isolation --editable .

rm -f .venv/installed-*
touch ".venv/installed-$(basename "$LOCK")"
