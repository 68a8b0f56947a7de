"""Compare eyes on the validation studies of a run: AUC of each class, average precision, intervals.

    python benchmarks/compare_eyes.py runs/iu_xray runs/frozen/eye/best runs/iu_xray/eye/best

The first argument is the folder of the run whose studies and settings count. Intervals are 95%
bootstrap intervals over patients' studies; the difference is that of the last eye and the first,
on the same resamples.
"""

from __future__ import annotations

import argparse
from pathlib import Path

import numpy as np
from sklearn.metrics import average_precision_score, roc_auc_score

from lmrrg.config.loading import load_config
from lmrrg.config.model import ImageEncoderConfig
from lmrrg.config.tree import Config
from lmrrg.metrics.clinical import FIVE_LABELS
from lmrrg.model.classifier import binary_targets, label_targets
from lmrrg.run.layout import RunLayout
from lmrrg.run.studies import studies_of
from lmrrg.studies import LABELS
from lmrrg.vision.files import load_features

RESAMPLES = 1000
THRESHOLD = 0.2
FINDINGS = [column for column, label in enumerate(LABELS) if label != "No Finding"]


def average_precision(truth: np.ndarray, probabilities: np.ndarray) -> float:
    """Return the average precision over the 13 findings of all studies together."""
    return average_precision_score(truth[:, FINDINGS].ravel(), probabilities[:, FINDINGS].ravel())


def micro_f1(truth: np.ndarray, probabilities: np.ndarray, columns: list[int]) -> float:
    """Return the micro F1 of the findings that are called present from :data:`THRESHOLD` on."""
    called = probabilities[:, columns] >= THRESHOLD
    wanted = truth[:, columns]
    return 2 * (called & wanted).sum() / max(1, called.sum() + wanted.sum())


def evidence_of(eye: Path, config: Config) -> np.ndarray:
    """Return the probabilities [N, 14] that an eye gives for the validation studies."""
    encoder = ImageEncoderConfig(name=config.model.image_encoder.name, weights=str(eye))
    features = load_features(studies_of(config, "val"), config.data, encoder=encoder)
    return features.evidence.numpy()


def interval(values: np.ndarray) -> str:
    low, high = np.percentile(values, [2.5, 97.5])
    return f"[{low:+.3f}, {high:+.3f}]"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path)
    parser.add_argument("eyes", type=Path, nargs="+")
    args = parser.parse_args()
    config = load_config(RunLayout(args.run).settings)
    config = config.model_copy(update={"storage_path": args.run.parent, "name": args.run.name})
    targets, _ = binary_targets(label_targets(studies_of(config, "val")), config.eye)
    truth = targets.numpy() > 0
    evidence = [evidence_of(eye, config) for eye in args.eyes]
    for column, label in enumerate(LABELS):
        positives = int(truth[:, column].sum())
        cells = "–"
        if 0 < positives < len(truth):
            areas = [roc_auc_score(truth[:, column], one[:, column]) for one in evidence]
            cells = " | ".join(f"{area:.3f}" for area in areas)
        print(f"| {label} | {positives} | {cells} |")
    rng = np.random.default_rng(config.seed)
    samples = rng.integers(0, len(truth), (RESAMPLES, len(truth)))
    drawn = [np.array([average_precision(truth[i], one[i]) for i in samples]) for one in evidence]
    five = [LABELS.index(label) for label in FIVE_LABELS]
    for one in evidence:
        f1_13, f1_5 = micro_f1(truth, one, FINDINGS), micro_f1(truth, one, five)
        print(f"micro F1 from {THRESHOLD} on: 13 findings {f1_13:.3f}, 5 findings {f1_5:.3f}")
    for eye, one, values in zip(args.eyes, evidence, drawn, strict=True):
        print(f"average precision {average_precision(truth, one):.3f} {interval(values)}  {eye}")
    print(f"difference {interval(drawn[-1] - drawn[0])}")


if __name__ == "__main__":
    main()
