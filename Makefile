PYTHON ?= python3
VENV   ?= .venv
# what pip is asked for torch with: the build that it offers here, by its release alone. Others:
#   make env TORCH="torch==2.13.0 --index-url https://download.pytorch.org/whl/cpu"
#   make env TORCH="--require-hashes -r locks/cuda.txt"
TORCH  ?= $(shell grep -o '^torch==[^ ]*' requirements.lock)
BIN    := $(abspath $(VENV))/bin
READY  := $(VENV)/.ready
TESTS  := $(VENV)/.ready-dev
PEERS  := .venv-peers
PIP    := $(BIN)/pip install --disable-pip-version-check
export PATH := $(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export NO_MKDOCS_2_WARNING := true

# of tests: a process per core, a file in one of them
SPREAD := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help env dev repro tune test test-all lint docs bench bench-peers bench-defaults ui lock

help:  ## this list
	@sed -n 's/^\([a-z-]*\):.*##  */\1	/p' Makefile | expand -t 12

env: $(READY)  ## environment from requirements.lock, in .venv

dev: $(TESTS)  ## the same, and what tests and documentation need: locks/dev.txt

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) $(TORCH)
	$(PIP) --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	touch $@

$(TESTS): $(READY) locks/dev.txt
	$(PIP) --require-hashes -r locks/dev.txt
	touch $@

repro: env  ## every number from nothing (dvc repro), compared with the recorded ones
	dvc repro
	@sae-repro verify || echo "make repro: the run is complete; its numbers are not confirmed (exit code" \
	  "$$? of sae-repro verify; --verbose names each file, docs/reproduction.md says what to make of it)"

tune: env  ## an Optuna study over cells: tune/params.yaml
	dvc repro tune/dvc.yaml

lint: dev  ## formatting, lint, types, import contract
	ruff format --check .
	ruff check .
	mypy
	lint-imports

docs: dev  ## the documentation as a site: site/index.html
	mkdocs build --strict --quiet

test: lint docs  ## lint, documentation, and all tests but the long ones, a process per core
	pytest -m "not slow" $(SPREAD) --durations=25

test-all: lint docs  ## the same with the long tests: whole studies, kills, outages, other processors
	pytest $(SPREAD)

bench: dev  ## speed: training steps as ratios to x·W_enc, growth and memory: reports/benchmarks
	pytest benchmarks --benchmark-only
	python -m benchmarks.growth

bench-peers: $(PEERS)/.ready  ## the same steps of other libraries, in an environment of their own
	PYTHONPATH=src $(PEERS)/bin/python -m benchmarks.peers

bench-defaults: $(PEERS)/.ready  ## what our defaults reach, and SAELens' trainer on the same activations
	PYTHONPATH=src $(PEERS)/bin/python -m benchmarks.defaults root=artifacts/extract $(MORE)

$(PEERS)/.ready: locks/peers.txt requirements.lock
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --disable-pip-version-check $(TORCH)
	$(PEERS)/bin/pip install --disable-pip-version-check --no-deps --require-hashes -r locks/peers.txt
	touch $@

ui: env  ## compare the runs in MLflow
	sae-repro ui

lock: dev  ## resolve requirements.lock and locks/ again: LOCK="--upgrade" for newer releases
	$(PIP) --upgrade pip
	$(BIN)/python locks/lock.py $(LOCK)
