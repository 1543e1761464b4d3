# The README's commands. Everything lives in .venv; .tools holds the installer when there is no uv on this machine.
SHELL := /bin/bash
PYTHON ?= python3
UV_VERSION := 0.13.9
UV := $(shell command -v uv 2>/dev/null || echo .tools/bin/uv)
VENV := .venv
BIN := $(VENV)/bin
export DAGSTER_DISABLE_TELEMETRY := 1
# Without compiled files every process, of which the tests start hundreds, would compile all modules anew.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help setup demo ablation ui lint test test-all test-production test-cluster lock lock-check clean
PYTEST = $(BIN)/pytest --numprocesses=2 --dist=loadfile --no-loadscope-reorder

help:  ## Show this list
	@grep -hE '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed 's/:.*## /\t/' | expand -t 20

setup: $(VENV)/.installed  ## Create .venv and install the pinned packages

.tools/bin/uv:
	@echo "fetching uv $(UV_VERSION) ..."
	@$(PYTHON) -m venv .tools && .tools/bin/pip install --quiet uv==$(UV_VERSION)

$(VENV)/.installed: requirements.txt pyproject.toml | $(filter .tools/bin/uv,$(UV))
	@echo "installing the pinned packages into $(VENV) (a few GB the first time; torch brings CUDA libraries) ..."
	@test -x $(BIN)/python || $(UV) venv --quiet --python $(PYTHON) $(VENV)
	@$(UV) pip sync --compile-bytecode --python $(BIN)/python requirements.txt
	@$(UV) pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation --editable .
	@touch $@

demo: setup  ## Run the whole pipeline on the sample world
	@$(BIN)/facecaption demo

ablation: setup  ## Compare FLIP, FLIP* and FLIP† on the demo's data, three seeds each
	@$(BIN)/facecaption ablation

ui: setup  ## Open the Dagster UI on what the demo materialized
	@$(BIN)/facecaption ui

lint: setup  ## Style, format and types
	@$(BIN)/ruff check . && $(BIN)/ruff format --check . && $(BIN)/mypy

test: setup  ## The quick tests: no S3 server, real models or trainings in processes; one run end to end
	@$(PYTEST) --ignore=tests/production --ignore=tests/cluster --hypothesis-profile=quick -m "not (processes or models or s3 or slow)"

test-all: setup  ## Every test but those of production and the cluster
	@$(PYTEST) --ignore=tests/production --ignore=tests/cluster

test-production: setup  ## Production's processes with PostgreSQL and S3, and the faults they must survive
	@$(BIN)/pytest --hypothesis-profile=thorough -rs tests/production

test-cluster: setup | $(filter .tools/bin/uv,$(UV))  ## The deployment on a real control plane: KUBECONFIG's, or one that is built once
	@test -n "$$KUBECONFIG" || UV=$(UV) $(BIN)/python tests/support/control_plane_build.py
	@$(BIN)/pytest -rs --timeout=7200 -v tests/cluster

LOCKS ?= .
COMPILE = $(UV) pip compile --quiet --python-version 3.11 --no-header --no-emit-index-url --generate-hashes pyproject.toml
# vLLM wants a torch of its own, and that torch its own libraries; everything else is what requirements.txt pins.
OF_VLLM := torch|torchvision|triton|nvidia-.*|cuda-.*|numba|llvmlite|numpy|fastapi

lock: | $(filter .tools/bin/uv,$(UV))  ## Pin requirements.txt and the images' own lists anew from pyproject.toml
	@mkdir -p $(LOCKS)/deploy
	@$(COMPILE) --universal --extra llm --extra production --extra dev --output-file $(LOCKS)/requirements.txt
	@$(COMPILE) --universal --extra llm --extra production \
		--constraints $(LOCKS)/requirements.txt --no-annotate --output-file $(LOCKS)/deploy/requirements-cpu.txt
	@grep -oE '^[a-z0-9._-]+==[^\\]+' $(LOCKS)/requirements.txt | grep -vE '^($(OF_VLLM))==' > $(LOCKS)/deploy/.constraints.txt
	@$(COMPILE) --python-platform x86_64-unknown-linux-gnu --extra llm --extra vllm --extra production \
		--constraints $(LOCKS)/deploy/.constraints.txt --no-annotate --output-file $(LOCKS)/deploy/requirements-cuda.txt
	@rm $(LOCKS)/deploy/.constraints.txt

lock-check: | $(filter .tools/bin/uv,$(UV))  ## Whether the three lists still follow from pyproject.toml; downloads no package
	@checked=$$(mktemp -d) && trap 'rm -rf "$$checked"' EXIT && mkdir "$$checked/deploy" \
		&& cp requirements.txt "$$checked" && cp deploy/requirements-*.txt "$$checked/deploy" \
		&& $(MAKE) --no-print-directory lock LOCKS="$$checked" \
		&& for list in requirements.txt deploy/requirements-cpu.txt deploy/requirements-cuda.txt; do \
			grep -E '^[a-z0-9]' $$list | diff - <(grep -E '^[a-z0-9]' "$$checked/$$list") \
				|| { echo "$$list does not follow from pyproject.toml: run make lock"; exit 1; }; \
		done

clean:  ## Remove the demo's files (not .venv)
	@rm -rf .facecaption
