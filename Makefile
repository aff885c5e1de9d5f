# Every task of the project. `make help` lists them; CI calls nothing else.
SHELL := /bin/bash
.SHELLFLAGS := -euo pipefail -c
.DEFAULT_GOAL := help

PYTHON ?= python3
VENV := .venv
BIN := $(VENV)/bin
RUN := $(BIN)/python -m
SOURCES := crds operator trainer_image server_image cli monitoring e2e tests examples benchmarks
# Debian keeps ensurepip in a package of its own.
INSTALL_VENV = { test "$$(id -u)" = 0 && test -f /etc/debian_version \
  && echo "Installing the Debian package python3-venv" && apt-get update -qq && apt-get install -y -qq python3-venv; } \
  || { echo "$(PYTHON) cannot create virtual environments: install its venv module (Debian: python3-venv)"; exit 1; }
export PYTHONPATH := $(CURDIR)/crds:$(CURDIR)/operator:$(CURDIR)/trainer_image:$(CURDIR)/server_image:$(CURDIR)/cli:$(CURDIR)/monitoring:$(CURDIR)

##@ Start here

.PHONY: help
help: ## List every task.
	@awk 'BEGIN {FS = ":.*## "} \
	  /^##@/ {printf "\n\033[1m%s\033[0m\n", substr($$0, 5)} \
	  /^[a-zA-Z0-9_-]+:.*## / {printf "  \033[36m%-18s\033[0m %s\n", $$1, $$2}' $(MAKEFILE_LIST)

.PHONY: demo
demo: setup ## From three YAML objects to an answer, on a real throw-away cluster.
	@$(RUN) e2e.demo run

.PHONY: demo-canary
demo-canary: setup ## On the demo's cluster: a better version is promoted under load, a worse one undone.
	@$(RUN) e2e.demo canary

.PHONY: demo-down
demo-down: setup ## Remove what `make demo` started (the cache of built things stays).
	@$(RUN) e2e.demo down

.PHONY: test
test: lint tools test-unit test-integration test-rollouts test-images test-e2e ## Every check and every test.

##@ Checks

.PHONY: lint
lint: setup verify ## Style, types and import layers.
	$(BIN)/ruff format --check $(SOURCES)
	$(BIN)/ruff check $(SOURCES)
	$(BIN)/mypy
	$(BIN)/lint-imports

.PHONY: verify
verify: setup ## Fail when CRDs, chart or reference differ from the models.
	$(RUN) tunewright_api.generate --check
	$(RUN) tunewright_monitoring.generate --check
	$(RUN) tunewright_cli.reference --check

.PHONY: test-unit
test-unit: setup ## Pure code: no cluster, no model. Some of it is read by istioctl, promtool and helm (`make tools`).
	$(BIN)/pytest tests/unit

.PHONY: test-integration
test-integration: setup tools ## The operator and the chart against a real apiserver.
	$(BIN)/pytest tests/integration tests/chart -m "not node" --numprocesses 2 --dist loadfile

.PHONY: test-rollouts
test-rollouts: setup tools ## Rollouts through real Istio, Envoy and Prometheus, on scripted model servers.
	$(BIN)/pytest tests/rollouts --timeout 600

.PHONY: test-images
test-images: setup images model extensions ## Trainer and server: the real code on a real small model.
	$(BIN)/pytest tests/trainer -m "not exhaustive" --timeout 600 --numprocesses 2 --dist loadfile
	$(BIN)/pytest tests/server --timeout 600

.PHONY: test-exhaustive
test-exhaustive: setup model extensions ## Every setting of the memory estimate, every way to share a step (40 minutes).
	$(BIN)/pytest tests/trainer -m exhaustive --timeout 900

.PHONY: test-e2e
test-e2e: setup tools images model ## Everything on the real node: containers, training, serving.
	$(BIN)/pytest e2e/scenarios tests/integration -m node --timeout 2400

##@ Parts

.PHONY: setup
setup: $(VENV)/.ready ## Create the virtual environment.

$(VENV)/.ready: requirements/bootstrap.txt requirements/dev.txt
	@echo "Creating $(VENV) (about 5 GB of packages)"
	@$(PYTHON) -c 'import sys; sys.exit(sys.version_info < (3, 11))' \
	  || { echo "Tunewright needs Python 3.11 or newer: set PYTHON=/path/to/python3.11"; exit 1; }
	@$(PYTHON) -c 'import ensurepip' 2>/dev/null || $(INSTALL_VENV)
	@test -x $(BIN)/pip || $(PYTHON) -m venv $(VENV)
	@$(BIN)/pip install --quiet --disable-pip-version-check --require-hashes -r requirements/bootstrap.txt
	@$(BIN)/uv pip install --quiet --python $(BIN)/python --require-hashes -r requirements/dev.txt
	@touch $@

.PHONY: tools
tools: setup ## Build Kubernetes, Istio, Prometheus, Helm and the like into the cache.
	@$(RUN) e2e.cluster build

.PHONY: images
images: setup ## Build the three container images into the cache.
	@$(RUN) e2e.images build all

.PHONY: model
model: setup ## Put the small base model into the cache.
	@$(RUN) e2e.images model

.PHONY: extensions
extensions: setup ## Compile what DeepSpeed needs for NVMe disks into the cache.
	@$(RUN) e2e.images extensions

.PHONY: cluster-up
cluster-up: setup ## Start the throw-away cluster alone.
	@$(RUN) e2e.cluster up

.PHONY: cluster-down
cluster-down: setup ## Stop the throw-away cluster.
	@$(RUN) e2e.cluster down

.PHONY: bench-cluster
bench-cluster: setup ## Print how fast the throw-away clusters start.
	@$(RUN) benchmarks.cluster

.PHONY: bench-server
bench-server: setup tools images model ## Print what Envoy and the server image cost against bare vLLM.
	@$(RUN) benchmarks.server_overhead

.PHONY: bench-cli
bench-cli: setup tools ## Print how fast the CLI's screens appear with 1,000 objects.
	@$(RUN) benchmarks.cli

.PHONY: bench-trainer
bench-trainer: setup model ## Measure the trainer: packing, against a bare loop and TRL, stalls, start-up; fails below a bar. The memory estimate's is in test-images.
	@failed=; for name in step trl packing stall startup; do $(RUN) benchmarks.trainer.$$name || failed="$$failed $$name"; done; \
	  test -z "$$failed" || { echo "below the bar:$$failed"; exit 1; }

##@ Upkeep

.PHONY: format
format: setup ## Format and fix what can be fixed.
	$(BIN)/ruff format $(SOURCES)
	$(BIN)/ruff check --fix $(SOURCES)

.PHONY: generate
generate: setup ## Write CRDs, rules, dashboards and reference pages from the code.
	$(RUN) tunewright_api.generate
	$(RUN) tunewright_monitoring.generate
	$(RUN) tunewright_cli.reference

.PHONY: docs-images
docs-images: setup tools images model ## Draw the dashboards into docs/images from a run of the canary's scenarios.
	DOCS_IMAGES=docs/images $(BIN)/pytest e2e/scenarios/test_canary.py -m node --timeout 2400

.PHONY: docs-kubectl
docs-kubectl: demo-canary ## Write docs/kubectl.md from the cluster of the canary's demo, which stays up.
	$(RUN) e2e.demo page docs/kubectl.md

.PHONY: lock
lock: setup ## Pin every dependency anew.
	$(RUN) e2e.images lock

.PHONY: clean
clean: ## Remove the virtual environment and caches of this checkout.
	rm -rf $(VENV) .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
