"""The systems without a language model, compared with slow reference implementations."""

from __future__ import annotations

import dataclasses
import itertools
import re
from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.evaluation.baselines import (
    BaselineError,
    best_constant_report,
    closest_labels,
    medoid_report,
    nearest_rows,
    pooled_image_features,
    random_rows,
)
from lmrrg.metrics.backends import score_parts
from lmrrg.metrics.clinical import positives
from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.parts import Parts
from lmrrg.metrics.radcliq import radcliq_v1
from lmrrg.studies import LABELS
from lmrrg.vision.study_features import StudyFeatures

VOCABULARY = ("lungs", "heart", "clear", "normal", "small", "effusion", "left", ".")
WORDS = st.lists(st.sampled_from(VOCABULARY), min_size=1, max_size=8)
REPORTS = st.lists(WORDS.map(" ".join), min_size=1, max_size=9).filter(
    lambda rs: any(re.search(r"\w", r) for r in rs)
)


def _oracle_similarity(a: str, b: str) -> float:
    first, second = (_grams(text) for text in (a, b))
    return len(first & second) / np.sqrt(len(first) * len(second)) if first and second else 0.0


def _grams(text: str) -> set[tuple[str, ...]]:
    words = re.findall(r"\w+", text.lower())
    return {(w,) for w in words} | set(itertools.pairwise(words))


@settings(max_examples=60, deadline=None)
@given(reports=REPORTS)
def test_medoid_has_the_highest_mean_similarity(reports: list[str]) -> None:
    means = [np.mean([_oracle_similarity(one, other) for other in reports]) for one in reports]
    chosen = reports.index(medoid_report(reports))
    assert means[chosen] == pytest.approx(max(means), abs=1e-9)
    assert all(mean < means[chosen] + 1e-9 for mean in means[:chosen])


def test_the_best_constant_has_the_lowest_mean_radcliq() -> None:
    reports = [
        "The lungs are clear.",
        "There is a large left pleural effusion.",
        "The heart is normal in size. The lungs are clear. No pleural effusion or pneumothorax.",
        "The lungs are clear. The heart is normal in size.",
        "The lungs are clear.",
    ]
    backend = EmbeddedBackend()
    means = {}
    for report in reports:
        parts = score_parts(backend, [report] * len(reports), reports)
        means[report] = radcliq_v1(parts.radgraph, parts.bertscore, parts.semb).mean()
    assert best_constant_report(reports, backend) == min(means, key=means.__getitem__)
    assert len(set(means.values())) == 4


def test_a_metric_that_scores_nothing_has_no_best_constant() -> None:
    with pytest.raises(BaselineError, match="not_scored"):
        best_constant_report(["hjklm qwrt", "hjklm zxcv"], NoScores())


class NoScores(EmbeddedBackend):
    """A metric that can score no report."""

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
        """Return parts of which one is missing."""
        scored = super().score(hypotheses, references)
        return dataclasses.replace(scored, radgraph=np.full(len(hypotheses), np.nan))


def test_medoid_needs_words() -> None:
    with pytest.raises(BaselineError, match="no_words"):
        medoid_report(["...", ""])


def test_pooled_features_ignore_a_missing_view_even_when_it_is_poisoned() -> None:
    patches = torch.randn(2, 2, 4, 3)
    mask = torch.tensor([[True, True], [True, False]])
    pooled = pooled_image_features(
        StudyFeatures(patches, torch.zeros(2, 2, dtype=torch.long), mask)
    )
    poisoned = patches.clone()
    poisoned[1, 1] = float("nan")
    again = pooled_image_features(
        StudyFeatures(poisoned, torch.zeros(2, 2, dtype=torch.long), mask)
    )
    torch.testing.assert_close(pooled, again)
    alone = patches[1, 0].mean(dim=0)
    torch.testing.assert_close(pooled[1], alone / alone.norm())


def test_nearest_row_is_by_direction_not_by_length() -> None:
    training = torch.tensor([[10.0, 0.0], [0.0, 0.1], [1.0, 1.0]])
    assert nearest_rows(torch.tensor([[0.0, 5.0], [3.0, 0.1], [2.0, 2.1]]), training) == [1, 0, 2]


def test_random_rows_follow_the_seed_and_cover_the_training_set() -> None:
    assert random_rows(50, 7, seed=3) == random_rows(50, 7, seed=3)
    assert random_rows(50, 7, seed=3) != random_rows(50, 7, seed=4)
    assert set(random_rows(500, 7, seed=3)) == set(range(7))


def test_the_closest_labels_are_above_the_threshold_and_of_equal_ones_the_image_decides() -> None:
    labels = [{}, {"Edema": 1}, {"Edema": 1, "Fracture": 1}, {"Edema": 1}, {"No Finding": 1}]
    known = positives(labels, "positive")
    probability = np.full((1, len(LABELS)), 0.01)
    probability[0, LABELS.index("Edema")] = 0.3
    probability[0, LABELS.index("No Finding")] = 0.9
    similarity = np.array([[0.9, 0.1, 0.8, 0.2, 0.5]])
    assert closest_labels(probability, 0.2, known, similarity) == [3]
    assert closest_labels(probability, 0.5, known, similarity) == [0]
    probability[0, LABELS.index("Fracture")] = 1.0
    assert closest_labels(probability, 0.2, known, similarity) == [2]
