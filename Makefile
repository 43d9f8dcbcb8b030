# Two commands: `make study` and `make test`. Both start from Python and a package index alone, and reuse what is there.
PYTHON ?= python3
STUDY ?= cpu
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip install --quiet --disable-pip-version-check --constraint constraints.txt

.PHONY: help study demo shell test test-fast lint docs clean
.DELETE_ON_ERROR:

# Huge pages for malloc make a training step 2-34 % faster on Linux and mean nothing elsewhere.
study: $(VENV)/.installed
	GLIBC_TUNABLES=glibc.malloc.hugetlb=1 $(BIN)/python -m train study $(STUDY)
	$(BIN)/python -m eval report runs/$(STUDY) --out reports/$(STUDY)

# What there is to make.
help:
	@echo "make demo       a report on records that come with the project; nothing is trained"
	@echo "make study      the CPU study; make study STUDY=NAME for another of configs/studies"
	@echo "make shell      a shell in which python is that of the environment"
	@echo "make test       ruff, pyright and every test; make test-fast leaves out the slow ones"
	@echo "make docs       the documentation as a site"

# A report on records that come with the project: nothing is trained.
demo: $(VENV)/.installed
	$(BIN)/python -m eval report examples/cpu.tar.gz --out reports/demo

# A shell in which `python` is that of the environment.
shell: $(VENV)/.installed
	@echo "python is $(CURDIR)/$(BIN)/python; leave with exit"
	@PATH="$(CURDIR)/$(BIN):$$PATH" VIRTUAL_ENV="$(CURDIR)/$(VENV)" "$${SHELL:-/bin/sh}"

PYTEST := $(BIN)/python -m pytest --dist loadgroup --no-loadscope-reorder --durations 40 --durations-min 5

# For two cores: three workers, since some of the slow tests wait for a clock; two where none does.
test: lint
	$(PYTEST) --numprocesses 3

test-fast: $(VENV)/.installed-dev
	$(PYTEST) --numprocesses 2 -m "not slow"

lint: $(VENV)/.installed-dev
	$(BIN)/ruff check .
	$(BIN)/ruff format --check --quiet .
	$(BIN)/pyright

# The site, at build/docs/index.html. A warning is an error; what it counts is kept in .cache.
docs: $(VENV)/.installed-dev
	$(BIN)/python -m sphinx -W --keep-going --quiet docs build/docs

# Stamps are written last: a set-up that was killed half way is done again.
$(VENV)/.created:
	@$(PYTHON) -c 'import sys; v = sys.version_info[:2]; (3, 11) <= v < (3, 14) or sys.exit(f"Python 3.11 to 3.13 is needed, this is {v[0]}.{v[1]}: make PYTHON=python3.12 ...")'
	$(PYTHON) -m venv $(VENV)
	@touch $@

# A change of either list installs again, in place.
$(VENV)/.installed: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "Installing into $(VENV); about two minutes and 3.2 GB the first time"
	$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: pyproject.toml constraints.txt | $(VENV)/.created
	@echo "Installing into $(VENV) with what the tests need; about two minutes the first time"
	$(PIP) --editable ".[dev]"
	@touch $@ $(VENV)/.installed

clean:
	rm -rf $(VENV) .cache
