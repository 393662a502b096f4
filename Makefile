# `make demo` and `make test` do everything on a fresh machine; the rest is for development.
PYTHON ?= python3
VENV := .venv
PY := $(VENV)/bin/python
# onnxruntime and onnxruntime-gpu are one module: pick by whether a GPU answers.
RUNTIME := $(shell nvidia-smi -L >/dev/null 2>&1 && echo gpu || echo cpu)
STAMP := $(VENV)/.installed
# Also what builds this package is pinned: older pips take the first for that, newer ones the second.
export PIP_CONSTRAINT := $(CURDIR)/constraints.txt
export PIP_BUILD_CONSTRAINT := $(PIP_CONSTRAINT)
# OpenMP threads wait for each other many times in a step of a small network. Left to spin for as long as they like, they
# are 40 times slower on a machine that is busy; with this they are up to three times slower there, and lose a tenth to a
# quarter on one that is idle.
export GOMP_SPINCOUNT ?= 10000

.DEFAULT_GOAL := help
.PHONY: help install demo test check audit sbom proto clean

help: ## This list
	@grep -E '^[a-z]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z]+):.*## /\1\t/' | expand -t 12

install: $(STAMP) ## Make .venv with everything in it

$(STAMP): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "flowseg needs Python 3.11 or later: run 'make PYTHON=/path/to/python3.11 ...'"; exit 2; }
	$(PYTHON) -m venv $(VENV)
	$(PY) -m pip install --quiet --disable-pip-version-check torch
	$(PY) -m pip install --quiet --disable-pip-version-check --editable '.[training,$(RUNTIME),openvino,tracing,dev]'
	@touch $@

demo: $(STAMP) ## Adapt on the embedded world, export, verify, serve, stream: leaves runs/demo
	$(PY) -m benchmarks.demo

check: $(STAMP) ## Lint, types, insecure code, known advisories
	$(VENV)/bin/ruff check .
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/mypy
	$(VENV)/bin/buf lint proto
	$(VENV)/bin/bandit --quiet --configfile pyproject.toml --recursive training export serving benchmarks
	@$(PY) -m benchmarks.advisories

audit: $(STAMP) ## Known advisories; fails if the service cannot tell
	@$(PY) -m benchmarks.advisories --strict

sbom: $(STAMP) ## List what is installed as CycloneDX: runs/sbom.cdx.json
	@mkdir -p runs
	$(VENV)/bin/cyclonedx-py environment --pyproject pyproject.toml --mc-type application --output-reproducible \
		--output-file runs/sbom.cdx.json $(PY)

test: check ## Lint, types and tests
	$(PY) -m pytest -n 2 --dist worksteal

proto: $(STAMP) ## Write serving/generated from proto/
	$(PY) -m serving.generate

clean: ## Remove .venv and caches; runs/ stays
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache *.egg-info
