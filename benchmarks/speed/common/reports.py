"""Write synthetic reports for benchmarks of metrics.

No other module of the project is imported: a process that measures another package reads this too.
"""

from __future__ import annotations

import random

SIZES = ("the", "small", "moderate", "large", "mild", "subtle")
PLACES = (
    "right lower lobe",
    "left lung base",
    "right upper lobe",
    "left costophrenic angle",
    "retrocardiac region",
)
FINDINGS = (
    "opacity",
    "consolidation",
    "effusion",
    "atelectasis",
    "nodule",
    "scarring",
    "interstitial edema",
)
NORMAL = (
    "the heart is normal in size",
    "the mediastinal contours are unremarkable",
    "no pneumothorax is seen",
    "there is no pleural effusion",
    "the visualized bones are intact",
    "pulmonary vascularity is within normal limits",
)


def write_reports(studies: int, samples: int) -> tuple[list[str], list[str]]:
    """Return (sampled reports, references) of studies x samples pairs, 50 to 70 words each."""
    rng = random.Random(0)

    def report() -> str:
        found = [
            f"there is a {rng.choice(SIZES)} {rng.choice(FINDINGS)} in the {rng.choice(PLACES)}"
            for _ in range(3)
        ]
        sentences = [*found, *rng.sample(NORMAL, 5)]
        rng.shuffle(sentences)
        return " . ".join(sentences) + " ."

    references = [report() for _ in range(studies)]
    hypotheses = [report() for _ in range(studies * samples)]
    return hypotheses, [reference for reference in references for _ in range(samples)]
