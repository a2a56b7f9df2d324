# Everything runs in .venv, which the first target makes; `make help` lists the targets.

VENV := .venv
# TensorFlow's build: cpu, gpu or tpu.
BUILD ?= cpu
# Any Python from 3.11 on that can make an environment.
PYTHON ?= $(shell for python in python3.11 python3.12 python3.13 python3; do \
	"$$python" -c 'import ensurepip, sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
	&& echo "$$python" && break; done)
RUN ?= runs/digits_symmetric
TRAIN_FLAGS ?= --preset=digits_symmetric
TEST_FLAGS ?=
# One worker a core, two at most: each holds a TensorFlow of its own.
TEST_WORKERS ?= 2
# In their order: the files of few, long tests would come last otherwise.
BY_FILE := --dist=loadfile --no-loadscope-reorder

SOURCES := neural_alignment scripts benchmarks tests setup.py
READY := $(VENV)/ready-$(BUILD)
# What training takes, without the tests' tools.
TRAINS := $(VENV)/trains-$(BUILD)
# pyspark, for the tests of searches on Spark; they need Java too, and say so.
SPARK := $(VENV)/ready-spark
VENV219 := .venv-tf219
READY219 := $(VENV219)/ready

export TF_CPP_MIN_LOG_LEVEL ?= 3
export PIP_DISABLE_PIP_VERSION_CHECK ?= 1

.DELETE_ON_ERROR:
.DEFAULT_GOAL := help
.PHONY: help setup train test test-slow test-tf219 test-jax test-torch coverage docs site \
	notebooks lint format wheel clean

help:  ## lists the targets
	@sed -n 's/^\([a-z0-9-]*\):.*## /\1\t/p' $(MAKEFILE_LIST) | expand -t 12

setup: $(READY)  ## makes .venv and installs the package into it

train: $(TRAINS)  ## the main job: trains on the digits with a learned backward path
	$(VENV)/bin/python scripts/train.py --workdir=$(RUN) $(TRAIN_FLAGS)

test: $(READY)  ## the tests
	$(VENV)/bin/python -m pytest -q -n $(TEST_WORKERS) $(BY_FILE) $(TEST_FLAGS)

test-slow: $(READY) $(SPARK)  ## the tests that take minutes
	$(VENV)/bin/python -m pytest -q -n $(TEST_WORKERS) $(BY_FILE) -m slow $(TEST_FLAGS)

test-tf219: $(READY219)  ## the tests on TensorFlow 2.19.1, Keras 3.8 and NumPy 1.26
	$(VENV219)/bin/python -m pytest -q -n $(TEST_WORKERS) $(BY_FILE) $(TEST_FLAGS)

test-jax: $(READY)  ## the tests of every back end, on JAX
	KERAS_BACKEND=jax $(VENV)/bin/python -m pytest -q -n $(TEST_WORKERS) $(BY_FILE) -m backend $(TEST_FLAGS)

test-torch: $(READY)  ## the tests of every back end, on PyTorch
	$(VENV)/bin/python -m pip install --quiet --editable ".[$(BUILD),dev,torch]"
	KERAS_BACKEND=torch $(VENV)/bin/python -m pytest -q -n $(TEST_WORKERS) $(BY_FILE) -m backend $(TEST_FLAGS)

coverage: $(READY)  ## the tests, and which lines of the package they run
	$(VENV)/bin/coverage erase
	$(VENV)/bin/coverage run -m pytest -q $(TEST_FLAGS)
	$(VENV)/bin/coverage combine --quiet
	$(VENV)/bin/coverage report

docs: $(READY)  ## writes the tables of README and docs that repeat what the code says
	$(VENV)/bin/python scripts/make_docs.py

site: $(READY)  ## builds the site; a broken link or an undocumented name fails
	$(VENV)/bin/python -m pip install --quiet --editable ".[$(BUILD),dev,docs]"
	$(VENV)/bin/mkdocs build --strict

notebooks: $(READY)  ## runs the notebooks, and keeps what they show
	$(VENV)/bin/python scripts/run_notebooks.py notebooks/*.ipynb

lint: $(READY)  ## ruff: rules and format; mypy: types
	$(VENV)/bin/ruff check $(wildcard $(SOURCES))
	$(VENV)/bin/ruff format --check $(wildcard $(SOURCES))
	$(VENV)/bin/mypy

format: $(READY)  ## ruff: mends what it can
	$(VENV)/bin/ruff check --fix $(wildcard $(SOURCES))
	$(VENV)/bin/ruff format $(wildcard $(SOURCES))

wheel:  ## builds the wheel, and uses it alone in empty environments
	PYTHON="$(PYTHON)" .ci/wheel

clean:  ## removes the environments and caches; runs stay
	rm -rf $(VENV) $(VENV219) build dist site *.egg-info .coverage* .pytest_cache .ruff_cache .mypy_cache
	find $(wildcard $(SOURCES)) -name __pycache__ -prune -exec rm -rf {} +

# A stamp inside the environment: set-up runs again only when what it installs changes.
$(READY): pyproject.toml setup.py
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv was found:" \
	"install one (python3.11 and python3.11-venv), or make PYTHON=/path/to/python." >&2; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[$(BUILD),dev,jax]"
	@touch $@ $(TRAINS)

$(TRAINS): pyproject.toml setup.py
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv was found:" \
	"install one (python3.11 and python3.11-venv), or make PYTHON=/path/to/python." >&2; exit 1; }
	test -x $(VENV)/bin/python || $(PYTHON) -m venv $(VENV)
	$(VENV)/bin/python -m pip install --quiet --editable ".[$(BUILD),train]"
	@touch $@

$(SPARK): $(READY)
	$(VENV)/bin/python -m pip install --quiet --editable ".[$(BUILD),dev,spark]" && touch $@ || \
	echo "pyspark cannot be installed: the tests of searches on Spark are skipped" >&2

$(READY219): pyproject.toml setup.py
	@test -n "$(PYTHON)" || { echo "No Python 3.11 or newer with venv was found." >&2; exit 1; }
	test -x $(VENV219)/bin/python || $(PYTHON) -m venv $(VENV219)
	$(VENV219)/bin/python -m pip install --quiet --editable ".[dev]" \
		tensorflow-cpu==2.19.1 keras==3.8.0 numpy==1.26.4
	@touch $@
