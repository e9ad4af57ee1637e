# Every target sets up .venv by itself when it is missing. Variables: PYTHON, VENV, OUT, SCALE, ARGS.
PYTHON ?= python3
VENV ?= .venv
OUT ?= runs/demo
SCALE ?=
ARGS ?=

BIN := $(VENV)/bin
PIP := $(BIN)/python -m pip --disable-pip-version-check install -q -c constraints.txt
UV := build/uv
READY := $(VENV)/.ready
UNFINISHED := $(VENV)/.unfinished
FAIL = { echo "molspectra: error: $(1)" >&2; exit 2; }

.PHONY: help venv demo test lint format docs bench lock release clean

help: ## list the targets
	@awk -F ':.*## ' '/^[a-z]+:.*## / { printf "make %-7s %s\n", $$1, $$2 }' Makefile

# An installation that was cut short leaves .unfinished behind and is started over.
$(READY): pyproject.toml constraints.txt requirements.lock
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || \
	  $(call FAIL,$(PYTHON) is not Python 3.11 or later; install one and run make PYTHON=python3.12 (or its path))
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || \
	  $(call FAIL,$(PYTHON) cannot make virtual environments; install its venv module (Debian and Ubuntu: apt install python3-venv))
	@if [ -e $(UNFINISHED) ]; then $(PYTHON) -m venv --clear $(VENV); else $(PYTHON) -m venv $(VENV); fi
	@touch $(UNFINISHED)
	@echo "installing what requirements.lock names into $(VENV)"
	@$(PIP) --no-deps --require-hashes -r requirements.lock
	@echo "installing torch into $(VENV)"
	@$(PIP) torch==2.13.0
	@echo "installing molspectra into $(VENV)"
	@$(PIP) -e '.[simulate,files,fast,search,explorer,cluster,dev]'
	@rm $(UNFINISHED)
	@touch $(READY)

venv: $(READY) ## set up the virtual environment

demo: $(READY) ## spectra, pre-training, fine-tuning and a report (SCALE=smoke: a short run)
	$(BIN)/molspectra demo --out $(OUT) $(if $(SCALE),--scale $(SCALE)) $(ARGS)

# One worker for each core that memory is enough for (tests/conftest.py says how many); ARGS="-n 0": this process alone.
test: $(READY) ## run the tests
	$(BIN)/python -m pytest -q -n auto --dist worksteal $(ARGS)

lint: $(READY) ## check style, formatting, types and layers
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports --no-logo --no-cache

format: $(READY) ## format the code
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

docs: $(READY) ## build the documentation into docs/_build/html
	$(BIN)/sphinx-build -W --keep-going -q -b html docs docs/_build/html

bench: $(READY) ## measure speed: runs/bench/speed.md (ARGS=--quick: minutes; ARGS="--out docs/speed": keep it)
	$(BIN)/python -m benchmarks $(ARGS)

# torch is left out: its CPU and CUDA builds have other hashes, and pip may be offered either. For macOS, where
# torch needs no CUDA packages; the hashes are those of all files of a version, for every system.
lock: ## write requirements.lock, the hashes of constraints.txt
	$(PYTHON) -m venv $(UV)
	$(UV)/bin/python -m pip --disable-pip-version-check install -q uv
	MACOSX_DEPLOYMENT_TARGET=14.0 UV_CUSTOM_COMPILE_COMMAND='make lock' $(UV)/bin/uv pip compile -q \
	  --generate-hashes --no-annotate --python-version 3.11 \
	  --python-platform macos --no-emit-package torch -c constraints.txt -o requirements.lock \
	  --extra simulate --extra files --extra fast --extra search --extra explorer --extra cluster --extra dev pyproject.toml

release: ## build wheel and source archive into dist/, and try the wheel in a clean environment
	$(PYTHON) scripts/release.py $(ARGS)

clean: ## remove what the targets made, except runs/
	rm -rf $(VENV) docs/_build docs/api .mypy_cache .pytest_cache .ruff_cache build dist
