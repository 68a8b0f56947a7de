"""The training curves of the run report: which metrics share a chart, and what their axes say."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmrrg.evaluation.rows import ScoreNames
from lmrrg.run.tracking import read_metrics
from lmrrg.run_report.charts import Series, line_chart


@dataclass(frozen=True)
class Panel:
    """One chart: its title, the y axis with its unit, and the metrics in it by legend name."""

    title: str
    y_label: str
    metrics: Mapping[str, str]


SFT_PANELS = (
    Panel(
        "Report loss",
        "NLL, nats per token",
        {"training": "train/nll_per_token", "validation": "val/nll_per_token"},
    ),
    Panel(
        "Class loss",
        "cross-entropy, nats",
        {"training": "train/disease_loss", "validation": "val/disease_loss"},
    ),
    Panel("Class head on validation studies", "macro AUC", {"macro AUC": "val/macro_auc"}),
    Panel("Learning rate", "learning rate", {"learning rate": "train/learning_rate"}),
    Panel("Gradient norm", "norm before clipping", {"gradient norm": "train/gradient_norm"}),
    Panel("Speed", "studies per second", {"training": "train/studies_per_second"}),
)

MIXTURE_PANELS = (
    Panel("Held-out metric", "held-out metric", {"mixtures": "heldout"}),
    Panel("Reward on validation studies", "reward, greedy reports", {"mixtures": "heldout_reward"}),
    Panel(
        "Distinct reports on validation studies",
        "share of reports",
        {"mixtures": "heldout_distinct_ratio"},
    ),
)


def ppo_panels(names: ScoreNames) -> tuple[Panel, ...]:
    """The charts of PPO, with the names that the backend's scores may have."""
    return (
        Panel(
            "Reward of sampled reports",
            "reward",
            {
                "policy": "reward",
                "SFT model, same studies": "reward_reference",
                "policy, abnormal": "reward_abnormal",
            },
        ),
        Panel(
            "Parts of the reward",
            "part",
            {names.graph: "radgraph", names.bertscore: "bertscore", names.labels: "semb"},
        ),
        Panel(
            f"{names.radcliq} of sampled reports", "lower is better", {names.radcliq: "radcliq_v1"}
        ),
        Panel(
            "Penalties in the reward",
            "reward taken off",
            {
                "repetition": "repetition_penalty",
                "no end": "no_eos_penalty",
                "length": "length_penalty",
            },
        ),
        Panel(
            "Held-out metric (picks the checkpoint)",
            "held-out metric",
            {"validation studies": "heldout"},
        ),
        Panel(
            "Reward on validation studies",
            "reward, greedy reports",
            {"validation studies": "heldout_reward"},
        ),
        Panel("KL to the SFT model", "KL, nats per report", {"KL": "kl_per_sequence"}),
        Panel("Weight of the KL penalty, λ_KL", "reward per nat", {"λ_KL": "kl_coefficient"}),
        Panel(
            "Length of reports", "tokens", {"sampled": "length", "reference": "reference_length"}
        ),
        Panel(
            "Signs of collapse",
            "share of reports",
            {
                "distinct": "distinct_ratio",
                "all normal": "all_normal_ratio",
                "no end": "no_eos_ratio",
                "distinct, validation": "heldout_distinct_ratio",
            },
        ),
        Panel(
            "Parity of engine and trainer",
            "|log-prob difference|, nats",
            {"mean": "parity", "largest": "parity_max"},
        ),
        Panel("Policy and value loss", "loss", {"policy": "policy_loss", "value": "value_loss"}),
        Panel("Value head", "explained variance", {"explained variance": "explained_variance"}),
        Panel("Entropy of the policy", "nats per token", {"entropy": "entropy"}),
        Panel(
            "Time",
            "seconds per iteration",
            {"whole iteration": "iteration_s", "sampling": "sample_s"},
        ),
    )


def training_curves(run_dir: Path, names: ScoreNames) -> list[dict[str, Any]]:
    """Charts of every stage that left metrics; a panel without any value is left out."""
    known = (
        ("sft", "Supervised fine-tuning", "optimizer step", SFT_PANELS),
        ("ppo", "PPO", "iteration", ppo_panels(names)),
        (
            "mixtures",
            "Weights between the SFT model and the last policy",
            "share of the policy, %",
            MIXTURE_PANELS,
        ),
    )
    stages = []
    for stage, title, x_label, panels in known:
        lines = read_metrics(run_dir, stage)
        drawn = [chart for panel in panels if (chart := _draw(panel, lines, x_label)) is not None]
        if drawn:
            stages.append({"title": title, "panels": drawn})
    return stages


def _draw(
    panel: Panel, lines: Sequence[Mapping[str, float]], x_label: str
) -> dict[str, Any] | None:
    series = []
    for name, metric in panel.metrics.items():
        points = [(line["step"], line[metric]) for line in lines if metric in line]
        if points:
            x, y = zip(*points, strict=True)
            series.append(Series(name, x, y))
    if not series:
        return None
    return {
        "title": panel.title,
        "svg": line_chart(series, x_label, panel.y_label),
        "names": [one.name for one in series],
    }
