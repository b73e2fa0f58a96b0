# Everything a contributor types. `make help` lists the targets; each carries its line after `##`.

PYTHON ?= python3
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
UV     := 0.13.9

CHECKED    := coordinator tests benchmarks
FAST_TESTS := $(wildcard tests/unit tests/property)

.DEFAULT_GOAL := help
.PHONY: audit sbom bench chaos crash-test fuzz simulate help install demo run check test integration format lock image clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

install: $(STAMP) ## create .venv with every dependency pinned by hash, and .venv/bin/coordinator

# The stamp makes a second `make install` instant; whatever changes the environment is named here.
$(STAMP): requirements/dev.txt pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer is needed; say which with: make PYTHON=python3.12 install")'
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV) …"
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/dev.txt
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@
	@echo "installed: $(BIN)/coordinator"

demo: $(STAMP) ## watch a few thousand units go through real servers, started for the occasion
	@$(BIN)/coordinator demo

run: $(STAMP) ## run the daemon with config/coordinator.toml
	@$(BIN)/coordinator run

check: $(STAMP) ## format, lint, types, imports, unit and property tests; needs no server
	$(BIN)/ruff format --check $(CHECKED)
	$(BIN)/ruff check $(CHECKED)
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest $(FAST_TESTS)

# Processes with servers of their own each: most tests wait more than they compute, so one more than cores.
TEST_PROCESSES ?= 3

test: $(STAMP) ## every test, against real servers that it starts by itself
	$(BIN)/pytest -n $(TEST_PROCESSES) --dist loadfile --no-loadscope-reorder tests

integration: $(STAMP) ## only the tests that need real servers
	$(BIN)/pytest -m "integration or acceptance" tests

bench: $(STAMP) ## measure transfers beside an unsafe dual write, a straight line and DBOS
	@$(BIN)/coordinator bench

crash-test: $(STAMP) ## kill, freeze and deafen the daemon at every fault point
	COORDINATOR_CRASH_TEST=all $(BIN)/python -m pytest -n $(TEST_PROCESSES) -p tests.chaos.tally \
		tests/chaos/test_crash_points.py

N ?= 10000

fuzz: $(STAMP) ## N=10000 hostile messages to a real daemon, each judged by an oracle (SEED=… repeats)
	COORDINATOR_FUZZ=$(N) COORDINATOR_FUZZ_SEED=$(or $(SEED),0) $(BIN)/pytest -s tests/acceptance/test_fuzz.py

MINUTES ?= 5

chaos: $(STAMP) ## MINUTES=5 of transfers while servers and daemons are killed, frozen and cut off
	$(BIN)/python -m tests.chaos --minutes $(MINUTES) $(if $(SEED),--seed $(SEED))

SEEDS ?= 5000

simulate: $(STAMP) ## run the engine over SEEDS=5000 simulated worlds, and check every invariant
	$(BIN)/python -m tests.simulation --seeds $(SEEDS)

format: $(STAMP) ## put the code into its format, and repair what the linter can
	$(BIN)/ruff check --fix-only $(CHECKED)
	$(BIN)/ruff format $(CHECKED)

LOCK := .lock-venv/bin/uv pip compile --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-emit-find-links --no-header --annotation-style=line --quiet

lock: ## resolve requirements/*.txt anew from pyproject.toml
	@test -x .lock-venv/bin/uv || $(PYTHON) -m venv .lock-venv
	@.lock-venv/bin/python -m pip install --quiet --disable-pip-version-check uv==$(UV)
	$(LOCK) --upgrade --all-extras --group build pyproject.toml --output-file requirements/dev.txt
	$(LOCK) --upgrade --constraint requirements/dev.txt pyproject.toml --output-file requirements/runtime.txt
	$(LOCK) --upgrade --constraint requirements/dev.txt --group build --output-file requirements/build.txt
	$(LOCK) --upgrade --group audit --output-file requirements/audit.txt

AUDIT := .audit-venv/bin
LOCKED := requirements/runtime.txt requirements/dev.txt requirements/build.txt

$(AUDIT)/pip-audit: requirements/audit.txt
	@$(PYTHON) -m venv .audit-venv
	@$(AUDIT)/python -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements/audit.txt
	@touch $@

# --strict: a package that the advisory service does not know is a failure, not a line to overlook.
audit: $(AUDIT)/pip-audit ## compare the locked dependencies with known vulnerabilities; needs the advisory service
	$(AUDIT)/pip-audit --strict --require-hashes --disable-pip --progress-spinner off $(addprefix -r ,$(LOCKED))

sbom: $(AUDIT)/pip-audit ## write sbom.json: what an installation consists of (CycloneDX)
	$(AUDIT)/cyclonedx-py requirements --pyproject pyproject.toml --output-reproducible --output-file sbom.json requirements/runtime.txt

image: ## build the container image
	docker build --tag coordinator:dev .

clean: ## remove what this file and the tools made, servers' data included
	rm -rf $(VENV) .lock-venv .audit-venv .devstack sbom.json .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis build dist
	find coordinator tests -name __pycache__ -type d -prune -exec rm -rf {} +
