# Every target sets up what it needs by itself, from a machine with make and a Python of 3.11 or later, and nothing is installed
# outside .venv. `make PYTHON=/path/to/python3.12 install` chooses the Python.

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:
SHELL := /bin/sh

VENV := .venv
BIN := $(VENV)/bin
STAMPS := $(VENV)/stamps

# The first of these that is new enough; empty where there is none.
PYTHON ?= $(shell for python in python3 python3.14 python3.13 python3.12 python3.11; do \
	if command -v $$python >/dev/null 2>&1 && $$python -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; \
	then command -v $$python; break; fi; done)

PIP := $(BIN)/python -m pip --disable-pip-version-check --quiet --no-input
PACKAGES := pyproject.toml clients/python/pyproject.toml
SOURCES := collectord clients/python/collectord_client demo tests
TRACES := ../shared/traces

export PYTHONUNBUFFERED := 1

.PHONY: help install demo test beds lint bench replay fuzz simulate faults clean

help:
	@echo 'make demo     three agents against a real daemon: one completes, one fails, one is killed'
	@echo 'make test     the test suite'
	@echo 'make beds     the longer tests that `make test` leaves out'
	@echo 'make faults   every bed of faults at full counts, and a table of what was tried: an hour or more'
	@echo 'make lint     ruff and mypy'
	@echo 'make install  fill $(VENV); the program is then $(BIN)/collectord'
	@echo 'make bench    benchmarks; ONLY=recovery is one of them'
	@echo 'make replay   stream recorded traces through client and daemon, and compare'
	@echo 'make fuzz     more cases of hostile input than `make test` has'
	@echo 'make simulate plays of the daemon under a simulated clock and disk; N=1000 is how many'
	@echo 'make clean    remove $(VENV) and what tools left'

install: $(STAMPS)/install

demo: $(STAMPS)/install
	@$(BIN)/python demo/run.py

test: $(STAMPS)/test
	$(BIN)/python -m pytest -m 'not bed' $(PYTEST_ARGUMENTS)

beds: $(STAMPS)/test $(STAMPS)/faults
	$(BIN)/python -m pytest -m bed $(PYTEST_ARGUMENTS)

faults: $(STAMPS)/test $(STAMPS)/faults
	$(BIN)/python -m tests.faults $(FAULTS_ARGUMENTS)

lint: $(STAMPS)/lint
	$(BIN)/python -m ruff check .
	$(BIN)/python -m ruff format --check .
	MYPYPATH=clients/python $(BIN)/python -m mypy --explicit-package-bases $(SOURCES)

bench: $(STAMPS)/test
	$(BIN)/python -m tests.benchmarks $(ONLY)

replay: $(STAMPS)/test
	@if [ -d $(TRACES) ]; then $(BIN)/python -m tests.replay $(TRACES); \
	else echo 'make replay: there are no recorded traces in $(TRACES): nothing to replay'; fi

fuzz: $(STAMPS)/test
	$(BIN)/python -m tests.process.fuzz

simulate: $(STAMPS)/test
	$(BIN)/python -m tests.simulation $(or $(N),200)

clean:
	rm -rf $(VENV) build dist .pytest_cache .mypy_cache .ruff_cache .hypothesis *.egg-info clients/python/*.egg-info
	find collectord clients demo tests -name __pycache__ -type d -prune -exec rm -rf {} +

# ---- what is installed: a stamp for each set of packages, older than nothing it was made from

$(STAMPS)/venv:
	@if [ -z '$(PYTHON)' ]; then \
		echo 'collectord needs Python 3.11 or later, and found none: python3 is "'"$$(python3 --version 2>&1)"'".' >&2; \
		echo 'Install one, or name one: make PYTHON=/path/to/python3.12 ...' >&2; exit 1; fi
	@'$(PYTHON)' -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
		echo 'collectord needs Python 3.11 or later, and $(PYTHON) is older, or no Python.' >&2; exit 1; }
	@'$(PYTHON)' -m venv --clear $(VENV) || { \
		echo 'This Python cannot make a virtual environment: on Debian and Ubuntu, apt-get install python3-venv.' >&2; \
		rm -rf $(VENV); exit 1; }
	@mkdir -p $(STAMPS)
	@touch $@

$(STAMPS)/install: $(STAMPS)/venv $(PACKAGES)
	$(PIP) install -e clients/python -e .
	@touch $@

$(STAMPS)/test: $(STAMPS)/venv $(PACKAGES)
	$(PIP) install -e clients/python -e '.[test]'
	@touch $(STAMPS)/install $@

# What some beds need and not every machine can compile: without it they are skipped, and say so.
$(STAMPS)/faults: $(STAMPS)/test
	@$(PIP) install -e '.[faults]' >/dev/null 2>&1 || echo 'pyfuse3 could not be installed: the beds that need it will be skipped'
	@touch $@

$(STAMPS)/lint: $(STAMPS)/venv $(PACKAGES)
	$(PIP) install -e clients/python -e '.[test,lint]'
	@touch $(STAMPS)/install $(STAMPS)/test $@
