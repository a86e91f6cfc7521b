# The Pythons that constraints.txt is for; setup.cfg names them, too, and a test compares the two.
PYTHONS := 3.11 3.12 3.13
IS_TESTED = import sys; sys.exit("%d.%d" % sys.version_info[:2] not in "$(PYTHONS)".split())
# The first of them on this machine, python3 before all.
PYTHON ?= $(or $(firstword $(foreach python,python3 $(PYTHONS:%=python%),$(shell \
	$(python) -c '$(IS_TESTED)' 2>/dev/null && echo $(python)))),python3)

VENV := .venv
BIN := $(VENV)/bin
UV := .venv-uv/bin/uv

# $(call checked,PYTHON): end with a sentence unless it is a tested one.
define checked
	@$(1) -c '$(IS_TESTED)' || { echo "kaggle-nerve is tested on Python $(PYTHONS); $(1) is none of them" \
		"($$($(1) --version 2>&1)): install one, run \`make clean\`, and name it, as in" \
		"\`make PYTHON=/usr/bin/python3.13 demo\`." >&2; exit 1; }
endef

# $(call venv,FOLDER): an environment on a tested Python.
define venv
	$(call checked,$(PYTHON))
	$(PYTHON) -m venv $(1)
endef

# $(call install,BIN,WHAT[,CONSTRAINTS]): without build isolation, since that takes the newest setuptools.
define install
	$(call checked,$(1)/python)
	$(1)/python -m pip install --quiet $(3:%=--constraint %) 'setuptools>=77'
	$(1)/python -m pip install --quiet $(3:%=--constraint %) --no-build-isolation --editable '$(2)'
endef

# Tests of networks and losses, which run on Keras's other backend, too.
NETWORKS := $(addprefix tests/test_,architectures.py encoders.py layers.py normalisation.py forward.py losses.py lite.py \
	conditional.py device.py)

# $(call suite,BIN): every test that a change should pass, on both backends.
define suite
	$(1)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder
	KERAS_BACKEND=jax $(1)/python -m pytest -n 2 -m 'not large and not long and not one_backend' $(NETWORKS)
endef

# $(call long,BIN): the tests that take longer.
define long
	$(1)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder -m long
	KERAS_BACKEND=jax $(1)/python -m pytest -n 2 -m 'one_backend and not large and not long' $(NETWORKS)
endef

.PHONY: demo test test-long test-newest test-oldest constraints docs kernels-test install clean

# The whole job on the embedded rehearsal: no account, no data needed.
demo: $(VENV)/.installed
	$(BIN)/kaggle-nerve rehearse

# Lint, types, import contracts, generated files up to date, tests.
test: $(VENV)/.installed-test
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/basedpyright --pythonpath $(BIN)/python
	$(BIN)/lint-imports
	$(call suite,$(BIN))

# The tests that are too long to run after every change: networks that learn frames by heart, killed trainings,
# notebooks.
test-long: $(VENV)/.installed-test
	$(call long,$(BIN))

# The tests with the newest packages that setup.cfg allows, and with the oldest. The first lines name those that
# constraints.txt has in another version.
test-newest:
	rm -rf .venv-newest
	$(call venv,.venv-newest)
	$(call install,.venv-newest/bin,.[test])
	.venv-newest/bin/python tests/packages.py
	$(call suite,.venv-newest/bin)
	$(call long,.venv-newest/bin)

test-oldest: $(UV)
	rm -rf .venv-oldest
	$(call venv,.venv-oldest)
	$(UV) pip compile --quiet --resolution lowest-direct --python .venv-oldest --extra test \
		--output-file .venv-oldest/constraints.txt setup.cfg
	$(call install,.venv-oldest/bin,.[test],.venv-oldest/constraints.txt)
	.venv-oldest/bin/python tests/packages.py
	$(call suite,.venv-oldest/bin)
	$(call long,.venv-oldest/bin)

# What `make demo` and `make test` install: today's newest of all packages that setup.cfg allows, the same on each of
# PYTHONS. And what `make kernels-test` installs, by kernels/image.txt.
PIN = $(UV) pip compile --quiet --upgrade --python-version $(firstword $(PYTHONS)) --no-annotate --no-header
constraints: $(UV)
	{ echo '# Made by `make constraints`, for Python $(PYTHONS).'; \
		echo 'setuptools>=77' | $(PIN) --universal --fork-strategy fewest --extra test --extra pretrained setup.cfg -; } > .venv-uv/constraints
	{ echo '# Made by `make constraints`.'; $(PIN) kernels/image.txt; } > .venv-uv/kernels
	mv .venv-uv/constraints constraints.txt
	mv .venv-uv/kernels kernels/constraints.txt

# Generated files: the command reference, Kaggle's notebooks.
docs: $(VENV)/.installed-test
	$(BIN)/python -m pytest tests/test_docs.py tests/test_kernels.py --regenerate

# The notebooks once more, with the packages of Kaggle's image.
kernels-test: $(VENV)/.installed-test .venv-kaggle/.installed
	$(BIN)/python -m pytest tests/test_notebooks.py -m "large or not large" --kernel-python .venv-kaggle/bin/python

.venv-kaggle/.installed: kernels/constraints.txt kernels/image.txt
	$(call venv,.venv-kaggle)
	.venv-kaggle/bin/python -m pip install --quiet --constraint kernels/constraints.txt --requirement kernels/image.txt
	touch $@

install: $(VENV)/.installed

$(VENV)/bin/python:
	$(call venv,$(VENV))

$(UV):
	$(call venv,.venv-uv)
	.venv-uv/bin/python -m pip install --quiet uv

$(VENV)/.installed: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install,$(BIN),.,constraints.txt)
	touch $@

$(VENV)/.installed-test: setup.cfg pyproject.toml constraints.txt | $(VENV)/bin/python
	$(call install,$(BIN),.[test],constraints.txt)
	touch $@ $(VENV)/.installed

clean:
	rm -rf .venv .venv-* build dist *.egg-info rehearsal
