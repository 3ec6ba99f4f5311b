# Everything a newcomer needs: `make demo` shows what it does, `make test` runs the tests. Nothing else to install by hand.
# `make demo-train` runs the whole method from nothing: a virtual cohort, two trainings, thresholds, an evaluation.
# Before a commit: `make check`. `make rest` is what `make test` has beyond it, `make test-all` adds the largest sweeps.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
STAMP := $(VENV)/.installed

DOCS := .venv-docs
# A worker that has nothing left takes over tests of the other one.
PYTEST := $(BIN)/pytest -q -n 2 --dist worksteal
# Tests start many Python processes. Each would compile everything again where the environment forbids to keep it.
export PYTHONDONTWRITEBYTECODE :=

.PHONY: demo demo-train test test-all check rest docs reference format clean

demo: $(STAMP)
	$(BIN)/halebrain demo -o demo

demo-train: $(STAMP)
	$(BIN)/halebrain demo --train -o demo-train

test: $(STAMP)
	$(PYTEST) -m "not sweep"

test-all: $(STAMP)
	$(PYTEST)

check: $(STAMP)
	$(BIN)/ruff format --check src tests benchmarks tools
	$(BIN)/ruff check src tests benchmarks tools
	$(BIN)/mypy
	$(PYTEST) -m "not slow and not sweep"

rest: $(STAMP)
	$(PYTEST) -m "slow and not sweep"

# The site has an environment of its own: nothing in it needs torch, and nothing above needs it.
docs: $(DOCS)/.installed
	NO_MKDOCS_2_WARNING=1 $(DOCS)/bin/mkdocs build --strict --quiet
	@echo site/index.html

$(DOCS)/.installed: pyproject.toml
	test -x $(DOCS)/bin/python || $(PYTHON) -m venv $(DOCS)
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["docs"], sep="\n")' \
		| xargs $(DOCS)/bin/pip install --quiet
	touch $@

# What is written from the code: docs/reference/commands.md, docs/reference/configuration.md, boutiques.json.
reference: $(STAMP)
	$(BIN)/python -m tools.reference

format: $(STAMP)
	$(BIN)/ruff format src tests benchmarks tools
	$(BIN)/ruff check --fix src tests benchmarks tools

# torch goes first and pinned: asked for by a range, pip would fetch gigabytes of CUDA libraries.
$(STAMP): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/pip install --quiet --constraint constraints.txt torch
	$(BIN)/pip install --quiet --constraint constraints.txt --editable ".[dev]"
	touch $(STAMP)

clean:
	rm -rf $(VENV) $(DOCS) demo demo-train site build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
