# Needs Python 3.11 or newer and make. `make demo` shows the program; `make test` proves it, and brings its own services.
PYTHON ?= python3
ARGS ?=
SEEDS ?= 1000-1100
SEED ?= 7
MINUTES ?= 5
RATE ?= 1000
BENCH_QUICK ?=
JOBS ?= 2
BIN := .venv/bin
STAMP := .venv/.installed
BENCH := .venv-bench
BENCH_STAMP := $(BENCH)/.installed
BENCH_NODE := bench/rpc/node_modules/.package-lock.json
PEERS_NODE := bench/peers/node/node_modules/.package-lock.json

# Where it is set, each of the thousand processes that the tests start would compile all that it imports.
unexport PYTHONDONTWRITEBYTECODE

.PHONY: help install demo test test-newer simulate chaos alarm attack bench bench-rpc bench-feed lint format lock services services-stop clean
.DEFAULT_GOAL := help

help:  ## Show what can be made.
	@sed -n 's/^\([a-z-]*\):.*  ## \(.*\)/  make \1|\2/p' Makefile | awk -F'|' '{printf "%-22s %s\n", $$1, $$2}'

install: $(STAMP)  ## Make .venv with everything in it, as requirements.lock says. PYTHON=... chooses the interpreter.

demo: $(STAMP)  ## Run the whole program in one process, bank included. ARGS="--orders 200" stops by itself.
	$(BIN)/oplata demo $(ARGS)

test: $(STAMP) lint  ## Lint, get RabbitMQ, PostgreSQL and Node, and run every test, JOBS=2 at a time. ARGS=... is for pytest.
	$(BIN)/python -m tests.services install
	$(BIN)/pytest --numprocesses $(JOBS) $(ARGS)

test-newer: $(STAMP)  ## Run every test with the RabbitMQ 4 and PostgreSQL 17 of Debian trixie; needs root. ARGS=... as above.
	OPLATA_TEST_DEBIAN=trixie $(BIN)/python -m tests.services install
	OPLATA_TEST_DEBIAN=trixie $(BIN)/pytest $(ARGS)

simulate: $(STAMP)  ## Run the seeded simulation. SEEDS=1000-2000 says which.
	$(BIN)/python -m tests.simulation --seeds $(SEEDS) --processes 2

chaos: $(STAMP)  ## Break real processes under load, and account for every callback. SEED=7 MINUTES=5 RATE=1000.
	$(BIN)/python -m tests.services install
	$(BIN)/python -m tests.chaos --seed $(SEED) --minutes $(MINUTES) --rate $(RATE) $(ARGS)

attack: $(STAMP)  ## Attack a real process as one could who has the source and no key. ARGS="--scale 0.1" is shorter.
	$(BIN)/python -m tests.attack $(ARGS)

alarm: $(STAMP)  ## Watch real processes with a real Prometheus, kill the worker, and see the alerts fire. Three minutes.
	$(BIN)/python -m tests.services install
	$(BIN)/python -m tests.monitoring

bench: $(BENCH_STAMP) $(PEERS_NODE)  ## Measure callbacks beside their peers, in 9 minutes; needs Node and npm. BENCH_QUICK=1 is shorter.
	$(BIN)/python -m tests.services install
	BENCH_QUICK=$(BENCH_QUICK) $(BIN)/python -m bench $(ARGS)

bench-rpc: $(BENCH_STAMP) $(BENCH_NODE)  ## Measure our tRPC beside Node's and FastAPI; needs Node and npm. BENCH_QUICK=1 is shorter.
	BENCH_QUICK=$(BENCH_QUICK) $(BIN)/python -m bench.rpc $(ARGS)

bench-feed: $(STAMP)  ## Measure how soon 2000 subscriptions over HTTP hear of a commit. ARGS="--subscribers 500" and others.
	$(BIN)/python -m bench.feed $(ARGS)

lint: $(STAMP)  ## Check style, types and the direction of imports.
	$(BIN)/ruff check
	$(BIN)/ruff format --check
	$(BIN)/mypy
	$(BIN)/lint-imports

format: $(STAMP)  ## Mend the style where that can be done by itself.
	$(BIN)/ruff check --fix
	$(BIN)/ruff format

lock: $(STAMP)  ## Write requirements.lock anew after a change in pyproject.toml. ARGS=--upgrade takes the newest.
	$(BIN)/uv pip compile pyproject.toml --all-extras --group dev --universal --python-version 3.11 --generate-hashes \
		--no-header --quiet -o requirements.lock $(ARGS)
	$(BIN)/uv pip compile pyproject.toml --group bench --universal --python-version 3.11 --generate-hashes \
		--no-header --quiet --no-annotate --constraints requirements.lock -o bench/requirements.lock $(ARGS)

services: $(STAMP)  ## Leave RabbitMQ and PostgreSQL running for many test runs, and print where they are.
	@$(BIN)/python -m tests.services start

services-stop: $(STAMP)  ## Stop them and delete their data.
	@$(BIN)/python -m tests.services stop

clean:  ## Stop the services and delete what was made.
	@if [ -x $(BIN)/python ] && [ -d .services ]; then $(BIN)/python -m tests.services stop; fi
	rm -rf .venv $(BENCH) .services .mypy_cache .ruff_cache .import_linter_cache .pytest_cache .hypothesis dist build
	rm -rf examples/node-shop/node_modules bench/rpc/node_modules bench/peers/node/node_modules
	find src tests bench -type d -name __pycache__ -prune -exec rm -rf {} +

# pip is what venv makes last, so a .venv that was cut short is made again.
$(BIN)/pip:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { echo "oplata needs Python 3.11 or newer, and\
	 $(PYTHON) is `$(PYTHON) --version 2>&1`. Name another one: make install PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { echo "$(PYTHON) cannot make virtual environments.\
	 On Debian and Ubuntu: apt-get install python3-venv" >&2; exit 1; }
	$(PYTHON) -m venv --clear .venv

# pip fetches uv alone, with the hashes that the lock has for it; uv fetches the rest, in a tenth of the time.
$(STAMP): requirements.lock pyproject.toml | $(BIN)/pip
	@awk '/^[^ ]/ {wanted = /^uv==/} wanted' requirements.lock > .venv/uv.txt
	$(BIN)/python -m pip install --quiet --disable-pip-version-check --require-hashes --no-deps -r .venv/uv.txt
	$(BIN)/uv pip install --quiet --compile-bytecode --python $(BIN)/python --require-hashes -r requirements.lock
	$(BIN)/uv pip install --quiet --python $(BIN)/python --no-deps --no-build-isolation -e .
	@touch $@

# What others would install to do the same; nothing but the measurements ever sees it.
$(BENCH_STAMP): bench/requirements.lock $(STAMP)
	$(BIN)/uv venv --quiet --clear --python $(BIN)/python $(BENCH)
	$(BIN)/uv pip install --quiet --python $(BENCH)/bin/python --require-hashes -r bench/requirements.lock
	@touch $@

$(PEERS_NODE): bench/peers/node/package-lock.json
	cd bench/peers/node && npm ci --no-audit --no-fund --ignore-scripts
	@touch $@

$(BENCH_NODE): bench/rpc/package-lock.json
	cd bench/rpc && npm ci --no-audit --no-fund --ignore-scripts
	@touch $@
