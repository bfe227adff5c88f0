.DEFAULT_GOAL := help
PYTHON ?= python3
VENV := .venv
STAMP := $(VENV)/.installed
LOCKS := requirements/local.txt requirements/dev.txt
VERSION := $(shell sed -n 's/^version = "\(.*\)"/\1/p' pyproject.toml)
IMAGES := $(basename $(notdir $(wildcard docker/*.Dockerfile)))
DOCKER_BUILD :=
PYTEST := $(VENV)/bin/python -m pytest --numprocesses logical --maxprocesses 4 --dist loadgroup

help:  ## this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 14

setup: $(STAMP)  ## make .venv from the locked requirements and put paper2hub in it

# Every package is pinned and hashed, so pip has nothing to resolve; the stamp is made last, so an
# installation that was cut short is begun again.
$(STAMP): $(LOCKS) pyproject.toml
	$(PYTHON) -m venv --clear $(VENV)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps \
		--require-hashes $(LOCKS:%=-r %)
	$(VENV)/bin/pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## run the main job: 5,000 real digits to an exported autoencoder
	$(VENV)/bin/paper2hub run autoencoder

test: setup  ## all tests but the slow ones and those that need Docker
	$(PYTEST) -m "not slow and not docker"

test-slow: setup  ## the tests that take minutes, on fetched data; none begins after TESTS_UNTIL
	$(PYTEST) -p tests.deadline -m slow

lint: setup  ## format, lint and types
	$(VENV)/bin/ruff format --check .
	$(VENV)/bin/ruff check .
	$(VENV)/bin/mypy

# checkov wants other versions of what we stand on, so it has an environment of its own.
lint-infra:  ## checkov over Terraform, workflows and Dockerfiles; Terraform's format where it is installed
	if command -v terraform >/dev/null; then terraform -chdir=infra fmt -check -recursive; fi
	test -e build/checkov/.installed || { $(PYTHON) -m venv --clear build/checkov && \
		build/checkov/bin/pip install --quiet --disable-pip-version-check --no-deps \
			--require-hashes --requirement infra/requirements.txt && touch build/checkov/.installed; }
	build/checkov/bin/checkov --config-file infra/checkov.yaml

compile: setup  ## every pipeline for every target, into build/pipelines
	for target in local kubeflow vertex; do \
		$(VENV)/bin/paper2hub compile --all --target $$target -o build/pipelines/$$target || exit 1; done

bench-local: setup  ## the local runner beside kfp.local, and what it must hold, in one run
	$(VENV)/bin/python -m tests.bench.local

bench-data: setup  ## records, preprocessing and training input beside their peers and bounds, in one run
	$(VENV)/bin/python -m tests.bench.data

bench-train: setup  ## training beside bare loops and Keras's own, in one run
	$(VENV)/bin/python -m tests.bench.train

bench: setup  ## our speed beside its peers', in one run
	$(VENV)/bin/python -m tests.bench.training
	$(VENV)/bin/python -m tests.bench.grouped_shapes

images:  ## build the container images with Docker; DOCKER_BUILD holds further arguments
	for image in $(IMAGES); do \
		docker build $(DOCKER_BUILD) --file docker/$$image.Dockerfile --build-arg VERSION=$(VERSION) \
			--tag paper2hub/$$image:$(VERSION) --tag paper2hub/$$image . || exit 1; done

test-docker: setup  ## the tests that need a Docker daemon and the images
	$(VENV)/bin/python -m pytest -m docker

image-gpu:  ## build paper2hub/trainer-gpu: the trainer with the libraries of CUDA
	docker build $(DOCKER_BUILD) --file docker/trainer.Dockerfile --build-arg VERSION=$(VERSION) \
		--build-arg REQUIREMENTS=trainer-gpu \
		--tag paper2hub/trainer-gpu:$(VERSION) --tag paper2hub/trainer-gpu .

readme: setup  ## write the generated parts of README.md
	$(VENV)/bin/python -m tests.readme

clean:  ## remove everything that is made
	rm -rf $(VENV) build *.egg-info

.PHONY: help setup demo test test-slow lint compile bench bench-data bench-local bench-train images image-gpu test-docker readme clean
