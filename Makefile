# Both commands need only Python 3.11 to 3.13 (TensorFlow has no newer), make and a package index.
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: demo test test-slow lint setup clean constraints

setup: $(READY)

# uv honours the overrides in pyproject.toml that keep torch out (medmnist declares it without
# needing it), and is several times faster than pip.
$(READY): pyproject.toml constraints.txt
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' \
		|| { echo "bloodedge needs Python 3.11 to 3.13; try: make PYTHON=python3.12 $(MAKECMDGOALS)"; exit 1; }
	@test -x $(BIN)/python || $(PYTHON) -m venv $(VENV)
	@$(BIN)/python -m pip install --quiet --disable-pip-version-check uv
	VIRTUAL_ENV=$(CURDIR)/$(VENV) $(BIN)/uv pip install --quiet --compile-bytecode --constraint constraints.txt --editable '.[dev]'
	@touch $@

demo: setup
	$(BIN)/python -m bloodedge demo

test: setup lint
	$(BIN)/pytest -n 2 --dist worksteal -m 'not slow'

# What takes more than ten seconds each: kills and resumes, deep models, other backends.
test-slow: setup
	$(BIN)/pytest -n 2 --dist worksteal -m slow

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/python tests/typecheck.py

constraints:
	$(BIN)/uv pip compile --quiet --universal --python-version 3.11 --upgrade --extra dev \
		--no-header --no-annotate --no-emit-index-url --output-file constraints.txt pyproject.toml

clean:
	rm -rf $(VENV) build dist runs .mypy_cache .ruff_cache .pytest_cache
