"""The training curves of the run report: which metrics are in which chart, and its titles."""

from __future__ import annotations

import math
from collections import deque
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lmrrg.evaluation.rows import ScoreNames
from lmrrg.run.tracking import read_metrics
from lmrrg.run_report.charts import Series, line_chart

_MOVING = 10
"""Iterations of the moving mean."""


@dataclass(frozen=True)
class Panel:
    """One chart: its title, the title of its y axis with the unit, and its metrics.

    ``metrics`` maps a name in the legend to a key of ``metrics/<stage>.jsonl``.
    """

    title: str
    y_label: str
    metrics: Mapping[str, str]


@dataclass(frozen=True)
class Stage:
    """One training stage: the name of its metrics file, its title, its x axis and its charts."""

    name: str
    title: str
    x_label: str
    panels: Sequence[Panel]


EYE_PANELS = (
    Panel("Loss", "cross-entropy, nats", {"training": "train/loss"}),
    Panel(
        "Findings on validation studies",
        "average precision",
        {"average precision": "val/average_precision"},
    ),
    Panel("Classes on validation studies", "macro AUC", {"macro AUC": "val/macro_auc"}),
    Panel("Throughput", "studies per second", {"training": "train/studies_per_second"}),
)

SFT_PANELS = (
    Panel(
        "Report loss",
        "NLL, nats per token",
        {"training": "train/nll_per_token", "validation": "val/nll_per_token"},
    ),
    Panel(
        "Classification loss",
        "cross-entropy, nats",
        {"training": "train/disease_loss", "validation": "val/disease_loss"},
    ),
    Panel("Classifier on validation studies", "macro AUC", {"macro AUC": "val/macro_auc"}),
    Panel("Learning rate", "learning rate", {"learning rate": "train/learning_rate"}),
    Panel("Gradient norm", "norm before clipping", {"gradient norm": "train/gradient_norm"}),
    Panel("Throughput", "studies per second", {"training": "train/studies_per_second"}),
)

MIXTURE_PANELS = (
    Panel("Validation metric", "validation metric", {"mixtures": "heldout"}),
    Panel("Reward on validation studies", "reward, greedy reports", {"mixtures": "heldout_reward"}),
    Panel(
        "Distinct reports on validation studies",
        "fraction of reports",
        {"mixtures": "heldout_distinct_ratio"},
    ),
)


def ppo_panels(names: ScoreNames) -> tuple[Panel, ...]:
    """Return the charts of PPO, with the names of the metric backend's scores."""
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
            "Policy − SFT model, the same studies",
            "difference of rewards",
            {
                "sampled": "reward_difference",
                f"sampled, mean of {_MOVING}": "reward_difference_mean",
                "validation": "heldout_reward_difference",
            },
        ),
        Panel(
            "Components of the reward",
            "score",
            {names.graph: "radgraph", names.bertscore: "bertscore", names.labels: "semb"},
        ),
        Panel(
            f"{names.radcliq} of sampled reports", "lower is better", {names.radcliq: "radcliq_v1"}
        ),
        Panel(
            "Penalties in the reward",
            "subtracted reward",
            {
                "incoherence": "incoherence_penalty",
                "repetition": "repetition_penalty",
                "no EOS": "no_eos_penalty",
                "length": "length_penalty",
            },
        ),
        Panel(
            "Validation metric (selects the checkpoint)",
            "validation metric",
            {"validation studies": "heldout"},
        ),
        Panel(
            "Reward on validation studies",
            "reward, greedy reports",
            {"validation studies": "heldout_reward"},
        ),
        Panel("KL to the SFT model", "KL, nats per report", {"KL": "kl_per_sequence"}),
        Panel("KL coefficient, λ_KL", "reward per nat", {"λ_KL": "kl_coefficient"}),
        Panel(
            "Length of reports", "tokens", {"sampled": "length", "reference": "reference_length"}
        ),
        Panel(
            "Signs of mode collapse",
            "fraction of reports",
            {
                "distinct": "distinct_ratio",
                "no finding": "all_normal_ratio",
                "no EOS": "no_eos_ratio",
                "distinct, validation": "heldout_distinct_ratio",
            },
        ),
        Panel(
            "Incoherent reports",
            "fraction of reports",
            {"sampled": "incoherent_ratio", "validation": "heldout_incoherent_ratio"},
        ),
        Panel(
            "Log-probs, vLLM against trainer",
            "|difference|, nats",
            {"mean": "parity", "largest": "parity_max"},
        ),
        Panel("Clipped ratios", "fraction of tokens", {"clipped": "clip_fraction"}),
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
    """Return the charts of each stage that logged metrics; a panel without any value is left out.

    Each stage has ``title`` and ``panels``; each panel ``title``, ``svg`` and the legend's
    ``names``.
    """
    stages = (
        Stage("eye", "Fine-tuning of the image encoder", "optimizer step", EYE_PANELS),
        Stage("sft", "Supervised fine-tuning", "optimizer step", SFT_PANELS),
        Stage("ppo", "PPO", "iteration", ppo_panels(names)),
        Stage(
            "mixtures",
            "Interpolation between the weights of the SFT model and of the last policy",
            "weight of the policy, %",
            MIXTURE_PANELS,
        ),
    )
    drawn_stages = []
    for stage in stages:
        lines = _with_differences(read_metrics(run_dir, stage.name))
        panels = []
        for panel in stage.panels:
            series = _series(panel, lines)
            if series:
                panels.append(_draw(panel, series, stage))
        if panels:
            drawn_stages.append({"title": stage.title, "panels": panels})
    return drawn_stages


def _with_differences(lines: Sequence[Mapping[str, float]]) -> list[dict[str, float]]:
    """Add to each line what the policy earns beyond the SFT model on the same studies.

    ``reward_difference`` is that of the sampled reports, ``reward_difference_mean`` its mean over
    the last iterations, ``heldout_reward_difference`` that of greedy reports in a validation,
    whose first one is the SFT model's.
    """
    recent: deque[float] = deque(maxlen=_MOVING)
    start: float | None = None
    added = []
    for line in lines:
        more: dict[str, float] = {}
        if {"reward", "reward_reference"} <= line.keys():
            recent.append(line["reward"] - line["reward_reference"])
            more["reward_difference"] = recent[-1]
            more["reward_difference_mean"] = _finite_mean(recent)
        if "heldout_reward" in line:
            start = line["heldout_reward"] if start is None else start
            more["heldout_reward_difference"] = line["heldout_reward"] - start
        added.append({**line, **more})
    return added


def _finite_mean(values: Iterable[float]) -> float:
    finite = [value for value in values if math.isfinite(value)]
    return sum(finite) / len(finite) if finite else math.nan


def _series(panel: Panel, lines: Sequence[Mapping[str, float]]) -> list[Series]:
    """Return the curves of those metrics of a panel that were logged at least once."""
    series = []
    for name, metric in panel.metrics.items():
        logged = [line for line in lines if metric in line]
        if logged:
            steps = [line["step"] for line in logged]
            series.append(Series(name, steps, [line[metric] for line in logged]))
    return series


def _draw(panel: Panel, series: Sequence[Series], stage: Stage) -> dict[str, Any]:
    # Titles repeat between stages, and two charts of one page must not have the same id.
    chart_id = f"{stage.name}: {panel.title}"
    return {
        "title": panel.title,
        "svg": line_chart(series, stage.x_label, panel.y_label, chart_id),
        "names": [one.name for one in series],
    }
