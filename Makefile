# Everything here needs python3, pip and make; each target makes its own .venv on first use.
PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin
# Processes that share the files of tests out among them: most tests wait more than they compute.
TESTERS ?= 3
READY := $(VENV)/.ready
SHARED = $(BIN)/python -m pytest -n $(TESTERS) --dist loadfile
# What counts the lines that run: sys.monitoring, from Python 3.12 on, takes 2 % of the processor's
# time in tests that compute; what there is before takes as much as they do.
NEWER = $(BIN)/python -c 'import sys; sys.exit(sys.version_info < (3, 12))'
# The tests start hundreds of processes: each would compile again all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help demo test test-all check cover mutate soak bench pictures generate docs release clean

help: ## show this list
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/'

$(READY): pyproject.toml
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --upgrade pip
	$(BIN)/python -m pip install --quiet --editable ".[speed,arrow]" --group dev
	@touch $(READY)

demo: $(READY) ## a server, producers and a live view of all four streams
	$(BIN)/streamkit demo

test: $(READY) ## the tests; from Python 3.12 on also how much of the code they run, with a floor
	if $(NEWER); then COVERAGE_CORE=sysmon $(SHARED) --cov --cov-report=; else $(SHARED); fi

test-all: $(READY) ## the tests on every Python from 3.11 that this machine has
	$(BIN)/python scripts/test_all.py

check: $(READY) ## the linters
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

cover: $(READY) ## which lines the tests do not run, with a floor; TESTS=tests/codec: a part, without
	if $(NEWER); then export COVERAGE_CORE=sysmon; fi; \
	$(SHARED) --cov --cov-report=term-missing:skip-covered $(if $(TESTS),--cov-fail-under=0 $(TESTS))

mutate: $(READY) ## small mistakes put into the code: how many do the tests notice? (Python 3.12 or later)
	$(BIN)/python -m pip install --quiet --group proof
	$(BIN)/python scripts/mutate.py map -q
	$(BIN)/python scripts/mutate.py run
	$(BIN)/python scripts/mutate.py show

soak: $(READY) ## the long proofs
	$(BIN)/python -m pip install --quiet --group soak
	$(BIN)/python -m pytest -m soak --timeout=3600 -s

bench: $(READY) ## side by side with the peers, one table
	$(BIN)/python -m pip install --quiet --group bench
	$(BIN)/python -m bench

pictures: $(READY) ## docs/pictures: the demo on a terminal, and the page as Chromium shows it
	$(BIN)/python scripts/filming.py
	$(BIN)/python scripts/pictures.py

generate: $(READY) ## schema -> messages, the asynchronous client -> blocking, the program -> docs/reference
	$(BIN)/python scripts/generate.py
	$(BIN)/python scripts/blocking.py
	$(BIN)/python scripts/reference.py

docs: $(READY) ## docs/ as a site in site/
	$(BIN)/zensical build --clean --strict

release: $(READY) ## VERSION=0.2.0: changelog, tag, sdist and wheel, checked; nothing is uploaded
	$(BIN)/python scripts/release.py $(VERSION)

clean: ## remove what the targets made
	rm -rf $(VENV) .venvs .pytest_cache .mypy_cache .ruff_cache .cache site
