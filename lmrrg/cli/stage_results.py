"""What each stage of a run achieved, in one line for the terminal."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

from lmrrg.evaluation.evaluate import read_results
from lmrrg.manifest import read_studies
from lmrrg.model.checkpoint import read_checkpoint_config
from lmrrg.run.layout import RunLayout
from lmrrg.run.tracking import read_metrics
from lmrrg.studies import Study
from lmrrg.vision.eye import read_eye_settings


def studies_line(manifest: Path) -> str:
    """Return how many studies a manifest holds, in all and per split."""
    return count_studies(read_studies(manifest))


def count_studies(studies: Sequence[Study]) -> str:
    """Return the number of studies, in all and per split."""
    splits = Counter(study.split or "no split" for study in studies)
    counts = ", ".join(f"{count:,} {split}" for split, count in splits.items())
    return f"{len(studies):,} studies: {counts}"


def eye_line(run_dir: Path) -> str:
    """Return what the best eye sees on the validation studies."""
    provenance = read_eye_settings(RunLayout(run_dir).best("eye"))["provenance"]
    found = provenance["validation"]
    return (
        f"best epoch {provenance['epoch']}: average precision {found['average_precision']:.3f} "
        f"over 13 findings, class AUC {found['macro_auc']:.3f} on validation studies"
    )


def sft_line(run_dir: Path) -> str:
    """Return the validation loss and class AUC of SFT's best epoch."""
    validated = [line for line in read_metrics(run_dir, "sft") if "val/nll_per_token" in line]
    best = min(validated, key=lambda line: line["val/nll_per_token"])
    return (
        f"best epoch {best['epoch']:.0f}: {best['val/nll_per_token']:.3f} nats per token on "
        f"validation reports, class AUC {best['val/macro_auc']:.3f}"
    )


def ppo_line(run_dir: Path) -> str:
    """Return what the SFT model and the kept model earn on the validation studies."""
    validated = [line for line in read_metrics(run_dir, "ppo") if "heldout_reward" in line]
    kept = read_checkpoint_config(RunLayout(run_dir).best("ppo"))["provenance"]
    start = validated[0]
    found = _kept_metrics(run_dir, validated, kept)
    return (
        f"kept: {_describe_model(kept)}; validation reward {start['heldout_reward']:+.3f} → "
        f"{found['heldout_reward']:+.3f}, F1 {start['heldout']:.3f} → {found['heldout']:.3f}"
    )


def _kept_metrics(
    run_dir: Path, validated: list[dict[str, float]], kept: Mapping[str, Any]
) -> Mapping[str, float]:
    """Return the validation metrics of the kept model: of a mixture, or of an iteration."""
    if 0 < kept["share"] < 1:
        percent = round(100 * kept["share"])
        mixtures = read_metrics(run_dir, "mixtures")
        return next(line for line in mixtures if line["step"] == percent)
    return next(line for line in validated if line["step"] == kept["iteration"])


def _describe_model(kept: Mapping[str, Any]) -> str:
    if kept["weights"] == 0:
        return "the SFT model"
    if kept["share"] < 1:
        return f"mixture with {kept['share']:.0%} of the policy"
    return f"policy of iteration {kept['iteration']}"


def evaluation_line(run_dir: Path) -> str:
    """Return RadCliQ of both stages, their paired difference, and how many guards hold."""
    results = read_results(RunLayout(run_dir).results)
    means = {
        system["name"]: system["metrics"]["radcliq_v1"]["value"] for system in results["systems"]
    }
    difference = results["comparison"]["metrics"]["radcliq_v1"]
    guards = results["guards"]
    passed = sum(guard["ok"] for guard in guards)
    return (
        f"{results['stamp']['backend']['name']} v1, lower is better: SFT {means['sft']:.3f} → "
        f"PPO {means['ppo']:.3f} (difference {difference['difference']:+.3f} "
        f"[{difference['low']:+.3f}, {difference['high']:+.3f}]); "
        f"{passed} of {len(guards)} guards hold"
    )
