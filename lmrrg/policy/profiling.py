"""Traces of torch operators, to look at in https://ui.perfetto.dev or chrome://tracing."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch


@contextmanager
def traced(path: Path | None) -> Iterator[None]:
    """Record every operator of the block, on CPU and GPU, and write the trace to ``path``.

    Recording costs time: what is timed inside the block takes longer than without it.

    Args:
        path: a file ``.json.gz``; None records nothing.
    """
    if path is None:
        yield
        return
    with torch.profiler.profile() as profile:
        yield
    # Written only when the block succeeded: a trace of half an update would mislead.
    path.parent.mkdir(parents=True, exist_ok=True)
    profile.export_chrome_trace(str(path))
