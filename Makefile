# make demo   sets everything up and runs the main job to its result
# make test   sets everything up and runs all tests
# make browser   installs JupyterLab, Chromium and tmux for the tests that look at notebooks and terminals
# make clusters   starts a Slurm and a Grid Engine for the tests that want one
PYTHON ?= python3
VENV ?= .venv
BIN = $(VENV)/bin

.PHONY: demo test lint bench browser docs guide pictures clusters clusters-stop clean

demo: $(VENV)/.demo
	$(BIN)/paraschut demo

# The tests of clusters mostly wait, so they run beside the others, with what makes both take as long. Where Python is told
# to write no byte code, each of thousands of processes would compile the package anew.
BESIDE = tests/clusters tests/docs tests/fakes

test: $(VENV)/.test
	$(BIN)/python -m compileall -q paraschut
	@mkdir -p build
	@$(BIN)/python -m pytest $(BESIDE) > build/beside.log 2>&1 & beside=$$!; \
	$(BIN)/python -m pytest $(addprefix --ignore=,$(BESIDE)); rest=$$?; \
	wait $$beside; ended=$$?; cat build/beside.log; exit $$((rest | ended))

lint: $(VENV)/.test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# Peers that can be had are measured in the same run; without a network, they are left out with a word.
bench: $(VENV)/.demo
	-@test -d $(VENV)/peers || { $(BIN)/python -m venv $(VENV)/peers && $(VENV)/peers/bin/python -m pip install \
	  --quiet --disable-pip-version-check psij-python joblib huey executorlib submitit "dask[distributed]" parsl; } || rm -rf $(VENV)/peers
	$(BIN)/python -m compileall -q paraschut
	$(BIN)/python -m bench

# What the README, the docstrings and the notebook show is executed.
docs: $(VENV)/.test
	$(BIN)/python -m pytest tests/docs

# Debian's Chromium and tmux, if there are none, and what drives the browser; needs root for that.
browser: $(VENV)/.test
	command -v chromium chromium-browser google-chrome || { apt-get update -qq && apt-get install -qq -y --no-install-recommends chromium fonts-dejavu-core; }
	command -v tmux || { apt-get update -qq && apt-get install -qq -y --no-install-recommends tmux; }
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[browser]"

# The guide as a site, in build/guide.
guide: $(VENV)/.test
	$(BIN)/python -m pip install --quiet --disable-pip-version-check -e ".[docs]"
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --quiet --strict

# The pictures of the dashboard, taken anew while the example runs in JupyterLab.
pictures: browser
	DOCS_PICTURES=$(CURDIR)/docs/pictures $(BIN)/python -m pytest tests/browser/test_example.py

# A real Slurm and a real Grid Engine on this machine, from Debian's packages; needs root.
clusters:
	PARASCHUT_SLURM_ACCOUNTING=1 $(PYTHON) tests/clusters/slurm.py install
	$(PYTHON) tests/clusters/sge.py install
	PYTHONPATH=tests/clusters $(PYTHON) -c 'import machine; machine.install("task-spooler")'
	$(PYTHON) tests/clusters/slurm.py start
	$(PYTHON) tests/clusters/sge.py start
	@echo 'Now make test tries both. To use one yourself, type'
	@echo '  eval "$$($(PYTHON) tests/clusters/slurm.py env)"; sinfo'
	@echo '  eval "$$($(PYTHON) tests/clusters/sge.py env)"; qhost'
	@echo 'and to end them, make clusters-stop.'

clusters-stop:
	$(PYTHON) tests/clusters/slurm.py stop
	$(PYTHON) tests/clusters/sge.py stop

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
