# make demo   sets everything up and runs the main job to its result
# make test   sets everything up and runs all tests
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint bench docs clusters clean

demo: $(VENV)/.demo
	$(BIN)/paraschut demo

test: $(VENV)/.test
	$(BIN)/python -m pytest

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Peers that can be had are measured in the same run; without a network, they are left out with a word.
bench: $(VENV)/.demo
	-@test -d $(VENV)/peers || { $(BIN)/python -m venv $(VENV)/peers && $(VENV)/peers/bin/python -m pip install \
	  --quiet --disable-pip-version-check psij-python; } || rm -rf $(VENV)/peers
	$(BIN)/python -m bench

# What the README, the docstrings and the notebook show is executed.
docs: $(VENV)/.test
	$(BIN)/python -m pytest tests/docs

clusters:
	@echo "Nothing to start: this version runs jobs on the local machine, which needs no scheduler."

clean:
	rm -rf $(VENV) .pytest_cache .mypy_cache .ruff_cache .hypothesis build dist

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11) and "paraschut needs Python 3.11 or newer; name one: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.demo: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[demo]"
	@touch $@

$(VENV)/.test: pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[test]"
	@touch $@
