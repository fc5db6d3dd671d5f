# keystow's tasks. `make` lists them. Each sets up what it needs by itself.
.DEFAULT_GOAL := help
.PHONY: help demo run test revocation exports vectors check container protos docs requirements clean

BIN := .venv/bin
READY := .venv/.ready

help: ## list the tasks
	@sed -n 's/^\([a-z]*\):.*## \(.*\)/\1\t\2/p' $(MAKEFILE_LIST) | expand -t 14

$(READY): uv.lock requirements-dev.txt pyproject.toml protos/pyproject.toml service/pyproject.toml clients/python/pyproject.toml
	@echo "Setting up .venv; the first time this takes a minute, on a slow machine or line several."
	@deploy/environment.sh

demo: $(READY) ## about a minute: back up, restore, kill the server, export, disable a key, tamper, on a real server
	@$(BIN)/python deploy/demo.py

run: $(READY) ## a server on 127.0.0.1:50051 that keeps its data in ./data
	@echo "Serving on 127.0.0.1:50051, data in ./data. In another terminal: $(BIN)/keystow --help. Ctrl-C stops."
	@KEYSTOW_LOG_FORMAT=console $(BIN)/keystow-service serve

test: $(READY) ## all tests
	@$(BIN)/python -m pytest -n auto --maxprocesses 8 --dist loadfile

revocation: $(READY) ## a few minutes: how long plaintext flows after a key is disabled, in 100 trials; ARGS="--trials 6" for fewer
	@PYTHONPATH=bench:tests $(BIN)/python -m revocation $(ARGS)

exports: $(READY) ## ten minutes: the memory that an export of 100,000 objects takes; ARGS="--objects 10000" for fewer
	@PYTHONPATH=bench:tests $(BIN)/python -m export_memory $(ARGS)

vectors: $(READY) ## only the known answers from outside
	@$(BIN)/python -m pytest tests/vectors

check: $(READY) ## lint, types, layers, contract, and that nothing generated is stale
	@$(BIN)/ruff format --check --quiet .
	@$(BIN)/ruff check --quiet .
	@$(BIN)/mypy
	@$(BIN)/lint-imports
	@protos/lint.sh
	@$(BIN)/hadolint Dockerfile
	@protos/generate.sh ../build/protos && diff -r -x __pycache__ build/protos protos/python \
		|| { echo "protos/python is stale: run make protos"; exit 1; }
	@$(BIN)/python -m keystow_service.rpc.status | diff - docs/errors.md \
		|| { echo "docs/errors.md is stale: run make docs"; exit 1; }
	@if command -v uv >/dev/null; then deploy/requirements.sh build && diff build/requirements.txt requirements.txt \
		&& diff build/requirements-dev.txt requirements-dev.txt \
		|| { echo "the exported requirements are stale: run make requirements"; exit 1; }; fi
	@echo "check: all good"

container: $(READY) ## three minutes, as root on Debian: the image and deploy/compose.yaml, without Docker
	@deploy/container/check.sh

protos: $(READY) ## generate protos/python from the .proto files
	@protos/generate.sh

docs: $(READY) ## generate docs/errors.md from the status table
	@$(BIN)/python -m keystow_service.rpc.status > docs/errors.md

requirements: ## export uv.lock for machines without uv
	@deploy/requirements.sh .

clean: ## remove what the tasks made, but never ./data
	@rm -rf .venv build dist .mypy_cache .ruff_cache .pytest_cache .hypothesis .import_linter_cache
	@find . -name __pycache__ -type d -prune -exec rm -rf {} +
