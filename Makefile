# make demo   the main job on a simulated study, from nothing to a table of scores and a page
# make test   all tests that need neither network nor GPU
# make check  formatting, linting, types and tests: what must pass before a commit
# make docs   the documentation, as pages that open offline: site/index.html
# make release  wheel and source archive in dist/, looked into, and the wheel run in an environment of its own
# make clean  removes what these made, but for .venv: demo/, site/, dist/, build/

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
DEMO ?= demo
INSTALLED := $(VENV)/.installed

.PHONY: demo test check lint format docs release clean

demo: $(INSTALLED)
	@echo "1/4  A simulated study: genes, expression in six tissues, and the truth about them"
	$(BIN)/embedcache prepare simulate --n-genes 400 --output $(DEMO)/dataset
	@echo; echo "2/4  Each encoder runs once over every distinct sequence (small encoders of the package)"
	$(BIN)/embedcache build --modality dna --dataset $(DEMO)/dataset --cache $(DEMO)/cache
	$(BIN)/embedcache build --modality rna --dataset $(DEMO)/dataset --cache $(DEMO)/cache
	$(BIN)/embedcache build --modality protein --dataset $(DEMO)/dataset --cache $(DEMO)/cache
	$(BIN)/embedcache info --dataset $(DEMO)/dataset --cache $(DEMO)/cache
	@echo; echo "3/4  70 heads from that cache: seven sets of modalities, two seeds, five folds by gene"
	$(BIN)/heads sweep grids/demo.toml --dataset $(DEMO)/dataset --cache $(DEMO)/cache --output $(DEMO)/sweep
	@echo; echo "4/4  The same as a page that opens offline"
	$(BIN)/heads report $(DEMO)/sweep --output $(DEMO)/report.html
	@echo "Open $(DEMO)/report.html in a browser. Again, \`make demo\` computes nothing anew; \`make clean\` removes it."

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
	NO_MKDOCS_2_WARNING=1 $(BIN)/mkdocs build --strict

release: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[release]'
	$(BIN)/python scripts/release.py

clean:
	rm -rf $(DEMO) site dist build

$(INSTALLED): pyproject.toml
	@echo "Installing into $(VENV), once; this is silent, and takes minutes because PyTorch is a large download"
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable '.[dev]'
	touch $@

$(VENV)/.docs: $(INSTALLED)
	$(BIN)/python -m pip install --quiet --editable '.[docs]'
	touch $@
