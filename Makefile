# Everything a person or CI does with this repository. Each target does its own set-up, without root.
SHELL := /bin/bash
VENV := .venv
BIN := $(VENV)/bin
CLUSTER ?= local
export PATH := $(CURDIR)/$(BIN):$(PATH)
# Tests start ergon some hundred times: without its byte code, half of each start would be compiling it again.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install lint format types contracts crds manifests tables test test-pure test-thorough test-cluster demo demo-down bench bench-energy lock clean

help: ## Show this list
	@awk -F':.*## ' '/^[a-z-]+:.*## / {printf "  \033[1m%-14s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

install: $(VENV)/.installed ## Make .venv with ergon and all tools in it

$(VENV)/.installed: requirements/dev.txt pyproject.toml scripts/make-venv
	@scripts/make-venv $(VENV)
	@touch $@

format: install ## Format the code
	@ruff format operator tests bench examples scripts/*.py && ruff check --fix operator tests bench examples

types: install ## Check the types
	@mypy

contracts: install ## Check that rooms import only what they may
	@lint-imports

lint: install ## Format check, lint, types, import contracts
	@ruff format --check operator tests bench && ruff check operator tests bench && mypy && lint-imports

crds: install ## Write crds/ and the chart's copy from the pydantic models
	@ergon crds --output crds

manifests: install ## Render manifests/ from the chart
	@scripts/render-manifests

tables: install ## Write the tables that the READMEs show anew, as ergon plan prints them
	@python scripts/consoles.py README.md examples/seed-fleet/README.md

test: install ## Run all checks and tests beside each other, on local clusters of their own
	@scripts/beside cluster="$(MAKE) --no-print-directory test-cluster" \
		lint="nice $(MAKE) --no-print-directory lint" pure="$(MAKE) --no-print-directory test-pure"

test-pure: install ## Tests that need no cluster
	@python -m pytest -m "not cluster"

test-thorough: install ## Tests that need no cluster, with ten times as many drawn examples: for a change of the planner
	@python -m pytest -m "not cluster" --hypothesis-profile=thorough --timeout=3600

test-cluster: install ## Tests against a real API server, Triton and rclone, in a local cluster
	@scripts/test-cluster

demo: install ## The main job on a local cluster: models from kubectl apply to answered requests
	@CLUSTER=$(CLUSTER) python examples/demo/demo.py

demo-down: install ## Remove what the demo made (the cache of downloads stays)
	@ergon local down --name $(CLUSTER)

bench: install ## Measure speed; figures as JSON under bench/results
	@bench/run

bench-energy: install ## Energy of forty models by policy, simulated request by request; hours for all seeds
	@python -m bench.energy

lock: ## Resolve the dependencies anew, with hashes
	@uv pip compile pyproject.toml --universal --python-version 3.11 --generate-hashes --no-header --quiet --upgrade -o requirements/runtime.txt
	@uv pip compile pyproject.toml --extra dev --extra local --universal --python-version 3.11 --generate-hashes --no-header --quiet -c requirements/runtime.txt -o requirements/dev.txt

clean: ## Remove what was built here
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis dist build
