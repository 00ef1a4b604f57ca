# On a fresh machine: Python 3.11 or newer, and make. Everything else is installed here, versions locked and hashed.
SHELL := bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help
MAKEFLAGS += --no-print-directory

VENV := .venv
BIN := $(VENV)/bin

# What the tests drive besides Python: a browser (its driver needs the library), and Java with Maven for a real Kafka.
SYSTEM = chromium=chromium faketime=faketime libatomic.so.1=libatomic1 mosquitto=mosquitto \
    nats-server=nats-server pgbouncer=pgbouncer promtool=prometheus $(BENCH_SYSTEM)

# What the benchmarks drive.
BENCH_SYSTEM := java=default-jre-headless mvn=maven rabbitmq-server=rabbitmq-server redis-server=redis-server

# Today's servers, where `make newest` has put them: then the tests take these. NEWEST= takes this machine's own.
NEWEST ?= $(or $(XDG_CACHE_HOME),$(HOME)/.cache)/faststream-outbox/newest/bin
test test-long readers mutants: export PATH := $(if $(NEWEST),$(NEWEST):)$(PATH)

# Passed on to pytest and to the benchmarks: make test ARGS="-k publish", make bench ARGS="--only kafka"
ARGS ?=
# Where make test-long writes its table.
RESULTS ?= build/reliability.md

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-14s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

.PHONY: demo
demo: $(VENV)/.demo ## Start the demo shop with an embedded PostgreSQL and Kafka; Ctrl-C stops it
	@exec $(BIN)/python -m demo

.PHONY: test
test: $(VENV)/.dev system ## Run every test, those on real servers and in a browser too
	@# Before the tests' clock runs: the first time, Kafka's jars are downloaded. Without them its tests say so.
	@$(BIN)/python -m integration.servers.jars || true
	@$(BIN)/python -m pytest $(ARGS)

.PHONY: bench
bench: $(VENV)/.dev ## Measure speed and compare it with others' (16 minutes); ARGS="--quick", ARGS="--help"
	@.ci/system-packages $(BENCH_SYSTEM)
	@$(BIN)/python -m benchmarks $(ARGS)

.PHONY: bench-baseline
bench-baseline: $(VENV)/.dev ## Count statements, round trips and WAL; make that the baseline of the tests
	@.ci/system-packages $(BENCH_SYSTEM)
	@$(BIN)/python -m benchmarks.counting

.PHONY: test-long
test-long: $(VENV)/.dev system ## Run the long forms of the fault scenarios, and write their table (RESULTS=file)
	@$(BIN)/python -m integration.servers.jars || true
	@mkdir -p $(dir $(RESULTS)) && rm -f $(RESULTS).jsonl
	@OUTBOX_RESULTS=$(RESULTS).jsonl $(BIN)/python -m pytest -m long -s $(ARGS) && status=0 || status=$$?; \
	    $(BIN)/python -m integration.scenarios.results $(RESULTS).jsonl >$(RESULTS) && echo "The table is in $(RESULTS)."; \
	    exit $$status

.PHONY: readers
readers: $(VENV)/.dev system ## Run the readers of docs/consumers.md and publishers of docs/sql.md; needs Node, Go, Java and Maven
	@integration/forwarders/fetch_readers build/readers
	@OUTBOX_READERS=$(CURDIR)/build/readers $(BIN)/python -m pytest integration/forwarders/test_readers.py \
	    integration/forwarders/test_sql.py $(ARGS)

.PHONY: mutants
mutants: $(VENV)/.dev system ## Apply hand-made faults one by one, and see that the tests find each (an hour); ARGS="--help"
	@$(BIN)/python -m tests.mutants $(ARGS)

.PHONY: system
system: ## Install what the tests drive, if it is missing (as root on Debian)
	@.ci/system-packages $(SYSTEM)

.PHONY: newest
newest: ## Fetch today's servers for the tests into a folder of their own (as root on Debian; three minutes)
	@.ci/system-packages debootstrap=debootstrap
	@.ci/newest-servers >/dev/null

.PHONY: lint
lint: $(VENV)/.dev ## Check style, format, prose, and that no file names a machine or a registry
	@$(BIN)/ruff check
	@$(BIN)/ruff format --check
	@$(BIN)/python .ci/check_tree.py
	@$(BIN)/python .ci/check_prose.py

.PHONY: format
format: $(VENV)/.dev ## Mend what ruff can mend by itself
	@$(BIN)/ruff check --fix-only
	@$(BIN)/ruff format

.PHONY: types
types: $(VENV)/.dev ## Check the types of src, strictly
	@$(BIN)/mypy

.PHONY: layers
layers: $(VENV)/.dev ## Check that imports point down only
	@$(BIN)/lint-imports --no-logo

.PHONY: docs
docs: build/docs/.done ## Build the documentation into build/site; a warning is an error, a link to nowhere too
	@# With --quiet it would make no warnings, so that none could be an error. Its other lines are shown if it fails.
	@$(SITE) build >build/docs.log 2>&1 || { cat build/docs.log; exit 1; }
	@build/docs/bin/python .ci/check_site.py build/site

.PHONY: docs-serve
docs-serve: build/docs/.done ## Show the documentation while you write; ARGS="-a localhost:8001" chooses another port
	@$(SITE) serve --livereload $(ARGS)

# Its tools are apart from the developer's environment. The variable silences the advertisement of a successor.
SITE := NO_MKDOCS_2_WARNING=1 build/docs/bin/mkdocs

build/docs/.done: requirements/docs.txt .ci/environment
	@mkdir -p build
	@.ci/environment build/docs $<
	@touch $@

.PHONY: lock
lock: ## Move the lock files to the newest versions that pyproject.toml allows (needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv: pip install uv"; exit 1; }
	@$(LOCK) pyproject.toml --all-extras --group dev -o requirements/dev.txt
	@$(LOCK) pyproject.toml --extra demo --extra relay --group build -c requirements/dev.txt -o requirements/demo.txt
	@$(LOCK) --group docs -c requirements/dev.txt -o requirements/docs.txt
	@$(LOCK) pyproject.toml --extra fastapi --extra kafka --extra rabbit --extra redis --extra nats --group test --resolution lowest-direct -o requirements/oldest.txt

# One file for every platform and every Python from 3.11 on. No index address goes into it.
LOCK := uv pip compile --quiet --upgrade --universal --python-version 3.11 --generate-hashes --no-emit-index-url --no-emit-find-links --custom-compile-command "make lock"

.PHONY: clean
clean: ## Remove the environment, caches and builds
	@rm -rf $(VENV) build dist .coverage .hypothesis .import_linter_cache .mypy_cache .pytest_cache .ruff_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One environment with two levels: the demo's needs are a part of the developer's, in the same versions.
$(VENV)/.demo $(VENV)/.dev: $(VENV)/.%: requirements/%.txt pyproject.toml .ci/environment
	@.ci/environment $(VENV) $<
	@if command -v uv >/dev/null; then \
	    uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .; \
	else \
	    $(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation -e .; \
	fi
	@touch $@
