# Two lines are the quick start: `make demo` and `make test`. Both set everything up by themselves in .venv.
VENV ?= .venv
PYTHON ?= python3
BIN := $(VENV)/bin
STAMP := $(VENV)/.set-up

.PHONY: help setup demo test test-slow lint format types imports clean

help:
	@echo "make demo       what a shape prior does to a face, as a report (runs/demo/report.html)"
	@echo "make test       the test suite"
	@echo "make test-slow  the tests that take longer than 20 seconds"
	@echo "make lint types imports   style, types, and which part may import which"
	@echo "make setup      only the set-up that all of them begin with"

setup: $(STAMP)

$(STAMP): pyproject.toml constraints.txt .ci/setup
	@sh .ci/setup $(VENV) $(PYTHON)
	@touch $@

demo: setup
	$(BIN)/priorzoo ablate heads/eg3d_ssr_table1 --out runs/demo

test: setup
	$(BIN)/python -m pytest

test-slow: setup
	$(BIN)/python -m pytest -m slow

lint: setup
	$(BIN)/ruff check .

format: setup
	$(BIN)/ruff format .

# The folder is the package whatever it is called, so checkers get a link of the right name.
types: setup .typing/priorzoo
	$(BIN)/mypy

imports: setup .typing/priorzoo
	PYTHONPATH=.typing $(BIN)/lint-imports

.typing/priorzoo:
	@mkdir -p .typing && ln -sfn .. .typing/priorzoo

clean:
	rm -rf $(VENV) .typing build dist *.egg-info .pytest_cache .mypy_cache .ruff_cache .import_linter_cache
