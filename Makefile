# Needs Python (3.11 or newer) and make; everything else is installed into $(VENV).
# Another interpreter or line of Django: make test-quick PYTHON=python3.13 VENV=var/venv-5.2 DJANGO='Django<6'

PYTHON ?= python3
VENV ?= .venv
DJANGO ?= Django
PYTEST_ARGS ?=
BENCH_ARGS ?=
CHAOS_ARGS ?=
BIN := $(VENV)/bin
# Two processes already halve the wall time; more would compete with the servers and workers that the tests start.
PROCESSES ?= 2

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
.PHONY: help demo tour test test-quick test-postgresql test-mariadb test-signals chaos lint format docs docs-diagrams screenshots \
	bench bench-plot bench-guard build clean

help: ## this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-16s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)
	@echo 'Add PYTHON=python3.13 VENV=var/venv-3.13 for another interpreter, PYTEST_ARGS="-k name" for some tests only.'

demo: $(VENV)/.demo ## sign a user up in the example shop and watch the worker write the e-mail
	$(BIN)/python example_project/demo.py

tour: $(VENV)/.tour ## the same, and the shop stays open for your browser: the admin, a broken webhook, the map, the debug toolbar
	$(BIN)/python example_project/demo.py --stay

test: $(VENV)/.test ## everything, with real workers and servers, and the coverage of the core
	$(BIN)/python -m pytest -n $(PROCESSES) --ignore tests/integration --cov $(PYTEST_ARGS)
	# In processes of their own; 5: what PYTEST_ARGS selects may be in one of both only.
	$(BIN)/python -m pytest -n $(PROCESSES) tests/integration $(PYTEST_ARGS) || [ $$? = 5 ]

test-quick: $(VENV)/.test ## everything but the integration tests
	$(BIN)/python -m pytest -n $(PROCESSES) --ignore tests/integration $(PYTEST_ARGS)

test-postgresql: $(VENV)/.test ## test-quick on a private PostgreSQL instead of SQLite
	$(BIN)/python -m tests.on_database postgresql -n $(PROCESSES) $(PYTEST_ARGS)

test-mariadb: $(VENV)/.test ## test-quick on a private MariaDB instead of SQLite
	$(BIN)/python -m tests.on_database mariadb -n $(PROCESSES) $(PYTEST_ARGS)

test-signals: $(VENV)/.test ## every signal of Django through real workers and servers
	$(BIN)/python -m pytest -n $(PROCESSES) tests/integration/test_signals_*.py $(PYTEST_ARGS)

chaos: $(VENV)/.test ## kill workers and brokers under load; count what is lost, doubled, or should not have been (CHAOS_ARGS=--short)
	$(BIN)/python -m tests.chaos $(CHAOS_ARGS)

lint: $(VENV)/.lint $(VENV)/.test ## ruff, mypy (strict), the floors of the package
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/python -m pytest -q -p no:randomly tests/test_floors.py

format: $(VENV)/.lint ## let ruff mend what it can
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(VENV)/.docs ## build the documentation; a warning is an error
	$(BIN)/sphinx-build -W --keep-going -b html docs docs/_build/html

docs-diagrams: ## draw the diagrams of the documentation into docs/_static
	$(PYTHON) docs/diagrams.py

screenshots: $(VENV)/.test ## take the screenshots of the documentation, of the example shop in the chromium of this machine
	$(BIN)/python docs/screenshots.py

bench: $(VENV)/.bench ## what a send and a delivery cost, beside Django and Celery by hand
	$(BIN)/python benchmarks/run.py $(BENCH_ARGS)

bench-plot: $(VENV)/.bench ## write the last make bench into docs/_static: its curves, and its tables
	$(BIN)/python -m benchmarks.plot
	$(BIN)/python -m benchmarks.summary

bench-guard: $(VENV)/.bench ## a few ratios against their limits, in a minute: nothing has become half as slow again
	$(BIN)/python -m benchmarks.guard

build: $(VENV)/.build ## wheel and sdist into dist/, checked, and used by a project that has nothing else
	rm -rf dist
	$(BIN)/python -m build
	$(BIN)/twine check --strict dist/*
	$(BIN)/python -m tests.wheel dist/*.whl

clean: ## remove everything that make made
	rm -rf $(VENV) build dist docs/_build .coverage .coverage.* .hypothesis .mypy_cache .pytest_cache .ruff_cache \
		var example_project/var
	find . -name __pycache__ -type d -prune -exec rm -rf {} +

# One stamp per dependency group of pyproject.toml, so that each target installs only what it needs, once.
$(VENV)/.pip:
	$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "Python 3.11 or newer, please: make PYTHON=...")'
	$(PYTHON) -m venv $(VENV) || { echo "no venv: on Debian and Ubuntu, apt-get install python3-venv"; exit 1; }
	$(BIN)/python -m pip install --quiet --upgrade 'pip>=25.1'  # the first with --group
	touch $@

$(VENV)/.%: $(VENV)/.pip pyproject.toml
	$(BIN)/python -m pip install --quiet --editable . --group $* '$(DJANGO)'
	touch $@
