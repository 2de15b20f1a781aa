# The two commands of the README are `make demo` and `make test`; each does all of its set-up, and is quick afterwards.
# Needs Python 3.11 to 3.13 with pip, and make. No root, no Docker, no server installed.

# The one behind an environment that is active, for that has no pip.
PYTHON ?= $(shell python3 -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))')
VENV ?= .venv
IMAGES ?=
PYTEST ?=

# Without ensurepip, which some systems split off: the pip that is there installs into the environment.
PIP = $(PYTHON) -m pip --disable-pip-version-check --python $(VENV)/bin/python install --quiet --no-warn-script-location
FAULTS = $(VENV)/bin/python -m pytest -q -n 3 tests/acceptance/faults
PINS = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header --no-annotate -c requirements/constraints.in \
	pyproject.toml requirements/build.in --extra local --extra postgres

.PHONY: help demo test fault tests lint run-environment dev-environment pins clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: $(VENV)/run.done ## Score an archive with the whole system: made-up pictures, or IMAGES=folder
	@DERMQ_HOME=$(CURDIR)/.demo $(VENV)/bin/dermq demo $(if $(IMAGES),"$(IMAGES)")

# Two files at a time, for some compute while others wait. The fault tests apart, for they mostly wait and go three at a time.
test: $(VENV)/dev.done ## Run every test (PYTEST="-k name" for some)
ifeq ($(PYTEST),)
	@$(VENV)/bin/python -m pytest -q -n 2 --dist loadfile --ignore=tests/acceptance/faults
	@DERMQ_FAULT_STORM_SECONDS=$${DERMQ_FAULT_STORM_SECONDS:-30} $(FAULTS)
else
	@$(VENV)/bin/python -m pytest -q $(PYTEST)
endif

faults: $(VENV)/dev.done ## Run the fault tests of docs/operations.md
	@$(FAULTS) $(PYTEST)

lint: $(VENV)/dev.done ## Format check, lint, types and the import rule
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/lint-imports --no-logo >.import-rule.log 2>&1 || { cat .import-rule.log; exit 1; }
	@rm -f .import-rule.log

run-environment: $(VENV)/run.done ## Set up what scores images

dev-environment: $(VENV)/dev.done ## Set up the trainer and the checks too

pins: ## Make the pinned requirements anew (needs uv)
	$(PINS) -o requirements/run.txt
	$(PINS) --extra trainer --group dev -c requirements/run.txt -o requirements/dev.txt

clean: ## Remove environment, demo and caches
	rm -rf $(VENV) .demo .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), f"dermq needs Python 3.11 to 3.13, this is {sys.version}: make PYTHON=python3.12"'
	@echo "Setting up $(VENV) (once; minutes without a word, 0.6 GB) …"
	@$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/run.done: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@$(PIP) --require-hashes -r requirements/run.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.done: requirements/dev.txt $(VENV)/run.done
	@echo "Installing the trainer and the checks (once; minutes without a word, 2.7 GB more) …"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@
	@echo "Ready. For its commands: source $(VENV)/bin/activate"
