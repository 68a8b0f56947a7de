"""A run's main scalars arrive at the endpoint that Prometheus reads."""

from __future__ import annotations

import time

import httpx
import pytest
import ray

from rl.prometheus import EXPORTED, PrometheusGauges
from tests.support.paths import ROOT

pytestmark = pytest.mark.cluster


def test_only_metrics_of_the_page_are_exported():
    page = (ROOT / "docs" / "metrics_rl.md").read_text(encoding="utf-8")
    assert all(f"| `{name}` |" in page for name in EXPORTED)


def test_a_gauge_can_be_scraped(ray_cluster):
    PrometheusGauges("scraped").set({"reward": -0.25, "length": 40.0})
    (node,) = ray.nodes()
    address = f"http://{node['NodeManagerAddress']}:{node['MetricsExportPort']}/metrics"
    deadline, found = time.monotonic() + 90, []
    while not found and time.monotonic() < deadline:
        text = httpx.get(address, timeout=10, trust_env=False).text
        found = [
            line
            for line in text.splitlines()
            if line.startswith("ray_lmrrg_ppo_") and 'run="scraped"' in line.lower()
        ]
        time.sleep(0 if found else 1)
    (line,) = found
    assert line.startswith("ray_lmrrg_ppo_reward{")
    assert float(line.rsplit(" ", 1)[1]) == -0.25
