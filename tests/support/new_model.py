"""Builds new models for the tests from a whole settings tree."""

from __future__ import annotations

from collections.abc import Sequence

from lmrrg.config.tree import Config
from lmrrg.model.generator import ReportGenerator, build_generator


def new_model(config: Config, reports: Sequence[str]) -> ReportGenerator:
    """Return the model of the settings with random weights from the run's seed."""
    return build_generator(config.model, config.data, reports, seed=config.seed)
