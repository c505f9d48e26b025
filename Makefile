# Every task of the project. Needs Python 3.11 or newer and make; the rest is installed into $(VENV).
#   PYTHON=python3.13 make test                    another interpreter
#   VENV=/elsewhere/venv make test                 another virtual environment
#   ARGS="-k etag -x" make test                    more arguments for pytest

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DELETE_ON_ERROR:
MAKEFLAGS += --no-print-directory --no-builtin-rules

VENV ?= .venv
PYTHON ?=
ARGS ?=
SETUP ?= dev
# A folder with another edition of the caching test suite, its packages installed.
EDITION ?=

BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
INSTALL := $(BIN)/python -m pip install -qq --disable-pip-version-check

# Set up again when another interpreter is asked for, or when the one in the environment is gone.
ifneq ($(wildcard $(STAMP)),)
ifneq ($(PYTHON),)
ifneq ($(shell cat $(STAMP)),$(PYTHON))
$(STAMP): FORCE
endif
endif
ifneq ($(shell $(BIN)/python -c 'print(1)' 2>/dev/null),1)
$(STAMP): FORCE
endif
endif

.PHONY: help demo test test-system lint format types layers lowest wheel docs docs-serve prose release bench simulate chaos soak fuzz flows conformance clean FORCE
.DEFAULT_GOAL := help

help: ## list the tasks
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-12s %s\n", $$1, $$2 }' Makefile

$(STAMP): pyproject.toml scripts/find-python
	@python=$$(scripts/find-python "$(PYTHON)"); \
	echo "setting up $(VENV) with $$($$python --version)"; \
	$$python -m venv --clear "$(VENV)"; \
	$(INSTALL) --upgrade 'pip>=25.1'; \
	$(INSTALL) --editable . --group $(SETUP); \
	echo "$(PYTHON)" > $@

demo: $(STAMP) ## three replicas of the example shop and their story, then serve until interrupted (PORT=8000, REDIS_URL=)
	@$(BIN)/python -m example_app.demo

test: $(STAMP) ## all tests that need nothing but Python
	@$(BIN)/python -m pytest -q -n 3 $(ARGS)

test-system: $(STAMP) ## the tests with a browser, PostgreSQL, MariaDB and Varnish; installs Debian's where they are missing
	@scripts/install-debian
	@$(INSTALL) --group docs
	@$(BIN)/python -m pytest -q tests/system $(ARGS)

lint: $(STAMP) ## ruff: rules and layout
	@$(BIN)/ruff check --quiet --output-format concise .
	@$(BIN)/ruff format --quiet --check .

format: $(STAMP) ## let ruff lay out the code and fix what it can
	@$(BIN)/ruff check --quiet --fix .
	@$(BIN)/ruff format --quiet .

types: $(STAMP) ## mypy and pyright, strict on the package
	@$(INSTALL) --group bench
	@$(BIN)/mypy $(wildcard fastapi_cacheinval example_app bench chaos fuzz simulation tests scripts)
	@$(BIN)/pyright --pythonpath $(BIN)/python --warnings

layers: $(STAMP) ## who may import whom (import-linter)
	@$(BIN)/lint-imports --no-logo

wheel: $(STAMP) ## build the wheel, install it into an empty environment, use it there
	@scripts/check-wheel "$(BIN)/python"

lowest: ## the tests once more with the lowest versions that pyproject.toml allows
	@scripts/test-lowest "$(PYTHON)" $(ARGS)

docs: $(STAMP) ## build the site of the documentation, strictly, in build/site
	@$(INSTALL) --group docs
	@scripts/build-docs $(BIN)

prose: $(STAMP) ## look for sentences in the documentation that are hard to read (docs/prose.yml)
	@$(INSTALL) --group docs
	@scripts/check-prose $(BIN)

docs-serve: docs ## show the site on 127.0.0.1 (PORT=8080)
	@$(BIN)/python -m http.server --bind 127.0.0.1 --directory build/site $(or $(PORT),8080)

release: $(STAMP) ## build the distributions and check them (URL= of the public repository); uploads nothing
	@$(INSTALL) --group release
	@scripts/build-release $(BIN) $(URL)

bench: $(STAMP) ## measure, and print Markdown tables
	@$(INSTALL) --group bench
	@$(BIN)/python -m bench $(ARGS)

simulate: $(STAMP) ## many replicas and servers under seeded faults, for a minute (--seconds, --seeds, --replay, --record)
	@$(BIN)/python -m simulation $(ARGS)

chaos: $(STAMP) ## replicas and their servers under real faults, every read checked; then a broken build (--seconds, --topology)
	@$(BIN)/python -m chaos $(ARGS)

soak: $(STAMP) ## the same faults for ten minutes, and what they do to memory, tasks, files and the log (--seconds, --topology)
	@$(BIN)/python -m chaos.soak $(ARGS)

fuzz: $(STAMP) ## random apps, request sequences and raw requests, with the cache and without it, for a minute (--seconds, --seed)
	@$(BIN)/python -m fuzz $(ARGS)

flows: $(STAMP) ## how many calls and files one request of each kind goes through
	@$(BIN)/python -m scripts.flow_counts

conformance: $(STAMP) ## the public HTTP caching test suite against the middleware; needs node and npm (EDITION=folder)
	@$(INSTALL) --group bench
	@$(BIN)/python -m bench.conformance --home "$(VENV)/conformance" $(if $(EDITION),--edition "$(EDITION)") $(ARGS)

clean: ## remove what the tasks made
	@rm -rf "$(VENV)" build dist .hypothesis .mypy_cache .pytest_cache .ruff_cache .import_linter_cache
