# SPDX-License-Identifier: GPL-3.0-or-later
# Two commands do all the set-up they need: `make demo` and `make test`. `make help` lists the rest.

BIN := .venv/bin
# For two cores: tests wait for most of their time.
WORKERS ?= 4

.PHONY: help demo test test-full lint bench bench-controller setup lock clean

help: ## list what can be made
	@sed -n 's/^\([a-z-]*\):.*## /\1\t/p' Makefile | expand -t 14

demo: setup ## the main job in the lab: back up, change, back up, restore, boot (KEEP=1 leaves it running)
	@$(BIN)/python -m demo $(if $(KEEP),--keep)

test: setup lint ## everything but the slow suites, in under 15 minutes
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup -m "not slow"

test-full: setup lint ## all suites
	@setup/ansible-for-tests
	$(BIN)/pytest -n $(WORKERS) --dist loadgroup

lint: setup ## style, types, import contracts
	$(BIN)/ruff format --check .
	$(BIN)/ruff check .
	$(BIN)/mypy
	$(BIN)/lint-imports

bench: setup ## measure the data path against the tools a user would pick instead (QUICK=1 in three minutes)
	$(BIN)/python -m bench.datapath $(if $(QUICK),--quick)

bench-controller: setup ## measure the controller: 10,000 VMs due in the same minute (QUICK=1: 1,000)
	$(BIN)/python -m bench.controller $(if $(QUICK),--quick)

setup: ## Debian packages and the Python environment, once
	@setup/install

lock: setup ## resolve requirements.lock anew
	@setup/lock

clean: ## remove what setup and the tests made in this folder
	rm -rf .venv .tools .cache .mypy_cache .ruff_cache .pytest_cache .import_linter_cache .hypothesis
