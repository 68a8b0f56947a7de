"""The main scalars of a run for Prometheus, through the endpoint that Ray's nodes have anyway."""

from __future__ import annotations

from collections.abc import Mapping

from ray.util.metrics import Gauge

EXPORTED = {
    "reward": "mean reward of the iteration's reports",
    "kl_per_sequence": "KL to the SFT model, nats per report",
    "kl_coefficient": "lambda_KL, reward per nat",
    "distinct_ratio": "share of different reports",
    "parity": "mean |engine - trainer| log-prob, nats",
    "heldout": "held-out metric of greedy reports",
    "grad_norm": "mean gradient norm before clipping",
    "iteration_s": "seconds of the iteration without validation",
    "tokens_per_s": "report tokens per second",
    "restarts": "losses of policy, reference or a node so far",
}
"""Names of docs/metrics_rl.md, and what Prometheus shows as their help; there they are ``ray_lmrrg_ppo_<name>``."""


class PrometheusGauges:
    """Gauges of one run, told apart by the label ``run``. Needs Ray to be up; values are those of the last call."""

    def __init__(self, run: str):
        self._gauges = {
            name: Gauge(f"lmrrg_ppo_{name}", help_text, ("run",))
            for name, help_text in EXPORTED.items()
        }
        self._tags = {"run": run}

    def set(self, metrics: Mapping[str, float]) -> None:
        """Show the metrics of an iteration; those that it lacks keep their last value."""
        for name, gauge in self._gauges.items():
            if name in metrics:
                gauge.set(metrics[name], self._tags)
