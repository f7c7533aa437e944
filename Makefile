# Every target sets up .venv first, once; nothing outside this folder is touched (but see tools/system.sh).
SHELL := /bin/bash
PYTHON ?= $(shell for p in python3.11 python3.12 python3.13 python3; do \
	$$p -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null && { echo $$p; break; }; done)
BIN := .venv/bin
STAMP := .venv/.installed
WORKERS ?= 3
PYTEST ?= -n $(WORKERS) --dist loadfile
SOAK ?= 720

.PHONY: demo test soak check bench docs lock clean setup help

help: ## list the targets
	@grep -E '^[a-z]+:.*##' Makefile | sed -E 's/:.*## /\t/' | expand -t 10

demo: $(STAMP) ## a simulated town: import, split, encode, fit, evaluate, recommend
	@$(BIN)/isthmus demo

test: $(STAMP) ## all tests; the summary is the last output
	@tools/system.sh 2>&1
	@$(BIN)/pytest $(PYTEST) $(ARGS) 2>&1

soak: $(STAMP) ## the tests of the service and of parsers at full size; hours (SOAK=3600: an hour of mixed traffic)
	@tools/system.sh 2>&1
	@ISTHMUS_SOAK=1 ISTHMUS_SOAK_SECONDS=$(SOAK) $(BIN)/pytest --timeout 7200 $(ARGS) tests/test_service_*.py tests/test_console*.py tests/test_fuzz_parsers.py 2>&1

check: $(STAMP) ## lint, format, types, floors, sizes, generated docs
	@$(BIN)/ruff check src tests tools benchmarks
	@$(BIN)/ruff format --check src tests tools benchmarks
	@$(BIN)/mypy
	@$(BIN)/lint-imports --no-cache --no-logo
	@$(BIN)/python -m tools.sizes
	@$(BIN)/python -m tools.docs --check

bench: $(STAMP) ## every benchmark, one JSON object each
	@for file in benchmarks/bench_*.py; do echo "# $$file"; $(BIN)/python $$file || exit 1; done

docs: $(STAMP) ## write docs/cli.md and docs/api.md from the code
	@$(BIN)/python -m tools.docs

lock: ## write requirements.lock and requirements.hashes for what is installed in .venv (needs uv)
	@$(BIN)/python -m tools.lock
	@$(BIN)/python -m tools.hashes

clean: ## remove what the targets made, .venv included
	rm -rf .venv build dist site out demo-town .mypy_cache .ruff_cache .hypothesis .import_linter_cache
	find . -name __pycache__ -prune -exec rm -rf {} +

setup: $(STAMP) ## only set up .venv

$(STAMP): requirements.lock pyproject.toml
	@test -n "$(PYTHON)" || { echo "Python 3.11 or later is needed (set PYTHON=...)" >&2; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv .venv
	@echo "setting up .venv (once; a few minutes)" >&2
	@$(BIN)/python -m pip install -qq --disable-pip-version-check -r requirements.lock
	@$(BIN)/python -m pip install -qq --disable-pip-version-check --no-deps -e .
	@touch $(STAMP)
