# `make demo` and `make test` make the environment in .venv first; nothing else is needed but Python 3.11 and make.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
DEMO := out/demo

# Two threads a process: more is slower on a model of a million parameters.
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM := false

.PHONY: demo test test-fast lint pipeline manifests locks clean

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or newer is needed; choose one with: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about 7 GB, some minutes the first time"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

demo: $(VENV)/installed  ## the whole pipeline on a synthetic data set
	$(BIN)/rarft make-dataset --out $(DEMO)/sample --train 128 --eval 60
	$(BIN)/rarft run --preset tiny --annotations $(DEMO)/sample/train.json --eval-annotations $(DEMO)/sample/eval.json --out $(DEMO) -p also_evaluate=tiny-truthful -- --resume_from_checkpoint none

test: $(VENV)/installed  ## two files at a time, each with one thread
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile

test-fast: $(VENV)/installed  ## unit tests: nothing is trained and no other process is started
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/unit

lint: $(VENV)/installed
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

pipeline: $(VENV)/installed  ## compile the pipeline after a change
	$(BIN)/rarft compile --out pipelines/rarft.yaml

manifests: $(VENV)/installed  ## render k8s/ after a change
	$(BIN)/python -m rarft.cluster.manifests

# Images install what the tests ran with: versions of .venv, resolved for the image's Python.
LOCK = $(BIN)/python -m uv pip compile pyproject.toml --quiet --no-header --no-annotate \
	--python-platform x86_64-manylinux_2_28
CUDA = $(shell $(BIN)/python -m pip freeze --exclude-editable | grep -oE '^(nvidia|cuda)[-a-z0-9]*|^triton')
locks: $(VENV)/installed  ## pin the images' packages after a change of pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m pip freeze --exclude-editable > $(VENV)/tested.txt
	$(LOCK) -c $(VENV)/tested.txt --python-version 3.11 --extra pipeline -o docker/locks/validate.txt
	$(LOCK) -c $(VENV)/tested.txt --python-version 3.11 --extra all $(CUDA:%=--no-emit-package %) -o docker/locks/steps.txt
	$(LOCK) -c $(VENV)/tested.txt --python-version 3.12 --extra all -o docker/locks/train.txt
	$(LOCK) --python-version 3.12 --extra vllm -o docker/locks/vllm.txt

clean:
	rm -rf $(VENV) out
