# make test: the whole gate.   make demo: the main job on the digits model.   Both build .venv when it is needed.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
INSTALLED := $(VENV)/.installed
DEMO ?= demo

.PHONY: test lint types unit mutants demo clean

test: lint types unit

lint: $(INSTALLED)
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports --no-cache

types: $(INSTALLED)
	$(BIN)/mypy

# Two workers with one thread each (tests/conftest.py): as fast as two cores get, and never oversubscribed.
unit: $(INSTALLED)
	$(BIN)/python -m pytest -n 2 -q

# Every sign and every lower/upper of the bound rules flipped, one at a time: minutes, and each must be noticed.
mutants: $(INSTALLED)
	OMP_NUM_THREADS=1 $(BIN)/python tests/mutation.py

# One thread: the network is so small that two only wait for each other.
demo: export OMP_NUM_THREADS = 1
demo: $(INSTALLED)
	mkdir -p $(DEMO)
	$(BIN)/robnet-fx zoo export digits $(DEMO)/digits.onnx
	$(BIN)/robnet-fx robustify $(DEMO)/digits.onnx --order 3 --eps 120 --epochs 10 --runs $(DEMO)/runs

$(INSTALLED): pyproject.toml constraints.txt
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --constraint constraints.txt --editable '.[dev]'
	touch $@

clean:
	rm -rf $(VENV) build dist *.egg-info .mypy_cache .pytest_cache .ruff_cache .hypothesis
