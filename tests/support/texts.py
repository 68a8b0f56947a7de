"""Random and hand-written report texts for the tests of metrics, and a check of their labels."""

from __future__ import annotations

import random

from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import POSITIVE

_VOCABULARY = (
    "the a no heart lung lungs effusion effusions left right small is normal clear enlarged seen "
    ". ,"
)


def random_reports(count: int, seed: int, longest: int = 40) -> list[str]:
    """Return reports of 1..longest words from a small vocabulary, with single spaces."""
    rng = random.Random(seed)
    return [
        " ".join(rng.choices(_VOCABULARY.split(), k=rng.randint(1, longest))) for _ in range(count)
    ]


def random_pairs(count: int, seed: int) -> tuple[list[str], list[str]]:
    """Return (hypotheses, references).

    A third of the pairs are identical, a third lack words of the reference, a third are unrelated.
    """
    rng = random.Random(seed + 1)
    references = random_reports(count, seed)
    hypotheses = []
    for row, reference in enumerate(references):
        kept = [word for word in reference.split() if rng.random() > 0.3] or ["no"]
        hypotheses.append([reference, " ".join(kept), *random_reports(1, seed + row + 2)][row % 3])
    return hypotheses, references


def check_labels(text: str, expected: dict[str, int | None]) -> None:
    """Check the classes that are named; None is any label but positive, and {} no label at all."""
    found = label_report(text)
    if not expected:
        assert found == {}
    for label, value in expected.items():
        if value is None:
            assert found.get(label) != POSITIVE
        else:
            assert found.get(label) == value
