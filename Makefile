PYTHON ?= python3
LOCK ?= requirements-cpu.lock
ARGS ?=
BIN := .venv/bin
READY := .venv/installed-$(notdir $(LOCK))

# Some machines forbid it to Python to keep compiled code, and each of a run's processes then compiles rlframe again.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: help setup train test long check bench chaos clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "  make %-7s %s\n", $$1, $$2 }' Makefile

setup: $(READY) ## make .venv from the lock (LOCK=requirements-gpu.lock on a GPU machine; PYTHON=python3.12)

$(READY): $(LOCK) pyproject.toml launch/setup.sh
	PYTHON=$(PYTHON) LOCK=$(LOCK) launch/setup.sh

train: setup ## the main job; overrides go in ARGS="steps=10 seed=1"
	$(BIN)/rlframe train experiment=smollm2_arithmetic $(ARGS)

test: check ## check, then the tests, in two processes; ARGS="-k clip" picks some
	OMP_NUM_THREADS=1 $(BIN)/pytest -n 2 -m "not long" $(ARGS)

long: setup ## the tests that take minutes each, which `make test` leaves out
	OMP_NUM_THREADS=1 $(BIN)/pytest -m long $(ARGS)

check: setup ## format, lint, types, import contracts, import budget
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/basedpyright
	$(BIN)/lint-imports
	$(BIN)/python -c 'import sys, rlframe; heavy = {"torch", "ray", "vllm", "deepspeed", "transformers"} & {*sys.modules}; sys.exit(f"import rlframe loads {heavy}" if heavy else 0)'

bench: setup ## the reference job's seconds a step; ARGS=--peer for TRL beside it
	$(BIN)/python benchmarks/reference_job.py $(ARGS)

chaos: setup ## 200 faults over one run, in 40 minutes (docs/failures.md); ARGS="--faults 20 --seed 3"
	$(BIN)/python benchmarks/chaos.py $(ARGS)

clean: ## remove the environment and what tools left behind
	rm -rf .venv .pytest_cache .ruff_cache .import_linter_cache dist
	find . -name __pycache__ -prune -exec rm -rf {} +
