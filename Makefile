# Two commands do all set-up on a machine that has Python 3.11.4 or later: make quickstart, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed

.PHONY: quickstart test lint format clean

quickstart: $(INSTALLED)  ## train, test and look at SFNet on built-in street scenes
	$(BIN)/crispseg quickstart

test: $(INSTALLED)  ## all tests, in two processes of one thread each
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

format: $(INSTALLED)  ## apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off --editable '.[dev]'
	$(BIN)/python -m pip install --progress-bar off --no-deps 'cityscapesscripts>=2.2' 'pyquaternion>=0.9'  # its dependencies shadow typing
	touch $@

clean:  ## remove the environment and caches
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis
