# Everything runs from .venv, which is made from requirements.lock.
#
#   make demo ARGS="--exit"      the rush and its verdict
#   make test                    the checks and the whole suite
#   make setup PYTHON=python3.12 choose another interpreter

PYTHON ?= python3
BIN := .venv/bin
STAMP := .venv/.set-up
ARGS ?=
# Each brings its own Valkey and Postgres, and mostly waits for a disk or a deadline.
TEST_PROCESSES ?= 3

.PHONY: setup demo test check oracles states bench test-faults fuzz clean
.DEFAULT_GOAL := setup

setup: $(STAMP)

$(STAMP): requirements.lock pyproject.toml
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "Doorbuster needs Python 3.11 or newer. Name one: make setup PYTHON=/path/to/python3" >&2; \
	  exit 1; }
	@$(BIN)/python -m pip --version >/dev/null 2>&1 || { \
	  echo "Making .venv with $$($(PYTHON) --version) ..."; \
	  $(PYTHON) -m venv --clear .venv; }
	@echo "Installing the packages of requirements.lock (the first time takes about a minute) ..."
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --require-hashes -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check \
	  --no-deps --no-build-isolation -e .
	@touch $(STAMP)

demo: setup
	@$(BIN)/doorbuster demo $(ARGS)

check: setup
	$(BIN)/ruff format --check
	$(BIN)/ruff check
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pytest -q tests/style

# Every test process and role of a test imports the same: compiled once, whatever the shell says.
test: export PYTHONDONTWRITEBYTECODE :=
test: check oracles
	$(BIN)/pytest -q -n $(TEST_PROCESSES) --dist loadscope --no-loadscope-reorder \
	  --ignore=tests/style --ignore=tests/faults $(ARGS)
	$(BIN)/pytest -q -m "not faults" tests/faults

# Somebody else's SDKs, each in an environment of its own under .oracles: they judge what we sign.
# Without a package index their tests are skipped, and say so; REQUIRE_EVERY_ORACLE=1 refuses that.
oracles: setup
	@$(BIN)/python -m tests.oracles.environment

# Rewrites the pictures that are made from the code.
states: setup
	$(BIN)/python -m tests.style.states

# Wants the machine for itself; make bench ARGS="--quick" takes under three minutes.
bench: setup
	@$(BIN)/python -m loadtest.bench $(ARGS)

# Kills, freezes, cuts, and judges. SEED=17, SEEDS=200 or SEEDS=100:120 plays seeds alone;
# SEED_RESULTS=runs/seeds.jsonl takes a line of each seed.
# FAULT_SECONDS=120 is how long everything is killed again and again.
test-faults: setup
	SEED=$(SEED) SEEDS=$(SEEDS) $(BIN)/pytest -q \
	  $(if $(SEED)$(SEEDS),tests/faults/test_seeds.py,tests/faults) $(ARGS)

# Broken messages of providers for SECONDS, from SEED on; a failure prints what repeats it.
fuzz: setup
	$(BIN)/python -m tests.fuzz.payments $(if $(SEED),--seed $(SEED)) $(if $(SECONDS),--seconds $(SECONDS))

# Data under .doorbuster is orders: it stays.
clean:
	rm -rf .venv .oracles build dist *.egg-info .mypy_cache .ruff_cache .pytest_cache \
	  .hypothesis .import_linter_cache
	find . -name __pycache__ -type d -not -path './.doorbuster/*' -prune -exec rm -rf {} +
