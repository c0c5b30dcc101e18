# make demo   sets up, then runs the whole pipeline in the toy world
# make test   sets up, lints, runs every test
# make check  sets up, lints, checks format and types, runs the fast tests
# make clean  removes the environment and what was cached and built
#
# PYTHON names the interpreter that makes .venv (Python 3.11 or later); another
# one makes it anew. By default tests take python3, and the demo the newest of
# those named here, whose JAX is the newest too. Each is run: a shim of pyenv may
# be there without the version that it stands for.

ifndef PYTHON
PYTHON := python3
ifeq ($(MAKECMDGOALS),demo)
NEWEST := $(shell for python in python3 python3.13 python3.12; do \
  $$python -c "import sys; v = sys.version_info; \
  v >= (3, 11) and print(v.minor, '$$python')" 2> /dev/null; \
  done | sort -n | tail -n 1)
PYTHON := $(or $(word 2,$(NEWEST)),python3)
endif
endif
VERSION := $(shell $(PYTHON) -c 'import sys; print("%d.%d" % sys.version_info[:2])')
# Each line of Python has its newest JAX. Where torch is pinned, the tests that
# compare networks with it run too.
ifeq ($(VERSION),3.11)
CONSTRAINTS := constraints.txt
EXTRAS := test,parity
else
CONSTRAINTS := constraints-py312.txt
EXTRAS := test
endif

BIN := .venv/bin
UV := $(BIN)/uv pip install --python $(BIN)/python -c $(CONSTRAINTS)
# A file's tests share programs and fixtures, so they stay on one worker; files
# that take long come first, so that no worker is left with one at the end.
PYTEST := $(BIN)/python -m pytest -n 2 --dist loadfile --no-loadscope-reorder

.PHONY: demo test check clean

demo: .venv/runtime.stamp
	$(BIN)/lift demo --workdir=runs/demo

test: .venv/test.stamp
	$(BIN)/ruff check
	$(PYTEST)

# Files without a fast test are not even collected.
check: .venv/test.stamp
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/pyrefly check
	$(PYTEST) -m fast $$(grep -rl --include='*_test.py' 'pytest\.mark\.fast' tests)

# Each stamp is newer than what its step was made from, so that nothing is
# installed twice.
.venv/python-$(VERSION).stamp:
	$(PYTHON) -m venv --clear .venv
	$(BIN)/python -m pip install --quiet -c $(CONSTRAINTS) uv
	touch $@

.venv/runtime.stamp: .venv/python-$(VERSION).stamp setup.py pyproject.toml \
  $(CONSTRAINTS)
	$(UV) -e .
	touch $@

# torch comes first and through pip, which knows where a machine keeps its
# build for the CPU; uv then finds it in place.
.venv/test.stamp: .venv/runtime.stamp
ifneq ($(filter %parity,$(EXTRAS)),)
	$(BIN)/python -m pip install --quiet --no-compile -c $(CONSTRAINTS) \
	  torch
endif
	$(UV) -e '.[$(EXTRAS)]'
	touch $@

clean:
	rm -rf .venv .cache .pytest_cache .ruff_cache build *.egg-info
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
