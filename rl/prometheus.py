"""Export the main metrics of a run to Prometheus, through the endpoint that every Ray node has."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Gauge

EXPORTED = {
    "reward": "mean reward of the iteration's reports",
    "kl_per_sequence": "KL to the SFT model, nats per report",
    "kl_coefficient": "lambda_KL, reward per nat",
    "distinct_ratio": "fraction of different reports",
    "incoherent_ratio": "fraction of reports that contradict or repeat themselves",
    "parity": "mean |engine - trainer| log-prob, nats",
    "heldout": "held-out metric of greedy reports",
    "grad_norm": "mean gradient norm before clipping",
    "iteration_s": "seconds of the iteration without validation",
    "tokens_per_s": "report tokens per second",
    "restarts": "losses of policy, reference or a node so far",
}
"""Names of docs/metrics_rl.md, and their help texts; Prometheus adds ``ray_lmrrg_ppo_``."""


class PrometheusGauges:
    """Gauges of one run, which has its name as the label ``run``; Ray must be running."""

    def __init__(self, run: str):
        # The name of the run is a label, so that one panel can show several runs.
        self._gauges = {
            name: Gauge(f"lmrrg_ppo_{name}", help_text, ("run",))
            for name, help_text in EXPORTED.items()
        }
        self._tags = {"run": run}

    def set(self, metrics: Mapping[str, float]) -> None:
        """Export the metrics of an iteration; gauges of absent metrics keep their last value."""
        for name, gauge in self._gauges.items():
            if name in metrics:
                gauge.set(metrics[name], self._tags)
