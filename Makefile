# Two commands do all the set-up: `make conformance` and `make test`.
PYTHON ?= python3
VENV ?= .venv
OUT ?= out
BIN := $(VENV)/bin

.PHONY: conformance test test-slow check format install official clean

conformance: install
	$(BIN)/conformance run --out $(OUT)

# one worker a core; files stay whole, so that what a file loads is loaded once
test: install
	$(BIN)/pytest -n auto --dist loadfile -m 'not slow'

test-slow: install
	$(BIN)/pytest -n auto -m slow

check: install
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy

format: install
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .

install: $(VENV)/.installed

# optional, and under the LTX-2 Community License: docs/official.md
official: install
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --no-deps ltx-core==1.0.0 ltx-pipelines==1.0.0 einops==0.8.2

$(VENV)/.installed: pyproject.toml
	$(PYTHON) -c 'import sys; v = sys.version_info[:2]; sys.exit(0 if v in ((3, 11), (3, 12)) else "Python 3.11 or 3.12 is needed, this is %d.%d: make PYTHON=python3.12" % v)'
	$(PYTHON) -m venv $(VENV)
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --editable '.[dev,cluster]'
	touch $@

clean:
	rm -rf $(VENV) $(OUT) build *.egg-info
