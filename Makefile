# Needs Python 3.11 or 3.12 and a package registry; everything else goes into .venv.

# The Python that .venv is made from; empty: the first suitable one on the PATH.
PYTHON ?=
# Folder of wheels for pip to look in besides its registry; empty: none, whatever pip's settings say.
# A CPU-only torch from such a folder breaks the registry's torchvision (mocosfl/check_install.py).
FIND_LINKS ?=

VENV := .venv
BIN := $(VENV)/bin
CANDIDATES := $(or $(PYTHON),python3.12 python3.11 python3 python)
STAMP := $(VENV)/installed.stamp
SUITABLE := import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 13))
VERSION := import sys; print("%d.%d" % sys.version_info[:2])

.PHONY: help setup check demo test test-fast lint docs same-python clean clean-venv

help:
	@echo "make demo        install, train on the bundled digits, probe the encoder (3 minutes after installing)"
	@echo "make test        install, lint, check types, run the whole suite"
	@echo "make test-fast   the suite without its slow tests"
	@echo "make lint        ruff, its format, and mypy"
	@echo "make docs        the documentation as a site, docs/_build/html/index.html"
	@echo "make setup       install only, into $(VENV); PYTHON=... chooses the Python"
	@echo "make clean       remove caches;  make clean-venv  remove $(VENV)"

setup: same-python $(STAMP) check

demo: setup
	$(BIN)/python -m mocosfl.demo

test: setup
	$(BIN)/python -m pytest -n auto --dist worksteal
	$(BIN)/ruff check .
	$(BIN)/mypy

test-fast: setup
	$(BIN)/python -m pytest -n auto --dist worksteal -m "not slow"

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy

# A warning is an error: links that lead nowhere, pages that nothing leads to.
docs: setup
	$(BIN)/python -m sphinx -W --keep-going -E -q -b html docs docs/_build/html
	@echo "Open docs/_build/html/index.html"

# At every start, not only after an installation: packages can be changed by hand in between.
check: $(STAMP)
	@$(BIN)/python -m mocosfl.check_install

# A Python that was asked for is not ignored when .venv is there already.
same-python:
	@if [ -n "$(PYTHON)" ] && [ -x $(BIN)/python ]; then \
		wanted=$$("$(PYTHON)" -c '$(VERSION)'); found=$$($(BIN)/python -c '$(VERSION)'); \
		if [ "$$wanted" != "$$found" ]; then \
			echo "$(VENV) is made from Python $$found, not $$wanted: run \`make clean-venv\` first." >&2; exit 1; \
		fi; \
	fi

$(STAMP): pyproject.toml | $(BIN)/pip
	@echo "Installing MocoSFL into $(VENV): some minutes; torch with its CUDA libraries is about 6 GB on Linux."
	@mkdir -p $(VENV)/no-wheels
	PIP_FIND_LINKS="$(or $(FIND_LINKS),$(CURDIR)/$(VENV)/no-wheels)" PIP_DISABLE_PIP_VERSION_CHECK=1 \
		$(BIN)/python -m pip install -e '.[dev]'
	@touch $@

# bin/pip is the last thing a new environment gets, so a half-made one is completed.
# Each candidate is run, not only looked up: pyenv leaves names on the PATH that do not start.
$(BIN)/pip:
	@found=; able=; \
	for candidate in $(CANDIDATES); do \
		"$$candidate" -c '$(SUITABLE)' >/dev/null 2>&1 || continue; \
		found=$$candidate; \
		if "$$candidate" -c 'import ensurepip, venv' >/dev/null 2>&1; then able=$$candidate; break; fi; \
	done; \
	if [ -z "$$found" ]; then \
		echo "MocoSFL needs Python 3.11 or 3.12; tried: $(CANDIDATES)." >&2; \
		echo "Install one, or name it: make setup PYTHON=/path/to/python3.12" >&2; exit 1; \
	fi; \
	if [ -z "$$able" ]; then \
		echo "$$found can't make a virtual environment: its modules venv and ensurepip are missing." >&2; \
		echo "Debian and Ubuntu keep them apart: apt install python$$("$$found" -c '$(VERSION)')-venv" >&2; exit 1; \
	fi; \
	echo "Making $(VENV) from $$("$$able" --version)."; \
	"$$able" -m venv $(VENV)

clean:
	rm -rf build dist docs/_build *.egg-info .pytest_cache .mypy_cache .ruff_cache
	find . -name __pycache__ -not -path './$(VENV)/*' -prune -exec rm -rf {} +

clean-venv:
	rm -rf $(VENV)
