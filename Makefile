# Everything a developer does. `make help` lists it; nothing needs to be prepared but Python 3.11 or later.

.DEFAULT_GOAL := help
SHELL := /bin/bash
BIN := .venv/bin
READY := .venv/.ready
ARGS ?=
ONCE ?=

.PHONY: help demo test test-full test-unit lint bench bench-match bench-runs bench-runs-local services services-stop requirements clean

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / {printf "  make %-15s %s\n", $$1, $$2}' $(firstword $(MAKEFILE_LIST))

# `make` asks for PYTHON=… where the right interpreter is not on PATH.
$(READY): requirements.txt pyproject.toml scripts/make-venv
	@echo "making .venv from requirements.txt"
	@PYTHON="$(PYTHON)" scripts/make-venv
	@touch $@

demo: $(READY) ## Play the quickstart's story; ONCE=1 approves by itself and exits
	ONCE=$(ONCE) $(BIN)/python -m examples.quickstart.demo $(ARGS)

test: $(READY) ## Run all tests against real services, heavy ones at a fifth; ARGS="-k name" chooses
	SCALE=$${SCALE:-0.2} scripts/run-tests $(ARGS)

test-full: $(READY) ## Run all tests in full
	SCALE=1 scripts/run-tests $(ARGS)

test-unit: $(READY) ## Run the tests that need no services
	$(BIN)/python -m pytest tests/unit $(ARGS)

lint: $(READY) ## Check style, formatting, types and the direction of imports
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: $(READY) ## Measure latencies and throughput, beside a bare loop as the floor
	$(BIN)/python -m benchmarks $(ARGS)

bench-match: $(READY) ## Measure the event matcher alone
	$(BIN)/python -m benchmarks.match $(ARGS)

bench-runs: $(READY) ## Measure durable runs: latency, saturation, journalled tasks, runs that wait
	$(BIN)/python -m benchmarks.runs $(ARGS)

bench-runs-local: $(READY) ## Measure flows and tasks in plain Python, without a server
	$(BIN)/python -m benchmarks.runs_local $(ARGS)

services: $(READY) ## Start the test services, print their URLs, keep them until Ctrl-C
	@$(BIN)/python -m tests.support.services

services-stop: ## Stop what `make services` started
	@if [ -f .cache/services.pid ]; then kill -TERM "$$(cat .cache/services.pid)"; else echo "no services are running"; fi

# All extras but ray, which weighs as much as everything else together; its tests run where it is installed by hand.
EXTRAS := --extra server --extra embedded --extra dask --extra s3 --extra kubernetes --extra dev
requirements: $(READY) ## Pin the newest versions that pyproject.toml allows
	$(BIN)/uv pip compile --upgrade --universal --no-header --no-annotate $(EXTRAS) pyproject.toml -o requirements.txt

clean: ## Remove .venv, caches and what the demo keeps
	rm -rf .venv .cache .penstock .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
