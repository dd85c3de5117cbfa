# `make help` lists the targets. Each one first makes .venv from requirements.lock if it must.
PYTHON ?= python3
CORES ?= 2
TRIALS ?= tests
FACES ?= data/raw/celeba
# The shell's own settings must not leak into the environment that is being made.
VENV := .venv
BIN := $(VENV)/bin
export PATH := $(CURDIR)/$(BIN):$(PATH)

.PHONY: help setup data toy all test trials lint format bench lock clean
.DEFAULT_GOAL := help

help: ## this list
	@awk -F ':.*## ' '/^[a-z]+:.*## /{printf "  make %-8s %s\n", $$1, $$2}' $(MAKEFILE_LIST)

setup: $(VENV)/installed ## the environment in .venv, exactly as locked

$(VENV)/installed: requirements.lock pyproject.toml
	@command -v $(PYTHON) >/dev/null || { \
	  echo "there is no $(PYTHON): write 'make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)'"; exit 1; }
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "$(PYTHON) is older than Python 3.11: write 'make PYTHON=/path/to/python3.11 $(MAKECMDGOALS)'"; exit 1; }
	@# One that was interrupted has Python and neither uv nor pip, and is made again.
	@test -x $(BIN)/python -a -x $(BIN)/uv || $(BIN)/python -m pip --version >/dev/null 2>&1 || \
	  $(PYTHON) -m venv --clear $(VENV) || { rm -rf $(VENV); \
	  echo "$(PYTHON) cannot make a virtual environment: install its venv package (Debian: apt install python3-venv)"; exit 1; }
	@test -x $(BIN)/uv || $(BIN)/python -m pip install --quiet --disable-pip-version-check "$$(sed -n 's/^\(uv==[^ ]*\).*/\1/p' requirements.lock)"
	$(BIN)/uv pip sync --quiet --python $(BIN)/python --compile-bytecode --require-hashes requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --editable .
	@touch $@

data: setup ## every data set of the paper, fetched, prepared and looked at
	snakemake --cores $(CORES) data

toy: setup ## all four figures, metrics and the report on small stand-ins (minutes)
	snakemake --cores $(CORES) toy
	@echo "Look at results/toy/report.html"

all: setup ## every figure of the paper (needs the data sets and a GPU)
	snakemake --cores $(CORES) all

test: setup ## unit tests, then the toy branch in a temporary clone
	pytest -m "not engines"

trials: setup ## Snakemake and DVC tried against each other, DVC's remotes, Slurm (an hour; TRIALS=one file)
	pytest -m engines $(TRIALS)

lint: setup ## ruff, snakefmt, snakemake --lint, dvc.yaml in step with the DAG
	ruff check .
	ruff format --check .
	snakefmt --check Snakefile workflow
	snakemake --lint
	python workflow/engines.py check

bench: setup ## speed and memory beside a plain loop, cost of sharing (FACES=a folder with CelebA's files)
	python benchmarks/preparation.py $(FACES)
	python benchmarks/preparation.py $(FACES) --memory
	python benchmarks/training.py
	python benchmarks/images.py
	python benchmarks/sharing.py
	python benchmarks/scale.py
	python benchmarks/determinism.py
	python workflow/publish.py tables

format: setup ## rewrite the sources in the house's format
	ruff check --fix .
	ruff format .
	snakefmt Snakefile workflow

lock: setup ## pin the newest versions that pyproject.toml allows
	uv pip compile --quiet --upgrade --universal --generate-hashes --all-extras pyproject.toml --output-file requirements.lock

clean: ## remove results and prepared data, keep downloads and the environment
	rm -rf results data/prepared .snakemake
