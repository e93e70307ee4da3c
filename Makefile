# CLUSTER=embedded (default on Linux), kind or current chooses the cluster.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

# Pulumi starts Python for each command: without bytecode it would compile the program anew each time.
unexport PYTHONDONTWRITEBYTECODE

PYTHON ?= python3
BIN := .venv/bin
READY := .venv/.ready

.PHONY: help demo test check cluster-up cluster-down bench soak lock

help:
	@echo 'make demo          the story, for real: a cluster, Istio, two versions, 50/50, 90/10, 30/70'
	@echo 'make test          format, lint, types, unit and end-to-end tests'
	@echo 'make check         format, lint and types alone'
	@echo 'make cluster-up    the local cluster; the last line is the path of its kubeconfig'
	@echo 'make cluster-down  takes it away, with everything on it'
	@echo 'make bench         times it side by side with istioctl, kubectl and a bare Pulumi program'
	@echo 'make soak          the long series: kills, shifts and more, with a table of counts at the end'

$(READY): requirements-dev.txt
	@$(PYTHON) -c 'import sys; sys.version_info >= (3, 11) or sys.exit("Python 3.11 or newer is needed; set PYTHON=")'
	@echo 'installing the Python packages into .venv' >&2
	@$(PYTHON) -m venv --clear .venv
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes --requirement requirements-dev.txt
	@ln -sf ../../bin/mesh $(BIN)/mesh
	@touch $@

demo: $(READY)
	@$(BIN)/python demo.py

# Two workers, each with a cluster of its own; a module of tests stays with one of them. What cannot be built on this
# machine is told at once, and again by the tests that are not run without it.
test: check
	-@$(BIN)/python -m localcluster build --tests
	@$(BIN)/python -m pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

check: $(READY)
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy .
	@$(BIN)/python -m ci.lint

cluster-up: $(READY)
	@$(BIN)/python -m localcluster up

cluster-down: $(READY)
	@$(BIN)/python -m localcluster down

bench: $(READY)
	@$(BIN)/python -m bench

soak: $(READY)
	@$(BIN)/python -m pytest soak

# Pins requirements.in and requirements-dev.in with hashes; needs uv.
lock:
	uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 requirements.in -o requirements.txt
	uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 requirements-dev.in -o requirements-dev.txt
	uv pip compile --quiet --generate-hashes --no-header --python-version 3.11 tests/e2e/s3/requirements.in -o tests/e2e/s3/requirements.txt
