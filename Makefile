# Every target sets up what it needs; the second time that takes a second.
#   make study   the whole laptop study, from nothing to reports/index.html
#   make test    every test that can run on this machine
#   make lint    conflict markers, dead links, ruff, snakefmt, snakemake --lint
#   make report  a report of whatever is finished so far
#   make quick   the smallest study that touches every rule (about two minutes)
#   make docs    the documents as a site, build/docs/index.html
SHELL := /bin/bash
PYTHON ?= python3
BIN := .venv/bin
READY := .venv/ready
STUDY ?= laptop

.PHONY: study quick test lint format report docs setup

study: $(READY)
	@$(BIN)/mdm run --study $(STUDY)

quick: $(READY)
	@$(BIN)/mdm run --study quick

report: $(READY)
	@$(BIN)/mdm report --study $(STUDY)

test: $(READY)
	@tools/test.sh

lint: $(READY)
	@tools/lint.sh

docs: $(READY)
	@tools/docs.sh

format: $(READY)
	$(BIN)/ruff check --fix -q . && $(BIN)/ruff format . && $(BIN)/snakefmt Snakefile workflow

setup: $(READY)

$(READY): requirements.lock pyproject.toml tools/setup.sh
	@PYTHON=$(PYTHON) tools/setup.sh

