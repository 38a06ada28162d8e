# Relay: `make run` starts a relay, `make test` runs the tests. Both set up .venv by themselves.
# Needs make, Python 3.11 or later, pip 22.3 or later (Debian: python3 python3-pip).
# Background: docs/decisions/002-make-and-pip.md.

PYTHON ?= python3
ARGS   ?=
# Tests spend more time waiting for processes than computing, so run more of them than there are cores.
JOBS   ?= 6

VENV := .venv
# The compiled build has an environment of its own: nothing compiled lies beside the sources.
COMPILED := .venv-compiled
VPY  := $(VENV)/bin/python
PIP  := $(PYTHON) -m pip --python $(VPY) --disable-pip-version-check
CODE := relay tests benchmarks loadtest examples hatch_build.py

.DEFAULT_GOAL := help
.PHONY: help run test compiled test-compiled torture-compiled compiled-checkout lint format types contracts bench bench-quick bench-stalls bench-storm bench-peers bench-growth bench-search bench-paired dashboard-picture loadtest loadtest-smoke torture torture-saturated drill soak dist fuzz attacks check lock clean

help:  ## List the targets
	@grep -hE '^[a-z-]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/^([a-z-]+):.*## /  make \1\t/' | expand -t 26

run: $(VENV)/.run  ## Run a relay with production defaults (ARGS="--workers 2 ..." adds flags)
	@exec $(VENV)/bin/relay serve --registration open $(ARGS)

test: $(VENV)/.dev | tests/__pycache__  ## Run the tests (ARGS="tests/wire -k name ..." selects some)
	@$(VPY) -m pytest -q -n $(JOBS) --dist loadfile $(ARGS)

# pytest rewrites what it collects, and keeps that. In a fresh checkout all its processes would do the
# same work at the same time, 7 s of the processor each: two share it before they start.
tests/__pycache__: | $(VENV)/.dev
	@$(VPY) -m pytest -q --collect-only tests/[a-r]*/ tests/s[ty]*/ >/dev/null & \
	  $(VPY) -m pytest -q --collect-only tests/s[eu]*/ tests/[t-z]*/ tests/test_*.py >/dev/null; \
	  wait

compiled: $(COMPILED)/.relay  ## Compile the data path into .venv-compiled (needs a C compiler; see README.md)

# Tests of the compiled build run in a copy of the checkout without relay/: what they import is what
# is installed. The broken variants replace methods inside of the worker, which no compiled caller
# would notice, and the commands of docs/operations.md build a package: they run on the source alone.
test-compiled: compiled-checkout  ## Run the tests against the compiled build (ARGS as for test)
	@cd $(COMPILED)/checkout && ../bin/python -m pytest -q -n $(JOBS) --dist loadfile \
	  --ignore tests/torture/test_broken_variants.py \
	  --ignore tests/system/test_operations_commands.py $(ARGS)

torture-compiled: compiled-checkout  ## As torture, with the compiled build
	@cd $(COMPILED)/checkout && ../bin/python -m tests.torture --seconds $(or $(SECONDS),600) \
	  $(if $(SEED),--seed $(SEED)) $(ARGS)

compiled-checkout: $(COMPILED)/.relay
	@rm -rf $(COMPILED)/checkout && mkdir $(COMPILED)/checkout
	@git ls-files -z --cached --others --exclude-standard | grep -zv '^relay/' \
	  | xargs -0 cp --parents --target-directory=$(COMPILED)/checkout
	@cd $(COMPILED)/checkout && ../bin/python -m tests.compiled

# Without SEED each run chooses a new one, and prints it so that the run can be repeated.
torture: $(VENV)/.dev  ## Kill, stop and disconnect everything for SECONDS (600), by SEED; check what clients saw
	@$(VPY) -m tests.torture --seconds $(or $(SECONDS),600) $(if $(SEED),--seed $(SEED)) $(ARGS)

torture-saturated: $(VENV)/.dev  ## Flood a relay for SECONDS (60), and check what clients saw
	@$(VPY) -m tests.torture.saturated --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(ARGS)

drill: $(VENV)/.dev  ## Restart, resize, reload, kill and stop a relay under load; a table of what clients noticed
	@$(VPY) -m tests.drill $(ARGS)

soak: $(VENV)/.dev  ## Half load with chaos for SECONDS (1800), by SEED; whether memory or descriptors grow
	@$(VPY) -m tests.drill.soak --seconds $(or $(SECONDS),1800) $(if $(SEED),--seed $(SEED)) $(ARGS)

fuzz: $(VENV)/.dev  ## Look for inputs that break a promise, for SECONDS (60), by SEED
	@$(VPY) -m tests.fuzz --seconds $(or $(SECONDS),60) $(if $(SEED),--seed $(SEED)) $(ARGS)

attacks: $(VENV)/.dev  ## Measure what an honest pair of clients notices of each attack, SECONDS (10) each
	@$(VPY) -m tests.fuzz.server --seconds $(or $(SECONDS),10) $(if $(SEED),--seed $(SEED)) $(ARGS)

lint: $(VENV)/.dev  ## Check style, format, and that dependencies are declared and used
	@$(VPY) -m ruff check $(CODE)
	@$(VPY) -m ruff format --check $(CODE)
	@$(VPY) -m deptry relay

format: $(VENV)/.dev  ## Format the code, and apply automatic fixes
	@$(VPY) -m ruff format $(CODE)
	@$(VPY) -m ruff check --fix $(CODE)

types: $(VENV)/.dev  ## Run mypy --strict
	@$(VPY) -m mypy

contracts: $(VENV)/.dev  ## Check which package may import which
	@$(VENV)/bin/lint-imports --no-logo

bench: $(VENV)/.dev  ## Run all benchmarks, compared with the last saved run (ARGS="benchmarks/micro ...")
	@$(VPY) -m pytest $(or $(ARGS),benchmarks) -p no:randomly -q --benchmark-autosave \
	  --benchmark-save-data --benchmark-columns=min,median,max,rounds --benchmark-sort=name \
	  $(if $(wildcard .benchmarks/*/*.json),--benchmark-compare)

# Nothing is measured, so several run at the same time.
bench-quick: $(VENV)/.dev  ## Run every benchmark once, unmeasured, to see that it works
	@$(VPY) -m pytest benchmarks --benchmark-disable -q -n 3 $(ARGS)

bench-stalls: $(VENV)/.dev  ## Probe both workers under load, checkpoints, retention, search and export, for SECONDS (300): what blocks their event loops
	@$(VPY) -m benchmarks.stalls --seconds $(or $(SECONDS),300) --collections $(ARGS)

bench-storm: $(VENV)/.dev  ## Thousands return at once, hostile handshakes, spent budgets: live members' delays (ARGS="--returning 5000 many")
	@$(VPY) -m benchmarks.storm $(ARGS)

loadtest: $(VENV)/.dev  ## Run a relay and simulated users, in Locust's web page (ARGS="--users 500 ...")
	@$(VPY) -m loadtest.run $(ARGS)

loadtest-smoke: $(VENV)/.dev  ## Run simulated users for some seconds; fails if any guarantee is broken
	@$(VPY) -m loadtest.smoke

bench-peers: $(VENV)/.peers  ## Measure Relay beside NATS, Mosquitto, Redis and others that are installed
	@$(MAKE) --silent compiled || echo "The compiled build does not take part."
	@$(VPY) -m benchmarks.peers $(ARGS)
	@$(VPY) -m benchmarks.report

bench-growth: $(VENV)/.peers  ## Measure how cost grows with members, rooms, connections, size, workers, rate
	@$(VPY) -m benchmarks.growth $(ARGS)

bench-search: $(VENV)/.dev  ## Search a room of a million messages beside chat, for SECONDS (60)
	@$(VPY) -m benchmarks.search --seconds $(or $(SECONDS),60) $(ARGS)

dashboard-picture: $(VENV)/.peers  ## Draw the dashboard's panels from a drill that a real Prometheus watches (needs prometheus)
	@$(VPY) -m tests.drill.dashboard docs/dashboard.png $(ARGS)

bench-paired: $(VENV)/.dev  ## Measure this checkout's server beside that of the revision BASE (ARGS="--pairs 3 ...")
	@$(VPY) -m benchmarks.paired $(or $(BASE),$(error which revision? make bench-paired BASE=v0.1.0)) $(ARGS)

# What a machine cannot build is left out, with a line about it. The image takes minutes and all of Debian's archive.
dist: $(VENV)/.dev  ## Build what is given out into dist/: wheel, sources, Debian package, OCI image, checksums
	@rm -rf dist
	@SOURCE_DATE_EPOCH=$$(git log -1 --format=%ct) $(VPY) -m hatchling build --directory dist >/dev/null
	@if command -v dpkg-deb >/dev/null && /usr/bin/python3 -m pip --version >/dev/null 2>&1; \
	  then deploy/debian/build dist/*.whl dist && deploy/debian/try dist/*.deb; \
	  else echo "Without the Debian package: it needs dpkg-deb, and Debian's python3-pip."; fi
	@if [ -e dist/*.deb ] && [ "$$(id -u)" = 0 ] && command -v mmdebstrap >/dev/null && command -v umoci >/dev/null; \
	  then deploy/image/build dist/*.deb dist && deploy/image/try dist/*.oci.tar $(VENV)/bin/relay; \
	  else echo "Without the image: it needs root, mmdebstrap and umoci."; fi
	@cd dist && sha256sum * > ../SHA256SUMS.new && mv ../SHA256SUMS.new SHA256SUMS && cat SHA256SUMS

check: lint types contracts test  ## Run lint, types, contracts and tests, as before every commit

lock: $(VENV)/.dev  ## Compile requirements/*.txt (ARGS=--upgrade takes newer releases)
	$(LOCK) --group dev -o requirements/dev.txt
	$(LOCK) --group build -c requirements/dev.txt -o requirements/run.txt
	$(LOCK) -c requirements/dev.txt -o requirements/server.txt
	$(LOCK) --group peers -c requirements/dev.txt -o requirements/peers.txt
	$(VPY) deploy/sbom.py

clean:  ## Remove the environment and all caches
	rm -rf $(VENV) $(COMPILED) .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis dist build
	find $(CODE) -name __pycache__ -type d -prune -exec rm -rf {} +

LOCK = $(VPY) -m uv pip compile --quiet --universal --python-version 3.11 --generate-hashes \
       --custom-compile-command "make lock" $(ARGS) pyproject.toml

# A missing or broken interpreter link: recreate the environment. Debian's venv has no ensurepip
# without the package python3-venv, so the system's pip installs from outside.
$(VPY):
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Relay needs Python 3.11 or later; try: make PYTHON=python3.12" >&2; exit 1; }
	@$(PYTHON) -m pip --version >/dev/null \
	  || { echo "Relay's setup needs pip; on Debian: apt install python3-pip" >&2; exit 1; }
	$(PYTHON) -m venv --clear --without-pip $(VENV)

$(VENV)/.run: $(VPY) requirements/run.txt pyproject.toml relay/__init__.py
	$(PIP) install -q --require-hashes -r requirements/run.txt
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $@

# The tests' environment holds all that the server needs, at the same versions.
$(VENV)/.dev: $(VPY) requirements/dev.txt requirements/run.txt pyproject.toml relay/__init__.py
	$(PIP) install -q --require-hashes -r requirements/dev.txt
	$(PIP) install -q --no-deps --no-build-isolation -e .
	@touch $(VENV)/.run $@

# Installed as a wheel, never editable. The tools are those of .venv, by a file of paths: installing
# them twice would take minutes. (Editable installations in there are not found that way.)
$(COMPILED)/.relay: $(VENV)/.dev hatch_build.py $(shell find relay -name '*.py')
	$(VPY) -m venv --clear --without-pip $(COMPILED)
	@$(VPY) -c 'import sysconfig; print(sysconfig.get_path("purelib"))' \
	  > "$$($(COMPILED)/bin/python -c 'import sysconfig; print(sysconfig.get_path("purelib"))')/tools.pth"
	RELAY_COMPILE=1 $(PYTHON) -m pip --python $(COMPILED)/bin/python --disable-pip-version-check \
	  install -q --no-deps --no-build-isolation --force-reinstall .
	@touch $@

# The peers written in Python, and what draws the charts; the others come from the distribution.
$(VENV)/.peers: $(VENV)/.dev requirements/peers.txt
	$(PIP) install -q --require-hashes -r requirements/peers.txt
	@touch $@
