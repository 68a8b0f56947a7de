"""Three systems without a language model, which every comparison shows beside the trained ones.

A constant report beats published BLEU scores on IU X-Ray, so a score means little until it is beside these.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import torch
from sklearn.feature_extraction.text import CountVectorizer
from sklearn.preprocessing import normalize
from torch import Tensor

from lmrrg.errors import CodedError
from lmrrg.vision.study_features import StudyFeatures

BASELINES = {
    "constant": "Constant report (training medoid)",
    "nearest": "Nearest training image",
    "random": "Random training report",
}
"""System name to title, in the order of the tables."""


class BaselineError(CodedError):
    """A baseline that cannot be made; ``code`` is stable."""


def medoid_report(reports: Sequence[str]) -> str:
    """The training report with the highest mean similarity to all training reports (ours).

    Similarity is the cosine of the reports' sets of words and word pairs (lower-case). With unit vectors the mean
    over all pairs is one product with the mean vector, so no sampling is needed; the first of equals is taken.

    Raises:
        BaselineError: ``no_words``, no report has a word.
    """
    counter = CountVectorizer(ngram_range=(1, 2), binary=True, token_pattern=r"(?u)\b\w+\b")
    try:
        vectors = normalize(counter.fit_transform(reports).astype(np.float64))
    except ValueError as error:
        raise BaselineError(
            "no_words", "the constant baseline needs training reports with words"
        ) from error
    similarity = np.asarray(vectors @ np.asarray(vectors.mean(axis=0)).ravel())
    # Equal reports differ in the last bits of their sums; rounding lets the first of them win everywhere.
    return reports[int(np.argmax(similarity.round(12)))]


def pooled_image_features(features: StudyFeatures) -> Tensor:
    """Mean over patches and present views, scaled to length 1: [B, C], float32."""
    present = features.view_mask[:, :, None, None]
    patches = torch.where(present, features.patches.float(), 0.0)
    count = features.view_mask.sum(dim=1, keepdim=True) * features.patches.shape[2]
    return torch.nn.functional.normalize(patches.sum(dim=(1, 2)) / count, dim=1)


def nearest_rows(queries: Tensor, training: Tensor) -> list[int]:
    """Row of ``training`` [N, C] with the highest cosine for each of ``queries`` [B, C]; the first of equals."""
    unit = torch.nn.functional.normalize
    return (unit(queries, dim=1) @ unit(training, dim=1).T).argmax(dim=1).tolist()


def random_rows(count: int, training: int, seed: int) -> list[int]:
    """``count`` rows drawn with replacement from ``training`` rows."""
    return np.random.default_rng(seed).integers(training, size=count).tolist()
