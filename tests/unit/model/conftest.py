"""Make small features, prompts and reports for the tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.model.generator import ReportGenerator
from lmrrg.model.region_queries import region_queries
from lmrrg.vision.study_features import StudyFeatures


@pytest.fixture(scope="session")
def queries() -> torch.Tensor:
    return region_queries()


@pytest.fixture
def model(tiny_config: Config, tiny_checkpoint: Path) -> ReportGenerator:
    """Load the tiny model, in evaluation mode; every test has its own."""
    return load_checkpoint(tiny_checkpoint)


@pytest.fixture
def features(model: ReportGenerator) -> StudyFeatures:
    """Make four studies; the first and the third have one view of two."""
    random = torch.Generator().manual_seed(3)
    shape = (4, 2, model.inputs.patches, model.inputs.patch_width)
    return StudyFeatures(
        torch.randn(shape, generator=random),
        torch.tensor([[0, 0], [0, 4], [2, 0], [1, 3]]),
        torch.tensor([[True, False], [True, True], [True, False], [True, True]]),
    )
