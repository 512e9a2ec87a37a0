# make demo, make test, make run, make check, make bench: each first installs what is missing, into .venv only.
# Needs python 3.11 or newer, make and a C compiler. PYTHON=python3.12 make … takes another python.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
# What runs and draws, as in the worker's image; and with what tests, lints and measures.
RUNTIME := $(VENV)/.runtime
INSTALLED := $(VENV)/.installed
# Much of the tests' time is waiting, for servers to start and leases to run out: two cores keep four processes busy.
PYTEST_ARGS ?= -n 4
SERVE_ARGS ?=

# A uv on the PATH if it works, else one inside .venv.
UV := $(shell uv --version >/dev/null 2>&1 && echo uv || echo $(BIN)/uv)
# Gigabytes are downloaded with a bar for each on a terminal, and without a word elsewhere.
QUIET := $(shell [ -t 2 ] || echo --quiet)
COMPILE := pip compile --quiet --universal --python-version 3.11 --generate-hashes \
	--no-emit-index-url --no-header --no-annotate

# What checks JavaScript is node's; everything else goes without.
NODE_TOOLS := command -v node >/dev/null && [ -x node_modules/.bin/biome ] && [ -x node_modules/.bin/tsc ]
NODE_HINT := with node on the PATH, npm install --no-package-lock

# A server is five processes, the tests start hundreds: without bytecode on the disk each compiles its imports anew.
unexport PYTHONDONTWRITEBYTECODE

.DEFAULT_GOAL := help
.PHONY: help install demo run test docker mutants check format bench requirements documents clean

help:
	@echo "make demo      one picture, from a bare machine: installs, starts a server, sends a request, stops it"
	@echo "make run       serve until stopped (SERVE_ARGS='--port 9000')"
	@echo "make test      every test (PYTEST_ARGS='-n 2 -k lora')"
	@echo "make docker    build the images and run the compose file on a Docker engine of its own (DOCKER_TESTS=full)"
	@echo "make mutants   break the code line by line: does a test notice? (MUTANTS_ARGS='guard fetch')"
	@echo "make check     format, lint and types, as CI sees them"
	@echo "make format    let ruff format and fix what it can"
	@echo "make documents write openapi.json, .env.example and the commands of docs/cli.md anew"
	@echo "make bench     time the server on this machine"

install: $(RUNTIME)

define SYNC
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip sync $(QUIET) --require-hashes --compile-bytecode $(filter requirements/%,$^)
	@VIRTUAL_ENV=$(CURDIR)/$(VENV) $(UV) pip install --quiet --no-deps --no-build-isolation --editable .
	@touch $@
endef

$(RUNTIME): requirements/worker.txt requirements/build.txt pyproject.toml | $(BIN)/python
	@$(UV) --version >/dev/null 2>&1 || $(BIN)/python -m pip install --quiet uv
	@echo "Installing into $(VENV); the first time this downloads several GB (torch) …"
	$(SYNC)

$(INSTALLED): requirements/dev.txt $(RUNTIME)
	@echo "Installing what tests and lints …"
	$(SYNC)

$(BIN)/python:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' 2>/dev/null \
		|| { echo "Python 3.11 or newer is needed; name it: make PYTHON=/path/to/python3.12 …"; exit 1; }
	@if uv --version >/dev/null 2>&1; \
		then uv venv --quiet --python "$(PYTHON)" --no-python-downloads $(VENV); \
		else $(PYTHON) -m venv $(VENV) \
			|| { rm -rf $(VENV); echo "On Debian and Ubuntu: apt install python3-venv"; exit 1; }; \
	fi

demo: $(RUNTIME)
	@$(BIN)/python examples/demo.py

run: $(RUNTIME)
	@$(BIN)/zturbo serve $(SERVE_ARGS)

test: $(INSTALLED)
	$(BIN)/pytest $(PYTEST_ARGS)

docker: $(INSTALLED)
	$(BIN)/pytest -v --durations=20 tests/docker

mutants: $(INSTALLED)
	$(BIN)/python tests/mutants.py $(MUTANTS_ARGS)

check: $(INSTALLED)
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	@$(NODE_TOOLS) || { echo "biome and tsc skipped, the playground's JavaScript is unchecked: $(NODE_HINT)"; exit 0; }; \
		set -x; node_modules/.bin/biome ci --error-on-warnings app/playground && node_modules/.bin/tsc -p app/playground/jsconfig.json

format: $(INSTALLED)
	$(BIN)/ruff format .
	$(BIN)/ruff check --fix .
	@$(NODE_TOOLS) || { echo "biome skipped: $(NODE_HINT)"; exit 0; }; set -x; node_modules/.bin/biome check --write app/playground

bench: $(INSTALLED)
	$(BIN)/python -m benchmarks.server

# After a change of the dependencies in pyproject.toml; UPGRADE=--upgrade takes the newest versions of all.
requirements: | $(BIN)/python
	$(UV) $(COMPILE) pyproject.toml $(UPGRADE) --extra local --extra s3 --extra gpu --extra gguf --extra mcp --group dev -o requirements/dev.txt
	$(UV) $(COMPILE) pyproject.toml $(UPGRADE) --extra s3 -o requirements/api.txt
	$(UV) $(COMPILE) pyproject.toml $(UPGRADE) --extra local --extra s3 --extra gpu --extra gguf --extra mcp -o requirements/worker.txt
	echo 'hatchling>=1.27' | $(UV) $(COMPILE) - -c requirements/dev.txt -o requirements/build.txt
	$(UV) $(COMPILE) pyproject.toml $(UPGRADE) --extra local --extra s3 --group test --override requirements/oldest-rq.txt \
		-o requirements/light.txt

# The committed documents that are made from the code; a test compares them.
documents: $(INSTALLED)
	$(BIN)/python -m scripts.documents

clean:
	rm -rf $(VENV) build demo-output .pytest_cache .mypy_cache .ruff_cache
