# make repro   environment from the lock, then every number from nothing
# make test    lint, import contract, types, documentation, all tests
# make tune    an Optuna study over cells: tune/params.yaml
# make docs    the documentation as a site: site/index.html
# make bench   speed, as ratios within one run       make ui    compare the runs in MLflow
PYTHON ?= python3
VENV   ?= .venv
BIN    := $(abspath $(VENV))/bin
READY  := $(VENV)/.ready
export PATH := $(BIN):$(PATH)
export MLFLOW_DISABLE_TELEMETRY := true
export NO_MKDOCS_2_WARNING := true

.PHONY: env repro tune test lint docs bench ui

env: $(READY)

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --disable-pip-version-check -r requirements.lock
	$(BIN)/pip install --disable-pip-version-check --no-deps --no-build-isolation -e .
	touch $@

repro: env
	dvc repro

tune: env
	dvc repro tune/dvc.yaml

lint: env
	ruff format --check .
	ruff check .
	mypy
	lint-imports

docs: env
	mkdocs build --strict --quiet

test: lint docs
	pytest

bench: env
	pytest benchmarks --benchmark-only

ui: env
	sae-repro ui
