# The README names `make demo` and `make test`. Each sets up what it needs the first time.
# Needs Python 3.11 to 3.13 with pip, and make. No root, no Docker, no server installed.

# The interpreter behind an active environment, which itself has no pip.
PYTHON ?= $(shell python3 -c 'import sys; print(getattr(sys, "_base_executable", sys.executable))')
VENV ?= .venv
IMAGES ?=
PYTEST ?=

# Without ensurepip, which some systems package separately: the pip of the system installs into the environment.
PIP = $(PYTHON) -m pip --disable-pip-version-check --python $(VENV)/bin/python install --quiet --no-warn-script-location
FAULTS = tests/acceptance/faults
QUICK = $(VENV)/bin/python -m pytest -q -m "not slow"
LONG = $(VENV)/bin/python -m pytest -q -m slow
PINS = uv pip compile --quiet --universal --python-version 3.11 --generate-hashes --no-emit-index-url \
	--no-emit-find-links --no-header --no-annotate -c requirements/constraints.in \
	pyproject.toml requirements/build.in --extra local --extra postgres --extra dicom

.PHONY: help demo test test-long test-all faults lint run-environment dev-environment pins clean

help: ## List the commands
	@grep -E '^[a-z-]+:.*##' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 20

demo: $(VENV)/run.done ## Score an archive with the whole system: synthetic images, or IMAGES=folder
	@DERMQ_HOME=$(CURDIR)/.demo $(VENV)/bin/dermq demo $(if $(IMAGES),"$(IMAGES)")

# By file on two processors. The fault tests run apart, three at a time, because they mostly wait.
test: $(VENV)/dev.done ## Run the quick tests, 10 minutes on two processors (PYTEST="-k name" for some of all tests)
ifeq ($(PYTEST),)
	@$(QUICK) -n 2 --dist loadfile --ignore=$(FAULTS)
	@$(QUICK) -n 3 $(FAULTS)
else
	@$(VENV)/bin/python -m pytest -q $(PYTEST)
endif

test-long: $(VENV)/dev.done ## Run the long tests: trainings, storms, and every fault on both databases
	@$(LONG) -n 2 --dist loadfile --ignore=$(FAULTS)
	@$(LONG) -n 3 $(FAULTS)

test-all: test test-long ## Run every test

faults: $(VENV)/dev.done ## Run every fault test of docs/operations.md
	@$(VENV)/bin/python -m pytest -q -n 3 $(FAULTS) $(PYTEST)

lint: $(VENV)/dev.done ## Format check, lint, types and the import rule
	@$(VENV)/bin/ruff format --check --quiet .
	@$(VENV)/bin/ruff check --quiet .
	@$(VENV)/bin/mypy --no-error-summary
	@$(VENV)/bin/lint-imports --no-logo >.import-rule.log 2>&1 || { cat .import-rule.log; exit 1; }
	@rm -f .import-rule.log

run-environment: $(VENV)/run.done ## Set up the environment that scores images

dev-environment: $(VENV)/dev.done ## Set up the trainer and the checks too

pins: ## Pin the requirements again (needs uv)
	$(PINS) -o requirements/run.txt
	$(PINS) --extra trainer --extra parquet --extra s3 --extra https --group dev -c requirements/run.txt -o requirements/dev.txt

clean: ## Remove environment, demo and caches
	rm -rf $(VENV) .demo .cache .mypy_cache .pytest_cache .ruff_cache .hypothesis .import_linter_cache

$(VENV)/bin/python:
	@$(PYTHON) -c 'import sys; assert (3, 11) <= sys.version_info[:2] <= (3, 13), f"dermq needs Python 3.11 to 3.13, this is {sys.version}: make PYTHON=python3.12"'
	@echo "Setting up $(VENV) (once; takes minutes, 0.6 GB) …"
	@$(PYTHON) -m venv --without-pip $(VENV)

$(VENV)/run.done: requirements/run.txt pyproject.toml | $(VENV)/bin/python
	@$(PIP) --require-hashes -r requirements/run.txt
	@$(PIP) --no-deps --no-build-isolation -e .
	@touch $@

$(VENV)/dev.done: requirements/dev.txt $(VENV)/run.done
	@echo "Installing the trainer and the checks (once; takes minutes, 2.7 GB more) …"
	@$(PIP) --require-hashes -r requirements/dev.txt
	@touch $@
	@echo "Ready. For its commands: source $(VENV)/bin/activate"
