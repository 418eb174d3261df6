# Fettle. `make demo` shows it, `make test` proves it. Every target sets up what it needs and can be repeated.
.DEFAULT_GOAL := help
SHELL := /bin/sh
PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
READY := $(VENV)/.ready

.PHONY: help setup demo test check bench lock clean

help:  ## list the targets
	@grep -E '^[a-z]+:.*## ' $(MAKEFILE_LIST) | sed -E 's/:.*## /\t/' | expand -t 10

$(READY): pyproject.toml requirements.lock
	@sh setup.sh "$(PYTHON)" "$(VENV)"
	@touch $(READY)

setup: $(READY)  ## make the environment .venv from nothing

demo: $(READY)  ## run everything on embedded parts with a simulated plant; FRESH=1 begins anew
	@exec $(BIN)/fettle demo $(if $(FRESH),--fresh,) $(ARGS)

test: $(READY)  ## run every test this machine can run
	$(BIN)/python -m pytest tests -n $$(n=$$(nproc); echo $$((n < 4 ? n + 1 : 5))) --dist worksteal $(ARGS)

check: $(READY)  ## format, lint, types, import contracts, unit and house tests
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/python -m pytest tests/unit tests/house -q

bench: $(READY)  ## run every benchmark; one alone: .venv/bin/python -m benchmarks NAME
	$(BIN)/python -m benchmarks all

lock: $(READY)  ## pin what is installed now
	sh setup.sh --lock "$(VENV)"

clean:  ## remove the environment and the demonstration's data
	rm -rf $(VENV) .fettle
