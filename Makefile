# Two commands do all set-up on a machine that has Python 3.11.4 or later: make quickstart, make test.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
RUNS := $(VENV)/.runs
INSTALLED := $(VENV)/.installed

# Bytecode of the tests is kept, since pytest compiles them for seconds; plugins that no test uses are not loaded.
# A test process that dies fails the suite at once: xdist may wait for ever after it has started another.
PYTEST = OMP_NUM_THREADS=1 PYTHONDONTWRITEBYTECODE= $(BIN)/python -m pytest -p no:nbmake -p no:hydra_pytest -n 2 --dist worksteal --max-worker-restart=0

.PHONY: quickstart test test-changed test-slow test-tools test-all fuzz lint docs figures notebooks format clean

quickstart: $(RUNS)  ## train, test and look at a model of microscope images of nuclei
	$(BIN)/crispseg quickstart

test: $(INSTALLED)  ## all tests but the slow ones, in two processes of one thread each: some minutes
	$(PYTEST) -m 'not slow and not tools'

test-changed: $(INSTALLED)  ## the tests that ran code which has changed since; the first time all
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest --testmon -m 'not slow and not tools'

test-slow: $(INSTALLED)  ## the others: exports of every kind of graph, long runs, processes
	$(PYTEST) -m 'slow and not tools'

test-tools: $(INSTALLED)  ## those of files for other programs, and why each of the others is skipped
	$(PYTEST) -rs -m tools

test-all: test test-slow  ## all tests

fuzz: $(INSTALLED)  ## thousands of hostile files and settings for all commands: half an hour
	PYTHONPATH=tests $(BIN)/python -m fuzz --processes 2

lint: $(INSTALLED)  ## style and types
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

docs: $(INSTALLED)  ## the site of the documentation, in site/
	$(BIN)/python docs/generate.py
	$(BIN)/zensical build --strict

figures: $(INSTALLED)  ## the pictures of README and site, and the README's tables: three hours; DATA=... WEIGHTS=... see the script
	$(BIN)/python docs/figures.py all $(if $(DATA),--data $(DATA)) $(if $(WEIGHTS),--weights $(WEIGHTS))

notebooks: $(INSTALLED)  ## run the notebooks with seconds of training
	rm -rf build/notebooks && mkdir -p build && cp -r notebooks build
	PATH=$(CURDIR)/$(BIN):$$PATH $(BIN)/python -m pytest --nbmake --nbmake-timeout=300 build/notebooks

format: $(INSTALLED)  ## apply the style
	$(BIN)/ruff check --fix .
	$(BIN)/ruff format .

$(RUNS): pyproject.toml  # what running needs
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --progress-bar off --editable .
	touch $@

$(INSTALLED): $(RUNS)  # and what tests, documentation and all extras need
	$(BIN)/python -m pip install --progress-bar off --editable '.[dev]'
	$(BIN)/python -m pip install --progress-bar off --no-deps 'cityscapesscripts>=2.2' 'pyquaternion>=0.9'  # its dependencies shadow typing
	touch $@

clean:  ## remove the environment and caches
	rm -rf $(VENV) site .pytest_cache .mypy_cache .ruff_cache .hypothesis .testmondata*
