# Relay: `make run` starts a relay, `make test` runs the tests. Both set up .venv by themselves.
# Needed on the machine: make, Python 3.11 or later, pip 22.3 or later (Debian: python3 python3-pip).
# Why it is done so: docs/decisions/002-make-and-pip.md.

PYTHON ?= python3
ARGS   ?=
# Tests wait for processes more than they compute: more at a time than two cores would say.
JOBS   ?= 3

VENV := .venv
VPY  := $(VENV)/bin/python
PIP  := $(PYTHON) -m pip --python $(VPY) --disable-pip-version-check
CODE := relay tests benchmarks loadtest examples

.DEFAULT_GOAL := help
.PHONY: help run test lint format types contracts bench bench-quick bench-stalls bench-peers bench-growth loadtest loadtest-smoke torture torture-saturated fuzz attacks check lock clean

help:  ## Say what can be made
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 26

run: $(VENV)/.run  ## A relay with production defaults (ARGS="--workers 2 ..." adds flags)
	@exec $(VENV)/bin/relay serve $(ARGS)

test: $(VENV)/.dev  ## The tests (ARGS="tests/wire -k name ..." chooses)
	@$(VPY) -m pytest -q -n $(JOBS) --dist loadfile $(ARGS)

# Without SEED each run is another one; it prints the seed to repeat it with.
torture: $(VENV)/.dev  ## Kill, stop and cut everything for SECONDS (600) by SEED; check what clients saw
	@$(VPY) -m tests.torture --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) $(ARGS)

torture-saturated: $(VENV)/.dev  ## Flood a relay for SECONDS (60), and check what clients saw
	@$(VPY) -m tests.torture.saturated --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: $(VENV)/.dev  ## Look for inputs that break a promise, for SECONDS (60), by SEED
	@$(VPY) -m tests.fuzz --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(ARGS)

attacks: $(VENV)/.dev  ## A table: what an honest pair notices of each attack, SECONDS (10) long
	@$(VPY) -m tests.fuzz.server --seconds $(or $(SECONDS),10) $(if $(SEED),--seed $(SEED)) $(ARGS)

lint: $(VENV)/.dev  ## Style, format, and that dependencies are declared and used
	@$(VPY) -m ruff check $(CODE)
	@$(VPY) -m ruff format --check $(CODE)
	@$(VPY) -m deptry relay

format: $(VENV)/.dev  ## Format the code, and fix what can be fixed by machine
	@$(VPY) -m ruff format $(CODE)
	@$(VPY) -m ruff check --fix $(CODE)

types: $(VENV)/.dev  ## mypy --strict
	@$(VPY) -m mypy

contracts: $(VENV)/.dev  ## Who may import whom
	@$(VENV)/bin/lint-imports --no-logo

bench: $(VENV)/.dev  ## All benchmarks, compared with the last saved run (ARGS="benchmarks/micro ...")
	@$(VPY) -m pytest $(or $(ARGS),benchmarks) -p no:randomly -q --benchmark-autosave \
	  --benchmark-save-data --benchmark-columns=min,median,max,rounds --benchmark-sort=name \
	  $(if $(wildcard .benchmarks/*/*.json),--benchmark-compare)

bench-quick: $(VENV)/.dev  ## Every benchmark once, unmeasured: they cannot rot
	@$(VPY) -m pytest benchmarks --benchmark-disable -q $(ARGS)

bench-stalls: $(VENV)/.dev  ## Probe both workers under load for SECONDS (300): what holds them up?
	@$(VPY) -m benchmarks.stalls --seconds $(or $(SECONDS),300) --say $(ARGS)

loadtest: $(VENV)/.dev  ## A relay, and simulated users on it in Locust's web page (ARGS="--users 500 ...")
	@$(VPY) -m loadtest.run $(ARGS)

loadtest-smoke: $(VENV)/.dev  ## Simulated users for some seconds; fails on any broken promise
	@$(VPY) -m loadtest.smoke

bench-peers: $(VENV)/.peers  ## Relay beside NATS, Mosquitto, Redis and others that are installed
	@$(VPY) -m benchmarks.peers $(ARGS)
	@$(VPY) -m benchmarks.report

bench-growth: $(VENV)/.peers  ## How the cost grows with members, rooms, connections, size, workers, rate
	@$(VPY) -m benchmarks.growth $(ARGS)

check: lint types contracts test  ## All that needs no second look before a commit

lock: $(VENV)/.dev  ## Compile requirements/*.txt (ARGS=--upgrade takes newer releases)
	$(LOCK) --group dev -o requirements/dev.txt
	$(LOCK) --group build -c requirements/dev.txt -o requirements/run.txt
	$(LOCK) --group peers -c requirements/dev.txt -o requirements/peers.txt

clean:  ## Remove the environment and all caches
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

LOCK = $(VPY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
       --custom-compile-command "make lock" $(ARGS) pyproject.toml

# A missing or broken interpreter link: make the environment anew. Debian's venv has no ensurepip
# without the package python3-venv, so the system's pip installs from outside.
$(VPY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Relay needs Python 3.11 or later; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null \
	  || { echo "Relay's setup needs pip; on Debian: apt install python3-pip" >&2; exit 1; }
	$(PYTHON) -m venv --clear --without-pip $(VENV)

$(VENV)/.run: $(VPY) requirements/run.txt pyproject.toml
	$(PIP) install -q --require-hashes -r requirements/run.txt
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

# The tests' environment holds all that the server needs, at the same versions.
$(VENV)/.dev: $(VPY) requirements/dev.txt requirements/run.txt pyproject.toml
	$(PIP) install -q --require-hashes -r requirements/dev.txt
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $(VENV)/.run $@

# The peers written in Python, and what draws the charts; the others come from the distribution.
$(VENV)/.peers: $(VENV)/.dev requirements/peers.txt
	$(PIP) install -q --require-hashes -r requirements/peers.txt
	@touch $@
