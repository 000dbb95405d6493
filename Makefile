# Everything happens in .venv, which `make env` builds from constraints.txt; PATH does not matter
# beyond a Python, make and a C compiler. Another interpreter: make env PYTHON=/path/to/python
VENV   := .venv
BIN    := $(VENV)/bin
STAMP  := $(VENV)/.installed
PYTHON ?= $(shell command -v python3.11 || command -v python3)
# two processes share the cores: PyTorch's idle threads must sleep, not spin (encode by the engine
# mil with two threads beside another process: 1.3 s, so 0.4 s)
PYTEST := OMP_WAIT_POLICY=passive $(BIN)/pytest -n 2 --dist loadfile --durations=30

.DEFAULT_GOAL := help
.PHONY: help env demo test test-all lint bench bench-predict bench-cbnet bench-nano matrix clean

help:  ## list the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "make %-13s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

env: $(STAMP)  ## build .venv with the versions of constraints.txt (7 GB)

$(STAMP): pyproject.toml constraints.txt
	@test -n "$(PYTHON)" || { echo "no python3 found: install Python 3.11 or give PYTHON=/path"; exit 1; }
	@"$(PYTHON)" -c 'import sys; v = sys.version_info; sys.exit(v < (3, 11) and \
	"constraints.txt needs Python 3.11 or later, $(PYTHON) is %d.%d; give PYTHON=/path/to/python3.11.\nOn 3.10 install without it: pip install -e \".[dev]\"" % v[:2])'
	test -x $(BIN)/python || "$(PYTHON)" -m venv $(VENV)
	$(BIN)/python -m pip install --disable-pip-version-check -c constraints.txt -e '.[dev]'
	@touch $@

demo: $(STAMP)  ## export pretrained models, check them, classify a photograph, follow an object
	$(BIN)/phoneward demo

lint: $(STAMP)  ## ruff and strict mypy
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy -p phoneward

test: lint  ## lint, then every test but the matrix
	$(PYTEST) -m "not matrix"

test-all: lint  ## lint, then every test
	$(PYTEST)

bench: $(STAMP)  ## measure, and rewrite the results in docs
	$(BIN)/python -m phoneward.apps.bench
	$(BIN)/python -m phoneward.apps.bench.efficienttam
	$(BIN)/python -m phoneward.apps.bench.coreml
	$(BIN)/python -m phoneward.apps.bench.emulated

bench-predict: $(STAMP)  ## fit the latency model, and hold it against rows it has not seen
	$(BIN)/python -m phoneward.apps.bench.predict --fit
	$(BIN)/python -m phoneward.apps.bench.predict_blocks --fit

bench-cbnet: $(STAMP)  ## train CBNet and its rivals three times over, and measure them (2 hours)
	$(BIN)/python -m phoneward.apps.bench.cbnet

bench-nano: $(STAMP)  ## evaluate efficienttam-nano, and time it on every engine (30 minutes)
	$(BIN)/python -m phoneward.apps.bench.nano
	$(BIN)/python -m phoneward.apps.bench.nano_trunks

matrix: $(STAMP)  ## export every hybrid to every format and tabulate the outcome
	$(BIN)/python -m phoneward.apps.bench.matrix

clean:  ## remove .venv, caches, build and demo output
	rm -rf $(VENV) build dist demo-output demo-output-tracking demo-output-tracks .hypothesis .mypy_cache .pytest_cache .ruff_cache
