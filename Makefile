PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests of networks and losses, which run on Keras's other backend, too.
NETWORKS := $(addprefix tests/test_,architectures.py encoders.py layers.py normalisation.py forward.py losses.py)

.PHONY: demo test install check docs clean

# The whole job on the embedded rehearsal: no account, no data needed.
demo: $(VENV)/.installed
	$(BIN)/kaggle-nerve rehearse

# Lint, import contracts, generated files up to date, tests.
test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist loadfile
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 --dist loadfile $(NETWORKS)

# Generated files: the command reference.
docs: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/test_docs.py --regenerate

install: $(VENV)/.installed

$(VENV)/bin/python:
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "kaggle-nerve needs Python 3.11 or later; this is " + sys.version.split()[0] + ". Name another with: make PYTHON=python3.12 demo")'
	$(PYTHON) -m venv $(VENV)

$(VENV)/.installed: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable .
	touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml | $(VENV)/bin/python
	$(BIN)/python -m pip install --quiet --editable '.[test]'
	touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) build dist *.egg-info rehearsal
