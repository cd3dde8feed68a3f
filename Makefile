# Each target makes its own .venv first. On a machine with Python 3.11 or newer, `make demo` is all there is to it.

PYTHON ?= python3
BIN := .venv/bin
INSTALLED := .venv/installed
LINKS := build/links/rheobase
PACKAGES := stream nodes devices configs tools
KERNELS := tests/test_contract.py tests/test_fuse.py

# Kernels compiled with bounds checks, or not compiled at all, must not meet those that were: caches of their own.
BOUNDS := NUMBA_BOUNDSCHECK=1 NUMBA_CACHE_DIR=$(CURDIR)/build/bounds RHEOBASE_CACHE=$(CURDIR)/build/bounds
PLAIN := NUMBA_DISABLE_JIT=1 RHEOBASE_CACHE=$(CURDIR)/build/plain

# Two tests at a time; those that meet streams, sockets or processes stay one after the other (tests/conftest.py).
TWO := -n 2

.PHONY: help demo test cover bounds check bench clean

help:  ## what there is
	@sed -n 's/^\([a-z]*\):.*## /  make \1\t/p' Makefile

demo: $(INSTALLED)  ## 60 s of closed-loop cursor control through LSL, then its replay
	$(BIN)/python -m rheobase.tools.demo

test: $(INSTALLED)  ## all tests, compiled
	$(BIN)/python -m pytest $(TWO) $(ARGS)

cover: $(INSTALLED)  ## the tests with jit off: kernels as plain Python, lines counted
	$(PLAIN) $(BIN)/python -m pytest $(TWO) --cov -m "not slow and not jit" $(ARGS)

bounds: $(INSTALLED)  ## every kernel, alone and fused, compiled with every index checked
	$(BOUNDS) $(BIN)/python -m pytest $(TWO) -m "not slow" -k "not is_the_same_fused" $(KERNELS) $(ARGS)

check: $(INSTALLED) links  ## lint, format, types
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy

bench: $(INSTALLED)  ## speed, as ratios to C loops and raw sockets measured in the same run (gcc)
	$(BIN)/rheo bench $(ARGS)

clean:  ## away with what the other targets made
	rm -rf .venv build .coverage .mypy_cache .ruff_cache .pytest_cache .hypothesis *.egg-info

$(INSTALLED): pyproject.toml constraints.txt
	$(PYTHON) -m venv .venv
	$(BIN)/python -m pip install -q -e '.[all,dev]' -c constraints.txt
	@touch $@

# The type checker looks for rheobase.stream in a folder rheobase/, and there is none: it gets links.
.PHONY: links
links:
	@mkdir -p $(LINKS)
	@for p in $(PACKAGES); do ln -sfn ../../../$$p $(LINKS)/$$p; done
