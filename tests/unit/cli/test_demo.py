"""Test which stages a run has."""

from __future__ import annotations

from lmrrg.cli.demo import _stages
from lmrrg.config.loading import load_config


def names(*overrides: str) -> list[str]:
    return [name for name, _ in _stages(load_config(None, list(overrides)))]


def test_the_eye_is_a_stage_only_where_the_settings_train_it():
    without = ["studies", "SFT", "PPO", "evaluation", "run report"]
    assert names() == without
    assert names("eye.epochs=6") == ["studies", "eye", *without[1:]]
