"""A trace is written where one is asked for, and nothing happens where it is not."""

from __future__ import annotations

import gzip
import json
from pathlib import Path

import torch

from lmrrg.policy.profiling import traced


def test_a_trace_names_the_operators_of_the_block(tmp_path: Path):
    path = tmp_path / "profile" / "update1.json.gz"
    with traced(path):
        torch.ones(8, 8) @ torch.ones(8, 8)
    with gzip.open(path, "rt") as trace:
        names = {event.get("name") for event in json.load(trace)["traceEvents"]}
    assert "aten::matmul" in names


def test_without_a_path_nothing_is_written(tmp_path: Path):
    with traced(None):
        torch.ones(2)
    assert not list(tmp_path.iterdir())
