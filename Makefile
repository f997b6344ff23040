# Everything runs from a fresh clone: each target first installs what it needs into .venv.
# Bare `make` prints the targets.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
KAFKA_STAMP := $(VENV)/.kafka
# A Python of 3.11 or later; `make setup PYTHON=/path/to/python` chooses another.
PYTHON ?= $(shell for p in python3 python3.13 python3.12 python3.11; do \
	"$$p" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo "$$p"; break; }; done)
# More arguments for pytest, such as PYTEST_ARGS="tests/unit -k config".
PYTEST_ARGS ?=
BROKERS ?= 1
# Of `make soak`: how long, and which faults.
SOAK_MINUTES ?= 60
SOAK_SEED ?= 0

.PHONY: help setup demo demo-kafka test test-slow test-kafka soak check format bench bench-kafka kafka-up kafka-down clean

help: ## this list
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1\t\2/' | expand -t 12

setup: $(STAMP) ## make .venv and install pinned dependencies and this package, editable

# Build requirements are installed first and builds are not isolated, so that constraints.txt binds them too.
$(STAMP): pyproject.toml constraints.txt
	@if [ -z "$(PYTHON)" ]; then echo "make setup: no Python 3.11 or later found; install one, or give PYTHON=/path/to/python" >&2; exit 2; fi
	@[ -x $(BIN)/python ] || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt hatchling editables
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev,faust]'
	@touch $@

$(KAFKA_STAMP): $(STAMP)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -c constraints.txt --no-build-isolation -e '.[dev,faust,kafka]'
	@touch $@

demo: setup ## play real payments, verify a proof, audit, catch tampering
	$(BIN)/hauptbuch demo

demo-kafka: $(KAFKA_STAMP) ## the demo on a real broker that is started for it and ended with it
	@data=$$(mktemp -d); \
	trap '$(BIN)/python -m deploy.kafka down --data "$$data" || true; rm -rf "$$data"' EXIT; \
	bootstrap=$$($(BIN)/python -m deploy.kafka up --data "$$data"); \
	$(BIN)/hauptbuch demo --kafka "$$bootstrap"

test: setup ## default tests with coverage of pipeline/, subprocesses included; fails under 90 %
	@rm -f .coverage .coverage.*
	$(BIN)/coverage run -m pytest -n auto --dist worksteal -o faulthandler_timeout=400 -m "not slow and not kafka" $(PYTEST_ARGS)
	@$(BIN)/coverage combine --quiet
	$(BIN)/coverage report

test-slow: setup ## the tests that take minutes: simulations, kills, fault points, fuzzers
	$(BIN)/python -m pytest -n auto --dist worksteal -m slow $(PYTEST_ARGS)

test-kafka: $(KAFKA_STAMP) ## tests on a real broker: HAUPTBUCH_TEST_KAFKA=host:port, a container, or one started here
	$(BIN)/python -m pytest -m kafka $(PYTEST_ARGS)

soak: $(KAFKA_STAMP) ## the fault matrix on native clusters: SOAK_MINUTES (60), SOAK_SEED (0)
	$(BIN)/python -m tests.kafka.matrix soak --minutes $(SOAK_MINUTES) --seed $(SOAK_SEED)

check: setup ## formatting, lints, static types, layers
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

format: setup ## rewrite files to the house format
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

bench: setup ## measure this machine
	$(BIN)/python -m benchmarks

bench-kafka: $(KAFKA_STAMP) ## measure latency and throughput on a real broker that is started for it
	$(BIN)/python -m benchmarks.kafka

kafka-up: $(KAFKA_STAMP) ## start Apache Kafka on loopback (BROKERS=1 or 3); prints the bootstrap address
	$(BIN)/python -m deploy.kafka up --brokers $(BROKERS)

kafka-down: $(KAFKA_STAMP) ## stop it
	$(BIN)/python -m deploy.kafka down

clean: ## remove what the targets made, .venv and the data of kafka-up (stop that first) included
	rm -rf $(VENV) build dist htmlcov .coverage .coverage.* .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
