# make demo   sets up, then runs the whole pipeline in the toy world
# make test   sets up, lints, runs every test
# make clean  removes the environment and what was cached and built
#
# PYTHON names the interpreter that makes .venv (Python 3.11 or later).

PYTHON ?= python3
BIN := .venv/bin
UV := $(BIN)/uv pip install --python $(BIN)/python -c constraints.txt

.PHONY: demo test clean

demo: .venv/runtime.stamp
	$(BIN)/lift demo --workdir=runs/demo

test: .venv/test.stamp
	$(BIN)/ruff check
	$(BIN)/python -m pytest -n 2 --dist loadfile

# Each stamp is newer than what its step was made from, so that nothing is
# installed twice.
.venv/tools.stamp:
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install --quiet -c constraints.txt uv
	touch $@

.venv/runtime.stamp: .venv/tools.stamp setup.py pyproject.toml constraints.txt
	$(UV) -e .
	touch $@

# torch comes first and through pip, which knows where a machine keeps its
# build for the CPU; uv then finds it in place.
.venv/test.stamp: .venv/runtime.stamp
	$(BIN)/python -m pip install --quiet --no-compile -c constraints.txt \
	  torch
	$(UV) -e '.[test]'
	touch $@

clean:
	rm -rf .venv .cache .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
