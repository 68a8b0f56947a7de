"""How the systems without a language model choose a training report.

A constant report beats published BLEU scores on IU X-Ray, so a score means little without them.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize
from torch import Tensor

from lmrrg.errors import CodedError
from lmrrg.metrics.backends import score_parts
from lmrrg.metrics.interfaces import Backend
from lmrrg.metrics.radcliq import radcliq_v1
from lmrrg.studies import LABELS
from lmrrg.vision.study_features import StudyFeatures

_CANDIDATES = 40
"""Most frequent training reports that are tried as the best constant one."""
_JUDGES = 300
"""Training reports that each candidate is scored against; more change its mean little."""


class BaselineError(CodedError):
    """A baseline that cannot be made; ``code`` is stable."""


def medoid_report(reports: Sequence[str]) -> str:
    """Return the training report with the highest mean similarity to all training reports (ours).

    Similarity is the cosine of the reports' sets of lower-case words and word pairs. The first of
    equal reports is returned.

    >>> medoid_report(["Large effusion.", "Clear lungs.", "Clear lungs. Normal heart."])
    'Clear lungs.'

    Raises:
        BaselineError: ``no_words``, no report has a word.
    """
    # The pattern keeps words of one letter, which scikit-learn drops by default.
    words = r"(?u)\b\w+\b"
    counter = CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=words)
    try:
        vectors = normalize(counter.fit_transform(reports).astype(np.float64))
    except ValueError as error:
        raise BaselineError(
            "no_words", "the constant baseline needs training reports with words"
        ) from error
    # For unit vectors, the mean cosine to all reports is the product with the mean vector.
    similarity = np.asarray(vectors @ np.asarray(vectors.mean(axis=0)).ravel())
    # Equal reports differ in the last bits of their sums; after rounding the first one wins.
    return reports[int(np.argmax(similarity.round(12)))]


def best_constant_report(reports: Sequence[str], backend: Backend, judges: int = _JUDGES) -> str:
    """Return the training report that scores best when it is written for everybody (ours).

    Tried are the 40 most frequent reports and the medoid, by mean RadCliQ-v1 against up to
    ``judges`` training reports that are spread evenly. What a metric pays for saying the same of
    every patient is the score that a model must beat.

    >>> from lmrrg.metrics.embedded.backend import EmbeddedBackend
    >>> best_constant_report(
    ...     ["Clear lungs.", "Large effusion.", "Lungs are clear. Normal heart."], EmbeddedBackend()
    ... )
    'Lungs are clear. Normal heart.'

    Raises:
        BaselineError: ``no_words``, no report has a word; ``not_scored``, the backend scored none.
    """
    frequent = [report for report, _ in Counter(reports).most_common(_CANDIDATES)]
    candidates = dict.fromkeys([medoid_report(reports), *frequent])
    references = spread(reports, judges)
    best = ""
    lowest = np.inf
    for candidate in candidates:
        parts = score_parts(backend, [candidate] * len(references), references)
        scores = radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)
        scores = scores[np.isfinite(scores)]
        if len(scores) and scores.mean() < lowest:
            best = candidate
            lowest = scores.mean()
    if not best:
        raise BaselineError("not_scored", "the metric scored none of the training reports")
    return best


def spread(reports: Sequence[str], count: int) -> list[str]:
    """Return up to ``count`` reports at even distances.

    >>> spread(["a", "b", "c", "d", "e"], 2)
    ['a', 'c']
    """
    return list(reports[:: max(1, len(reports) // count)][:count])


def pooled_image_features(features: StudyFeatures) -> Tensor:
    """Return the mean over patches and present views, scaled to length 1: [B, C], float32."""
    present = features.view_mask[:, :, None, None]
    patches = torch.where(present, features.patches.float(), 0.0)
    count = features.view_mask.sum(dim=1, keepdim=True) * features.patches.shape[2]
    return torch.nn.functional.normalize(patches.sum(dim=(1, 2)) / count, dim=1)


def nearest_rows(queries: Tensor, training: Tensor) -> list[int]:
    """Return the row of ``training`` [N, C] with the highest cosine for each query [B, C].

    The first of equal rows is returned.
    """
    unit = torch.nn.functional.normalize
    return (unit(queries, dim=1) @ unit(training, dim=1).T).argmax(dim=1).tolist()


def closest_labels(
    probabilities: NDArray[np.float64],
    thresholds: float | NDArray[np.float64],
    known: NDArray[np.bool_],
    similarity: NDArray[np.floating],
) -> list[int]:
    """Return the training row whose findings fit each study's probabilities best (ours).

    A finding of a training report counts the logarithm of its odds over those of the threshold: one
    that is more probable than the threshold gains, one that is less loses. Of equal sums, as equal
    sets of findings have, the most similar image wins. "No Finding" is no finding.

    Args:
        probabilities: of the classes of N studies [N, 14].
        thresholds: the probability at which a finding is neither gain nor loss; one for all
            classes, or [14].
        known: the classes of M training reports [M, 14].
        similarity: of the images of the N studies and the M training studies [N, M].
    """
    findings = [label != "No Finding" for label in LABELS]
    # Rounded, so that equal sets have equal sums whatever the order of the additions.
    gain = (_log_odds(probabilities) - _log_odds(np.asarray(thresholds)))[:, findings].round(6)
    fit = (gain @ known[:, findings].T).round(4)
    best = fit == fit.max(axis=1, keepdims=True)
    return np.where(best, similarity, -np.inf).argmax(axis=1).tolist()


def _log_odds(probability: NDArray[np.float64]) -> NDArray[np.float64]:
    # No probability is certain: an infinite gain would outweigh all other findings.
    clipped = np.clip(probability, 1e-6, 1 - 1e-6)
    return np.log(clipped / (1 - clipped))


def random_rows(count: int, training: int, seed: int) -> list[int]:
    """Return ``count`` rows drawn with replacement from ``training`` rows."""
    return np.random.default_rng(seed).integers(training, size=count).tolist()
