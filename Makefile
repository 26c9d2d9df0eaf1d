# Requirements: Python 3.11 or later, and make. Each target creates the environment that it needs.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
LINT := .venv-lint
VLLM := .venv-vllm
DEMO := out/demo

# Two threads per process: more are slower for a model of a million parameters.
export OMP_NUM_THREADS ?= 2
export TOKENIZERS_PARALLELISM := false

.DEFAULT_GOAL := help
.PHONY: help demo test test-browser test-fast test-vllm lint format generate locks clean

help:  ## show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## (.*)/\1|\2/' | awk -F'|' '{ printf "  make %-12s %s\n", $$1, $$2 }'

$(VENV)/installed: pyproject.toml
	$(PYTHON) -c 'import sys; sys.exit(0 if sys.version_info >= (3, 11) else "Python 3.11 or later is required; select one with: make PYTHON=python3.11 ...")'
	$(PYTHON) -m venv $(VENV)
	@echo "installing into $(VENV): about 7 GB, a few minutes the first time"
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev]'
	touch $@

$(LINT)/installed: pyproject.toml
	$(PYTHON) -m venv $(LINT)
	$(PYTHON) -c 'import tomllib; print(*tomllib.load(open("pyproject.toml", "rb"))["project"]["optional-dependencies"]["lint"], sep="\n")' > $(LINT)/requirements.txt
	$(LINT)/bin/python -m pip install --quiet --disable-pip-version-check -r $(LINT)/requirements.txt
	touch $@

demo: $(VENV)/installed  ## run the whole pipeline on a synthetic dataset: about 3 minutes
	$(BIN)/rarft make-dataset --out $(DEMO)/dataset --train 128 --eval 60
	$(BIN)/rarft run --preset tiny --annotations $(DEMO)/dataset/train.json --eval-annotations $(DEMO)/dataset/eval.json --out $(DEMO) -p compare=tiny-truthful -- --resume_from_checkpoint none

test: $(VENV)/installed  ## run all tests except the long ones: about 12 minutes on 2 cores
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 3 --dist loadfile --no-loadscope-reorder

test-browser: $(VENV)/installed  ## open every page in Chromium, if it is installed: about 2 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -m browser tests/browser

test-fast: $(VENV)/installed  ## run the unit tests, which train nothing and start no servers: about 2 minutes
	OMP_NUM_THREADS=1 $(BIN)/python -m pytest -n 2 --dist loadfile tests/unit

# vLLM for CPUs next to the packages of the other tests, whose torch it accepts.
$(VLLM)/installed: $(VENV)/installed tests/vllm_engine/requirements.txt
	$(BIN)/python -m venv $(VLLM)
	$(BIN)/python -c 'import sysconfig; print("import site; site.addsitedir(%r)" % sysconfig.get_path("purelib"))' > $(VLLM)/dev.pth
	mv $(VLLM)/dev.pth "$$($(VLLM)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')"
	$(VLLM)/bin/python -m pip install --quiet --disable-pip-version-check --no-deps -r tests/vllm_engine/requirements.txt
	touch $@

test-vllm: $(VLLM)/installed  ## run the tests with a real vLLM engine on a CPU: about 10 minutes
	OMP_NUM_THREADS=1 $(VLLM)/bin/python -m pytest -m vllm tests/vllm_engine

lint: $(LINT)/installed  ## check style and types in a small environment
	$(LINT)/bin/ruff check .
	$(LINT)/bin/ruff format --check .
	$(LINT)/bin/mypy

format: $(LINT)/installed  ## fix style
	$(LINT)/bin/ruff check --fix .
	$(LINT)/bin/ruff format .

generate: $(VENV)/installed  ## regenerate docs/checks.md, pipelines/rarft.yaml and k8s/
	$(BIN)/python -m rarft.annotations.findings > $(VENV)/checks.md && mv $(VENV)/checks.md docs/checks.md
	$(BIN)/rarft compile --out pipelines/rarft.yaml
	$(BIN)/python -m rarft.cluster.manifests

# Images install the versions that the tests ran with, resolved for the Python of each image.
LOCK = $(BIN)/python -m uv pip compile pyproject.toml --quiet --no-header --no-annotate \
	--python-platform x86_64-manylinux_2_28
CUDA = $(shell $(BIN)/python -m pip freeze --exclude-editable | grep -oE '^(nvidia|cuda)[-a-z0-9]*|^triton')
locks: $(VENV)/installed  ## pin the packages of the images, after a change of pyproject.toml
	$(BIN)/python -m pip install --quiet uv
	$(BIN)/python -m pip freeze --exclude-editable > $(VENV)/tested.txt
	$(LOCK) -c $(VENV)/tested.txt --python-version 3.11 --extra pipeline -o docker/locks/validate.txt
	$(LOCK) -c $(VENV)/tested.txt --python-version 3.11 --extra all $(CUDA:%=--no-emit-package %) -o docker/locks/steps.txt
	$(LOCK) -c $(VENV)/tested.txt --python-version 3.12 --extra all -o docker/locks/train.txt
	$(LOCK) --python-version 3.12 --extra vllm -o docker/locks/vllm.txt

clean:  ## remove environments and outputs
	rm -rf $(VENV) $(LINT) $(VLLM) out
