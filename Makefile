# make demo    trains on the built-in data
# make check   linters but pyright, which takes a minute, and all tests but the slow ones
# make test    all linters and all tests
# make crash-test   kills processes that save, more than 500 times
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
export OMP_NUM_THREADS ?= 1
# Tests start many processes; each would compile the package again.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: install demo check test lint types crash-test clean

install: $(VENV)/.installed

$(VENV)/.installed: pyproject.toml
	test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable ".[dev]"
	touch $@

demo: install
	env -u OMP_NUM_THREADS $(BIN)/od-detr demo --output runs/demo

lint: install
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports

types: install
	$(BIN)/pyright

check: install lint
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal -m "not slow"

test: install lint types
	$(BIN)/python -m pytest --numprocesses 2 --dist worksteal

crash-test: install
	$(BIN)/python -m tests.training.crash

clean:
	rm -rf $(VENV) runs
