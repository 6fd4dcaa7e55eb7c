# What one does with Merit's source. `make` alone lists it.
# Written for GNU Make 3.81 and a POSIX shell, so that a bare Mac will do.

PYTHON ?= python3
VENV   ?= .venv
JOBS   ?= 2

PY    := $(VENV)/bin/python
READY := $(VENV)/.ready

# The compiler of the .proto files lives in an environment of its own: its bounds on protobuf are narrower than ours.
# The code it writes demands at least these versions of grpcio and protobuf: raise pyproject.toml with them.
PROTO_VENV  := .venv-proto
PROTO_READY := $(PROTO_VENV)/.ready
PROTO_TOOLS := grpcio-tools==1.85.1 grpcio==1.85.1 protobuf==7.36.2 mypy-protobuf==5.1.0 \
               types-protobuf==7.35.1.20260906 setuptools==84.2.1 typing-extensions==4.16.0
PROTO_NEW   := build/proto/generated
PROTO_OLD   := build/proto/committed

export TREE # by way of the environment, so that any character may stand in the path

.DEFAULT_GOAL := help
.PHONY: help setup run test check format bench lock proto proto-check clean

help: ## this list
	@awk 'BEGIN { FS = ":.*## " } /^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

setup: $(READY) ## make .venv from requirements.lock (done by the others when needed; PYTHON=python3.12 chooses)

run: $(READY) ## inspect the standard library with a fleet of workers, write out/inspection (TREE=path: another tree)
	@$(PY) -m examples.inspection $(if $(TREE),--tree "$$TREE")

test: check ## check, then the tests (ARGS="-k journal", ARGS="-m slow"; JOBS=2 processes)
	@$(PY) -m pytest -n $(JOBS) $(ARGS)

check: $(READY) ## lint, format, types, layers
	@$(PY) -m ruff check --quiet
	@$(PY) -m ruff format --check --quiet || { echo "Not formatted as agreed: 'make format' does it." >&2; exit 1; }
	@$(PY) -m mypy
	@$(VENV)/bin/lint-imports --no-logo

format: $(READY) ## format the code and repair what can be repaired
	@$(PY) -m ruff check --fix --quiet; $(PY) -m ruff format

bench: $(READY) ## measure; a table (ARGS=--json for programs)
	@$(VENV)/bin/merit bench all $(ARGS)

lock: ## resolve requirements.lock anew for every platform, keeping versions where possible (UPGRADE=1: newest; needs uv)
	@command -v uv >/dev/null || { echo "make lock needs uv (python3 -m pip install uv)." >&2; exit 1; }
	@uv pip compile pyproject.toml --extra dev --universal --python-version 3.11 --generate-hashes \
	    --no-config --no-emit-index-url --no-emit-find-links --no-annotate --custom-compile-command "make lock" \
	    $(if $(UPGRADE),--upgrade) --quiet --output-file requirements.lock

proto: $(PROTO_NEW) ## write the Python code of src/merit/wire/**/*.proto
	@find src/merit/wire -name '*_pb2*.py*' ! -path '*/__pycache__/*' -exec rm {} +
	@cp -R $(PROTO_NEW)/. src/

proto-check: $(PROTO_NEW) ## fail when the committed code is not what the .proto files say
	@rm -rf $(PROTO_OLD) && mkdir -p $(PROTO_OLD)
	@(cd src && find merit/wire -name '*_pb2*.py*' ! -path '*/__pycache__/*' | tar cf - -T -) | tar xf - -C $(PROTO_OLD)
	@diff -r $(PROTO_OLD) $(PROTO_NEW) || { echo "Generated code is out of date: run 'make proto' and commit." >&2; exit 1; }

clean: ## remove what make and the tools have made, the environments included
	@rm -rf $(VENV) $(PROTO_VENV) build dist out .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
	@find src tests examples -name __pycache__ -type d -prune -exec rm -rf {} +

# --- environments -----------------------------------------------------------------------------------------------------

NEEDS_PYTHON = { \
	command -v "$(PYTHON)" >/dev/null 2>&1 || { \
	    echo "There is no '$(PYTHON)' here. Install Python 3.11 or newer, or name one: make setup PYTHON=/path/to/python3" >&2; exit 1; }; \
	"$(PYTHON)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { \
	    echo "'$(PYTHON)' is $$("$(PYTHON)" --version 2>&1); Merit needs Python 3.11 or newer." \
	         "Name one: make setup PYTHON=python3.12" >&2; exit 1; }; }

# An environment that works is kept and brought up to date; one that does not (its Python is gone, or the making of it was
# cut short) is made again. The mark comes last: whatever is interrupted is simply done again.
$(READY): requirements.lock pyproject.toml
	@"$(PY)" -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null || { $(NEEDS_PYTHON) && rm -rf "$(VENV)"; }
	@echo "Setting up $(VENV) from requirements.lock ..."
	@set -e; if command -v uv >/dev/null 2>&1; then \
	    [ -x "$(PY)" ] || uv venv --quiet --python "$$(command -v "$(PYTHON)")" "$(VENV)"; \
	    uv pip install --quiet --python "$(PY)" --require-hashes -r requirements.lock; \
	    uv pip install --quiet --python "$(PY)" --no-deps --no-build-isolation --editable .; \
	else \
	    "$(PY)" -m pip --version >/dev/null 2>&1 || "$(PY)" -m ensurepip >/dev/null 2>&1 || "$(PYTHON)" -m venv "$(VENV)" || { \
	        echo "'$(PYTHON)' cannot make a virtual environment: install its venv package (Debian: python3-venv), or uv." >&2; \
	        rm -rf "$(VENV)"; exit 1; }; \
	    "$(PY)" -m pip install --quiet --disable-pip-version-check --require-hashes -r requirements.lock; \
	    "$(PY)" -m pip install --quiet --disable-pip-version-check --no-deps --no-build-isolation --editable .; \
	fi
	@touch $@

$(PROTO_READY): Makefile
	@$(NEEDS_PYTHON)
	@rm -rf $(PROTO_VENV) && "$(PYTHON)" -m venv $(PROTO_VENV)
	@$(PROTO_VENV)/bin/python -m pip install --quiet --disable-pip-version-check $(PROTO_TOOLS)
	@touch $@

.PHONY: $(PROTO_NEW)
$(PROTO_NEW): $(PROTO_READY)
	@rm -rf $@ && mkdir -p $@
	@cd src && PATH="$(CURDIR)/$(PROTO_VENV)/bin:$$PATH" python -m grpc_tools.protoc -I . --python_out=../$@ --grpc_python_out=../$@ \
	    --mypy_out=quiet:../$@ --mypy_grpc_out=quiet:../$@ $$(find merit/wire -name '*.proto' | LC_ALL=C sort)
