"""Test every shipped layout on four simulated nodes, and the loss of one of them."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from typing import Any

import pytest

from tests.support.paths import ROOT


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Any]:
    """Return the report of ``simulated_cluster.py``; it runs beside the session's cluster."""
    environment = {name: value for name, value in os.environ.items() if name != "RAY_ADDRESS"}
    environment["PYTHONPATH"] = str(ROOT)
    run = subprocess.run(
        [sys.executable, "tests/support/simulated_cluster.py", "configs/layouts"],
        cwd=ROOT,
        env=environment,
        capture_output=True,
        text=True,
        timeout=280,
        check=False,
    )
    assert run.returncode == 0, run.stderr[-3000:]
    return json.loads(run.stdout.splitlines()[-1])


def test_every_layout_is_placed(report):
    gpus = {name: placed["gpus_per_node"] for name, placed in report["placed"].items()}
    assert sum(gpus["1gpu_colocated"]) == 1
    assert sum(gpus["1gpu_split"]) == pytest.approx(1)
    assert sum(gpus["8gpu_colocated"]) == sum(gpus["8gpu_split"]) == 8
    assert gpus["4x8gpu_colocated"] == [8, 8, 8, 8]
    assert sum(gpus["4x8gpu_split"]) == 32
    assert all(max(nodes) <= 8 for nodes in gpus.values())


def test_a_colocated_seat_is_one_gpu(report):
    seats = report["seats"]
    assert seats["policy_first"] == seats["reference_first"] == seats["engine_first"]
    assert (
        seats["policy_last"]
        == seats["reference_last"]
        == seats["engine_last"]
        != seats["policy_first"]
    )
    assert len(seats["policy_first"][1]) == 1, "each actor sees one GPU"


def test_engines_of_a_lost_node_come_back_on_another(report):
    loss = report["loss"]
    assert loss["answers"] == 6
    assert loss["replaced"] == 3
    assert loss["lost"] not in loss["answered_from"]


def test_what_no_longer_fits_is_refused_with_the_missing_node(report):
    refusal = report["too_small_now"]
    assert refusal["code"] == "resources_short"
    assert (
        "missing: 8 x {CPU 10, GPU 1}, that is 1 more node with CPU 96, GPU 8" in refusal["message"]
    )
    assert "its nodes have 3 x {CPU 96, GPU 8}" in refusal["message"]
    assert refusal["seconds"] < 30
