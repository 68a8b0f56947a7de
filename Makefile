# Every target does its own set-up; ENGINE=gpu installs the GPU lock file.
ENGINE ?= cpu
BIN := .venv/bin
# Benchmarks that need neither files of the user's nor a finished run; the others say what they need with --help.
ALONE := fuzz/images pixel_equality public_metrics $(addprefix speed/,data reward rollout overhead overlap memory sft_vs_torch ppo_vs_trl)

.PHONY: demo test lint audit bench setup
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
	$(BIN)/python scripts/configuration_docs.py --check
	$(BIN)/pre-commit validate-config
	$(BIN)/python scripts/style.py
	$(BIN)/bandit -q -r -c pyproject.toml lmrrg sft rl serve_app actors

# Needs the network, so it is no part of lint.
audit: setup
	$(BIN)/uv tool run pip-audit --disable-pip -r requirements/$(ENGINE).txt

bench: setup
	for script in $(ALONE); do echo "== $$script" && $(BIN)/python benchmarks/$$script.py || exit 1; done
