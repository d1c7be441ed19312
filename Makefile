# Everyone's door: `make help`. Each target installs what it needs first, and only when pyproject.toml or constraints.txt changed.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed
SOURCES := framework app tests tools
ARGS ?=
MINUTES ?= 20
TEST_PROCESSES ?= auto

MAKEFLAGS += --no-print-directory
.DEFAULT_GOAL := help
.PHONY: help install run-worker demo test check format interop interop-long browser bench bench-peers bench-container bench-docs bench-scaling bench-telemetry chaos soak fuzz audit reference lock clean

too_old := "Toril needs Python 3.11 or newer, and $(PYTHON) is Python %d.%d.%d. Install a newer one, and name it: make PYTHON=python3.12"

# Somebody who names a Python wants that one: install again if the environment has another.
ifneq ($(origin PYTHON),file)
ask_version := -c 'import platform; print(platform.python_version())'
ifneq ($(shell $(PYTHON) $(ask_version) 2>/dev/null),$(shell $(BIN)/python $(ask_version) 2>/dev/null))
.PHONY: $(STAMP)
endif
endif

help: ## show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-13s %s\n", $$1, $$2 }' Makefile
	@echo
	@echo "  PYTHON=python3.12 chooses the Python, VENV=folder where it installs; ARGS='…' is passed on to the program."

run-worker: $(STAMP) ## run the example application's worker until Ctrl-C (with an embedded server, unless REDIS_URL is set)
	@exec $(BIN)/toril worker app.main:AppModule $(ARGS)

demo: $(STAMP) ## send sample mails of every kind through a running worker, and show what becomes of them
	@exec $(BIN)/python -m app.demo $(ARGS)

test: $(STAMP) ## run the tests (ARGS='-k words' for some of them)
	@exec $(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal $(ARGS)

check: $(STAMP) ## formatting, lint, types (mypy and basedpyright), import layers
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/basedpyright
	$(BIN)/lint-imports --no-logo --no-cache

format: $(STAMP) ## format the code, and put right what ruff can
	$(BIN)/ruff check --fix-only $(SOURCES)
	$(BIN)/ruff format $(SOURCES)

NODE_MODULES := tests/interop/node_modules
COMPARING := tests/interop tests/server/test_golden.py tests/server/test_invariants.py tests/properties/test_invariants.py
has_node := command -v npm >/dev/null && node -e 'process.exit(parseInt(process.versions.node) < 20 ? 1 : 0)' 2>/dev/null

interop: $(STAMP) ## compare with the real BullMQ (needs Node 20 or newer and npm; without, what needs them is skipped)
	@if $(has_node); then $(MAKE) $(NODE_MODULES)/.installed; fi
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal $(COMPARING) $(ARGS)
	@if ! { $(has_node); }; then echo "skipped: Node 20 and npm are not installed, so Toril and BullMQ did not run side by side"; fi

interop-long: $(STAMP) $(NODE_MODULES)/.installed ## random operations on Toril and the real BullMQ for 20 minutes (MINUTES=…), other ones each time
	@TORIL_MINUTES=$(MINUTES) TORIL_SEED=$${TORIL_SEED:-$$(date +%s)} $(BIN)/python -m pytest -n 0 'tests/interop/test_differential.py::test_random_operations_leave_the_same_on_both_sides[0]' $(ARGS)

$(NODE_MODULES)/.installed: tests/interop/package.json tests/interop/package-lock.json
	@cd tests/interop && npm ci --no-audit --no-fund --ignore-scripts --loglevel=error
	@touch $@

has_chromium := { command -v chromium || command -v chromium-browser || command -v google-chrome; } >/dev/null
can_apt := command -v apt-get >/dev/null && test "$$(id -u)" = 0

browser: $(STAMP) ## bull-board in a real Chromium over a Toril queue (needs Node, and Chromium, which it installs as root on Debian)
	@if $(has_node); then $(MAKE) $(NODE_MODULES)/.installed; fi
	@if ! $(has_chromium) && $(can_apt); then \
	apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; fi
	@$(BIN)/python -m pytest -n $(TEST_PROCESSES) --dist worksteal tests/browser $(ARGS)
	@if ! { $(has_node) && $(has_chromium); }; then echo "skipped: Node 20, npm or Chromium are not installed, so no page was looked at"; fi

bench: $(STAMP) ## drain 20,000 jobs, and compare with a bare loop that calls the same script
	@exec $(BIN)/python -m tests.benchmarks.bench_drain $(ARGS)

bench-peers: $(STAMP) ## Toril beside BullMQ on Node and the task queues of Python, round after round (ARGS='--rounds 3 --only drain,latency --peers toril,node')
	@if $(has_node); then $(MAKE) $(NODE_MODULES)/.installed; fi
	@exec $(BIN)/python -m tests.benchmarks.bench_peers $(ARGS)

BENCH_CONTAINERS := .bench/containers

bench-container: $(STAMP) $(BENCH_CONTAINERS)/.installed ## what the container costs a job and a start, beside dishka and wireup
	@PYTHONPATH=$(BENCH_CONTAINERS) exec $(BIN)/python -m tests.benchmarks.bench_container

$(BENCH_CONTAINERS)/.installed: $(STAMP)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --upgrade --no-deps --target $(BENCH_CONTAINERS) dishka==1.10.1 wireup==2.13.0
	@touch $@

bench-docs: $(STAMP) ## write the figures of the last bench-peers into docs/benchmarks.md
	@exec $(BIN)/python -m tests.benchmarks.bench_docs $(ARGS)

bench-scaling: $(STAMP) ## one process beside two and four, 8 minutes (ARGS=cluster: 1 to 4 queues on a Cluster of three primaries)
	@exec $(BIN)/python -m tests.benchmarks.bench_scaling $(ARGS)

bench-telemetry: $(STAMP) ## what metrics and traces cost a job, beside a worker that nobody watches (ARGS=--short)
	@exec $(BIN)/python -m tests.benchmarks.bench_telemetry $(ARGS)

chaos: $(STAMP) ## a worker killed at each of its commands; then 10 minutes of kills and cuts (ARGS='--minutes 2 --seed 7')
	@TORIL_FAULT_POINTS=all $(BIN)/python -m pytest -q -n 0 tests/chaos/test_fault_points.py
	@exec $(BIN)/python -m tests.chaos $(ARGS)

soak: $(STAMP) ## a million jobs through one worker, and more that could leak: memory must stay flat
	@exec $(BIN)/python -m tests.chaos.soak $(ARGS)

fuzz: $(STAMP) ## fuzz what reads others' data (needs atheris: make fuzz installs it where there is one; ARGS='--seconds 130' for each of 9 targets)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check 'atheris>=2.3' 2>/dev/null || true
	@exec $(BIN)/python -m tests.fuzz $(ARGS)

audit: $(STAMP) ## known vulnerabilities of what constraints.txt and tests/interop install (needs the network)
	@$(BIN)/python tools/audit.py

reference: $(STAMP) ## write docs/reference.md anew from the docstrings
	@$(BIN)/python tools/reference.py

install: $(STAMP) ## only install
	@:

lock: $(STAMP) ## write constraints.txt anew with the newest releases that pyproject.toml allows
	@$(BIN)/python tools/lock.py

clean: ## remove the environment, the caches and what was built (not var/, which holds data)
	rm -rf $(NODE_MODULES) $(VENV) $(VENV).lock .bench dist build .pytest_cache .mypy_cache .ruff_cache .import_linter_cache .hypothesis
	find framework app tests tools -name __pycache__ -type d -prune -exec rm -rf {} +

$(STAMP): pyproject.toml constraints.txt
	@command -v $(PYTHON) >/dev/null || { echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer, or name yours: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and $(too_old) % sys.version_info[:3])'
	@$(PYTHON) tools/install.py $(VENV) $(STAMP) '.[dev]'
