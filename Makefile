PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin

# Tests of networks and losses, which run on Keras's other backend, too.
NETWORKS := $(addprefix tests/test_,architectures.py encoders.py layers.py normalisation.py forward.py losses.py)

.PHONY: demo test install docs kernels-test clean

# The whole job on the embedded rehearsal: no account, no data needed.
demo: $(VENV)/.installed
	$(BIN)/kaggle-nerve rehearse

# Lint, import contracts, generated files up to date, tests.
test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/lint-imports
	$(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	KERAS_BACKEND=jax $(BIN)/python -m pytest -n 2 --dist loadfile -m 'not large and not one_backend' $(NETWORKS)

# Generated files: the command reference, Kaggle's notebooks.
docs: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/test_docs.py tests/test_kernels.py --regenerate

# The notebooks once more, with the packages of Kaggle's image.
kernels-test: $(VENV)/.installed-test .venv-kaggle/.installed
	$(BIN)/python -m pytest tests/test_notebooks.py -m "large or not large" --kernel-python .venv-kaggle/bin/python

.venv-kaggle/.installed: kernels/constraints.txt
	$(PYTHON) -m venv .venv-kaggle
	.venv-kaggle/bin/python -m pip install --quiet -c kernels/constraints.txt tensorflow keras numpy pandas \
		opencv-python-headless scikit-learn scipy threadpoolctl tqdm filelock tensorboard matplotlib ipykernel
	touch $@

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
	rm -rf $(VENV) .venv-kaggle build dist *.egg-info rehearsal
