# make demo   the main job on a simulated study, from nothing to a table of scores
# make test   all tests that need neither network nor GPU
# make check  formatting, linting, types and tests: what must pass before a commit
# make docs   the documentation, as pages that open offline: site/index.html

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
INSTALLED := $(VENV)/.installed

.PHONY: demo test check lint format docs clean

demo: $(INSTALLED)
	$(BIN)/embedcache prepare simulate --output $(DEMO)/dataset
	$(BIN)/embedcache build --modality dna --dataset $(DEMO)/dataset --cache $(DEMO)/cache
	$(BIN)/embedcache build --modality rna --dataset $(DEMO)/dataset --cache $(DEMO)/cache
	$(BIN)/embedcache build --modality protein --dataset $(DEMO)/dataset --cache $(DEMO)/cache
	$(BIN)/embedcache info --cache $(DEMO)/cache
	$(BIN)/heads train --modalities dna,rna,protein --dataset $(DEMO)/dataset --cache $(DEMO)/cache --run $(DEMO)/runs/three --heads 2 --width 64 --epochs 6
	$(BIN)/heads evaluate --run $(DEMO)/runs/three
	$(BIN)/heads sweep grids/smoke.toml --dataset $(DEMO)/dataset --cache $(DEMO)/cache --output $(DEMO)/runs/smoke

test: $(INSTALLED)
	$(BIN)/python -m pytest

check: lint test

lint: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

docs: $(VENV)/.docs
	$(BIN)/mkdocs build --strict

clean:
	rm -rf $(DEMO) site

$(INSTALLED): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@
