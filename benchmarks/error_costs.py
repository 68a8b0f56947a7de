"""Measure what the kinds of error that radiologists count cost in the embedded reward.

    python benchmarks/error_costs.py

The reward is minus RadCliQ-v1: 1.44 for an exact copy. Every error is made in two reports of four
sentences, one otherwise normal and one with other findings; the loss is against the exact copy.
The table is the one in docs/metrics_embedded.md.
"""

from __future__ import annotations

from typing import NamedTuple

import numpy as np

from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.radcliq import radcliq_v1

CONTEXTS = (
    "The heart is normal in size. {} The mediastinal contours are unremarkable. No rib fracture.",
    "The heart is mildly enlarged. {} There is atelectasis at the right base. No rib fracture.",
)

ERRORS = {
    "finding missed": [
        ("There is a small left pleural effusion.", ""),
        ("Left upper lobe consolidation.", ""),
        ("There is a 6 mm nodule in the right upper lobe.", ""),
    ],
    "finding invented": [
        ("", "There is a small left pleural effusion."),
        ("", "Left upper lobe consolidation."),
        ("", "There is a 6 mm nodule in the right upper lobe."),
    ],
    "finding invented that the lexicon does not name": [
        ("", "There is a swallowed coin in the stomach."),
        ("", "The sternum is bowed."),
        ("", "A fungus ball in the left apex."),
    ],
    "finding invented of little weight": [
        ("", "Mild scoliosis of the spine."),
        ("", "Calcified granuloma in the left lung."),
    ],
    "finding denied": [
        ("There is a small left pleural effusion.", "There is no left pleural effusion."),
        ("There is left upper lobe consolidation.", "There is no consolidation."),
    ],
    "wrong side": [
        ("There is a small left pleural effusion.", "There is a small right pleural effusion."),
        ("Left upper lobe consolidation.", "Right upper lobe consolidation."),
    ],
    "one side for both": [
        ("Small bilateral pleural effusions.", "Small left pleural effusion."),
        ("Small right pleural effusion.", "Small bilateral pleural effusions."),
    ],
    "sizes of both sides swapped": [
        ("Large right and small left effusions.", "Small right and large left effusions."),
    ],
    "wrong place": [
        ("Left upper lobe consolidation.", "Left lower lobe consolidation."),
        ("Opacity in the right upper lobe.", "Opacity in the right middle lobe."),
    ],
    "wrong severity, one step": [
        ("There is a moderate left pneumothorax.", "There is a large left pneumothorax."),
        ("Trace left pleural effusion.", "Small left pleural effusion."),
    ],
    "wrong severity, more": [
        ("There is a small left pneumothorax.", "There is a large left pneumothorax."),
        ("Mild pulmonary edema.", "Severe pulmonary edema."),
    ],
    "tension missed": [
        ("There is a left tension pneumothorax.", "There is a left pneumothorax."),
    ],
    "wrong course": [
        ("The left effusion has increased.", "The left effusion has decreased."),
        ("Pulmonary edema is unchanged.", "Pulmonary edema is worse."),
    ],
    "comparison omitted": [
        ("Left effusion, increased since the prior study.", "Left effusion."),
        ("Unchanged pulmonary edema.", "Pulmonary edema."),
    ],
    "comparison invented": [
        ("Left effusion.", "Left effusion, increased since the prior study."),
        ("Pulmonary edema.", "Worsened pulmonary edema."),
    ],
    "device in the wrong place": [
        ("Endotracheal tube 4 cm above the carina.", "Endotracheal tube in the esophagus."),
        ("NG tube tip in the stomach.", "NG tube tip in the esophagus."),
        ("Right PICC with its tip in the SVC.", "Right PICC with its tip in the right atrium."),
    ],
    "distance or size a little off (6 for 7 mm)": [
        ("6 mm nodule in the left upper lobe.", "7 mm nodule in the left upper lobe."),
        ("Endotracheal tube 4 cm above the carina.", "Endotracheal tube 5 cm above the carina."),
    ],
    "size twice as large": [
        ("6 mm nodule in the left upper lobe.", "12 mm nodule in the left upper lobe."),
    ],
    "size ten times as large": [
        ("6 mm nodule in the left upper lobe.", "60 mm nodule in the left upper lobe."),
    ],
    "doubt for certainty": [
        ("Left upper lobe pneumonia.", "Possible left upper lobe pneumonia."),
    ],
    "sentence repeated": [
        ("Small left effusion.", "Small left effusion. Small left effusion."),
    ],
    "sentence repeated in other words": [
        ("Small left effusion.", "Small left effusion. There is a small effusion on the left."),
    ],
    "sentence that contradicts another": [
        ("Small left pneumothorax.", "Small left pneumothorax. Large left pneumothorax."),
    ],
    "free wording, for comparison": [
        ("There is a small left pleural effusion.", "Small effusion on the left."),
        ("Left upper lobe consolidation.", "There is consolidation in the left upper lobe."),
        ("Right PICC with its tip in the SVC.", "The tip of the right PICC is in the SVC."),
    ],
}
"""Kind of error -> (what the reference says, what the report says)."""


class Cost(NamedTuple):
    """Losses of reward of one kind of error."""

    least: float
    mean: float
    most: float


def error_costs() -> dict[str, Cost]:
    """Return kind of error -> its losses."""
    return {kind: _cost(errors) for kind, errors in ERRORS.items()}


def _cost(errors: list[tuple[str, str]]) -> Cost:
    references = [context.format(right) for context in CONTEXTS for right, _ in errors]
    reports = [context.format(wrong) for context in CONTEXTS for _, wrong in errors]
    losses = _rewards(references, references) - _rewards(reports, references)
    return Cost(losses.min(), losses.mean(), losses.max())


def _rewards(reports: list[str], references: list[str]) -> np.ndarray:
    parts = EmbeddedBackend().score(reports, references)
    return -radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)


def main() -> None:
    """Print the table of the docs."""
    print("| error | loss of reward | from | to |")
    print("|---|---|---|---|")
    for kind, cost in error_costs().items():
        print(f"| {kind} | **{cost.mean:.2f}** | {cost.least:.2f} | {cost.most:.2f} |")


if __name__ == "__main__":
    main()
