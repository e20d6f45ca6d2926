# Every target first makes the virtual environment it needs, and installs only what it needs there.
# A stamp file per set of extras remembers that; a change of pyproject.toml or constraints.txt renews it.
#
#   make train ARGS="--trainer.max_steps 100"     make test ARGS="-k losses"     make PYTHON=python3.12 test

PYTHON ?= python3
VENV   ?= .venv
ARGS   ?=

BIN       := $(VENV)/bin
INSTALLED := $(VENV)/.installed-
PYTEST    := OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist worksteal
PIP       := $(BIN)/python -m pip --disable-pip-version-check install -c constraints.txt

.DEFAULT_GOAL := help
.NOTPARALLEL:
.PHONY: help train test test-all wings new lint format types notebooks bench clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-10s %s\n", $$1, $$2 }' Makefile

train: $(INSTALLED)base ## train the embedded recipe: handwritten digits, on a CPU, without an account
	$(BIN)/litgan fit --config configs/digits.yaml $(ARGS)

test: $(INSTALLED)all ## run the quick tests, in a few minutes
	$(PYTEST) -m "not train and not spawn and not heavy" $(ARGS)

test-all: $(INSTALLED)all ## run all tests, those too that train, start processes or take published widths
	$(PYTEST) $(ARGS)

# wing: new
wings: $(INSTALLED)all ## cut off each wing, then all of them, and check that the rest stays green
	$(BIN)/python .ci/wings.py $(ARGS)

new: $(INSTALLED)dev ## make this copy a project of your own: make new NAME=mygan WINGS=sound,lab
	$(BIN)/litgan new . --name "$(NAME)" --wings "$(WINGS)"
# end: new

lint: $(INSTALLED)ruff ## check style and formatting
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .

format: $(INSTALLED)ruff ## repair what lint would report
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

types: $(INSTALLED)dev ## check the types
	$(BIN)/python -m mypy

notebooks: $(INSTALLED)notebooks ## execute the notebooks in place
	$(BIN)/jupyter execute --inplace notebooks/*.ipynb notebooks/*/*.ipynb

bench: $(INSTALLED)dev,metrics ## measure speed and memory, in about an hour
	for name in step memory data evaluation scaling communication; do \
	  $(BIN)/python benchmarks/$$name.py $(ARGS) || exit 1; done

clean: ## remove caches and builds; runs/ and the virtual environment stay
	rm -rf build dist .mypy_cache .pytest_cache .ruff_cache
	find src tests benchmarks notebooks -name __pycache__ -prune -exec rm -rf {} + 2>/dev/null || true

# What follows the dash is the list of extras.
$(INSTALLED)%: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) -e ".[$*]"
	@touch $@

$(INSTALLED)base: pyproject.toml constraints.txt | $(BIN)/pip
	$(PIP) -e .
	@touch $@

$(INSTALLED)ruff: constraints.txt | $(BIN)/pip  # linting does not wait for torch
	$(PIP) ruff
	@touch $@

$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 10))' || { echo \
	  "litgan needs Python 3.10 or newer; name one with: make PYTHON=/path/to/python3" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo \
	  "$(PYTHON) cannot make virtual environments; install its venv module (Debian: apt install python3-venv)" >&2; exit 1; }
	$(PYTHON) -m venv $(VENV)
