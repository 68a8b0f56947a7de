"""One small local Ray for all cluster tests."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest
import ray

from actors.placement import connect
from lmrrg.config import Config


@pytest.fixture(scope="session")
def ray_cluster(tiny_config: Config) -> Iterator[Path]:
    """A local cluster with a small object store; yields the folder of its session (logs).

    Its workers can import the modules of this folder, so that a test may define actors of its own.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(Path(__file__).parent), prepend=os.pathsep)
        patch.delenv("RAY_ADDRESS", raising=False)
        connect(tiny_config)
        yield Path(ray._private.worker.global_worker.node.get_session_dir_path())
        ray.shutdown()
