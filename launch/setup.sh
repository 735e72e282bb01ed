#!/usr/bin/env bash
# Makes the environment of `make setup`: installs the pinned packages of a lock into .venv, then rlframe as editable.
#   PYTHON=python3.12 LOCK=requirements-gpu.lock launch/setup.sh
set -euo pipefail
cd "$(dirname "$0")/.."
PYTHON=${PYTHON:-python3} LOCK=${LOCK:-requirements-cpu.lock}

"$PYTHON" -c 'import sys; sys.exit(sys.version_info < (3, 11))' ||
    { echo "rlframe needs Python 3.11 or newer; $PYTHON is $("$PYTHON" --version 2>&1). Try: make PYTHON=python3.11 …" >&2; exit 1; }

pin() { awk -v pin="$1==" 'index($0, pin) == 1 { on = 1 } on { print } !/\\$/ { on = 0 }' "$LOCK"; } # with its hashes
[[ -x .venv/bin/pip ]] || "$PYTHON" -m venv .venv
.venv/bin/pip install --quiet --no-input --no-deps --require-hashes --requirement <(pin uv)
uv() { VIRTUAL_ENV=$PWD/.venv .venv/bin/uv "$@"; }

# uv does not read pip's settings: pass pip's folders of wheels on to uv.
find_links=${PIP_FIND_LINKS:-$(.venv/bin/pip config get global.find-links 2>/dev/null || true)}
export UV_FIND_LINKS=${UV_FIND_LINKS:-$(tr -s ' \n' ',' <<<"$find_links" | sed 's/,$//')}
[[ -n $UV_FIND_LINKS ]] || unset UV_FIND_LINKS

# A CPU build of torch comes first: if neither a folder nor the default index has it, uv takes it from PyTorch's index.
# It is the only pin without hashes, which the default index does not tell of it.
torch=$(pin torch)
[[ $torch != *+cpu ]] || uv pip install --no-deps "$torch" || uv pip install --no-deps --torch-backend cpu "$torch"
# Compile to bytecode now. Many containers set PYTHONDONTWRITEBYTECODE: every process would then compile its imports
# again, which more than doubles the start time of an engine.
uv pip install --no-deps --require-hashes --compile-bytecode --requirement <(grep -v '^torch==[^ ]*+cpu$' "$LOCK")
uv pip sync --compile-bytecode "$LOCK" # removes packages that an earlier lock had
uv pip install --no-deps --no-build-isolation --editable .

rm -f .venv/installed-*
touch ".venv/installed-$(basename "$LOCK")"
