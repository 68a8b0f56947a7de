# Every target does its own set-up; ENGINE=gpu installs the GPU lock file.
ENGINE ?= cpu
BIN := .venv/bin

.PHONY: demo test lint bench setup
setup:
	@scripts/setup.sh $(ENGINE)

demo: setup
	$(BIN)/lmrrg demo --config configs/demo.yaml

test: setup
	$(BIN)/python -m pytest

lint: setup
	$(BIN)/ruff check .
	$(BIN)/ruff format --check .
	$(BIN)/mypy
	$(BIN)/lint-imports
	$(BIN)/pre-commit validate-config

bench: setup
	for script in benchmarks/*.py; do $(BIN)/python $$script || exit 1; done
