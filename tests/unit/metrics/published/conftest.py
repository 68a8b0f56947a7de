"""Random weights of the published architectures, written once for a file of tests."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.published.weights import write_weights


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))
