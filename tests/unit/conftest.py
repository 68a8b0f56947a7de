from pathlib import Path

import pytest


@pytest.fixture(scope="session")
def repo_root() -> Path:
    """The checkout that is tested."""
    return Path(__file__).resolve().parents[2]
