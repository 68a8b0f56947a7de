"""Tell frontal from lateral films: a linear classifier on frozen image features (**ours**).

``python -m lmrrg.cli.train_views`` made the packaged weights from IU X-ray (Open-i), whose two
projections were sorted by people. They serve ``data.check_views``: a missing view is filled in, and
a tag that disagrees with the pixels is counted, never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files
from itertools import islice
from pathlib import Path
from typing import Literal

import numpy as np
from safetensors import safe_open
from safetensors.numpy import save
from sklearn.linear_model import LogisticRegression
from torch import Tensor

from lmrrg.config.data import DataConfig
from lmrrg.files import atomic_writer
from lmrrg.studies import Study, StudyImage, View
from lmrrg.views import frontal_first
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.encoder import encoder_info
from lmrrg.vision.files import FeatureFiles

SIDE = 256
"""Image size of the classifier, pixels; it does not depend on the model's."""
SURE = 0.9
"""Probability from which on a view is filled in or a tag doubted; below it is "unknown"."""
# Inverse strength (scikit-learn's C): 2,496 features against a few thousand films.
_REGULARISATION = 0.02
_GRID = 8  # patches in a row of the encoder's grid at SIDE pixels
_CHUNK = 256  # images whose patches are in memory at once
Side = Literal["frontal", "lateral", "unknown"]


def describe_views(
    studies: Sequence[Study], data: DataConfig, *, progress: bool = True
) -> np.ndarray:
    """Return the classifier's inputs for every image, in order: float32 [N, 4 C].

    They are the mean features of the image's four quarters.

    Raises:
        ImageError, FeatureError: as :class:`~lmrrg.vision.files.FeatureFiles`.
    """
    # One study for each image: the features of a study are limited to its first views.
    single = [
        Study(study.id, study.patient, (image,)) for study in studies for image in study.images
    ]
    own = data.model_copy(update={"image_size": SIDE, "max_views": 1})
    features = FeatureFiles(single, own, progress=progress)
    parts = []
    for start in range(0, len(single), _CHUNK):
        chunk = features.select(range(start, min(start + _CHUNK, len(single))))
        parts.append(_quarters(chunk.patches[:, 0]))
    return np.concatenate(parts)


def _quarters(patches: Tensor) -> np.ndarray:
    """Average patches [N, 64, C] over the quarters of the image: [N, 4 C]."""
    grid = patches.float().unflatten(1, (2, _GRID // 2, 2, _GRID // 2))
    return grid.mean((2, 4)).flatten(1).numpy()


class ViewClassifier:
    """Logistic regression with weights [4 C] and a bias, on features as they are."""

    def __init__(self, weight: np.ndarray, bias: float) -> None:
        self.weight = weight.astype(np.float32)
        self.bias = bias

    @classmethod
    def fit(cls, features: np.ndarray, lateral: np.ndarray) -> ViewClassifier:
        """Fit features [N, 4 C] of :func:`describe_views` to ``lateral``, bool [N]."""
        mean = features.mean(0)
        scale = features.std(0) + 1e-3  # a channel that never varies stays finite
        model = LogisticRegression(C=_REGULARISATION, max_iter=1000).fit(
            (features - mean) / scale, lateral
        )
        # The standardisation becomes part of the weights, so that one product is left.
        weight = model.coef_[0] / scale
        return cls(weight, float(model.intercept_[0] - weight @ mean))

    def lateral_probability(self, features: np.ndarray) -> np.ndarray:
        """Return the probability that each image is lateral, [N], from features [N, 4 C]."""
        return np.asarray(1 / (1 + np.exp(-(features @ self.weight + self.bias))))

    def save(self, path: Path, origin: str) -> None:
        """Write the weights as safetensors; ``origin`` describes the data that they come from."""
        metadata = {"encoder": encoder_info(SIDE).version, "trained_on": origin}
        tensors = {"weight": self.weight, "bias": np.array([self.bias], np.float32)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(path, "wb") as out:
            out.write(save(tensors, metadata=metadata))

    @classmethod
    def load(cls, path: Path) -> ViewClassifier:
        """Read weights.

        Raises:
            FeatureError: ``views_encoder``, they belong to another image encoder.
        """
        with safe_open(path, "np") as file:
            if file.metadata().get("encoder") != encoder_info(SIDE).version:
                raise FeatureError(
                    "views_encoder", f"{path} was trained on another image encoder; train it again"
                )
            return cls(file.get_tensor("weight"), float(file.get_tensor("bias")[0]))


@cache
def packaged_classifier() -> ViewClassifier:
    """Return the classifier that comes with the package."""
    with as_file(files("lmrrg.vision") / "views.safetensors") as path:
        return ViewClassifier.load(path)


def views_by_pixels(
    studies: Sequence[Study], data: DataConfig, *, progress: bool = True
) -> list[list[Side]]:
    """Classify every image of every study; "unknown" where the probability is below ``SURE``."""
    features = describe_views(studies, data, progress=progress)
    sides = iter([_side(p) for p in packaged_classifier().lateral_probability(features).tolist()])
    return [list(islice(sides, len(study.images))) for study in studies]


def _side(lateral_probability: float) -> Side:
    """Return the view that is sure, else "unknown"."""
    if lateral_probability >= SURE:
        return "lateral"
    return "frontal" if lateral_probability <= 1 - SURE else "unknown"


def checked_views(
    studies: Sequence[Study], data: DataConfig, *, progress: bool = True
) -> tuple[list[Study], dict[str, int]]:
    """Return the studies with missing views filled in, and the counts for the audit.

    The counts are ``images``, ``filled``, ``not_clear`` (the view is missing and the pixels do not
    decide), ``tag_frontal_pixels_lateral`` and ``tag_lateral_pixels_frontal``.

    Raises:
        ImageError, FeatureError: as :class:`~lmrrg.vision.files.FeatureFiles`.
    """
    keys = ("filled", "not_clear", "tag_frontal_pixels_lateral", "tag_lateral_pixels_frontal")
    counts = {"images": sum(len(study.images) for study in studies)} | dict.fromkeys(keys, 0)
    checked = []
    by_pixels = views_by_pixels(studies, data, progress=progress)
    for study, sides in zip(studies, by_pixels, strict=True):
        images = []
        for image, side in zip(study.images, sides, strict=True):
            images.append(_checked(image, side, counts))
        # A view that was filled in may change which images the model sees first.
        checked.append(replace(study, images=frontal_first(images)))
    return checked, counts


def _checked(image: StudyImage, side: Side, counts: dict[str, int]) -> StudyImage:
    """Return the image, its missing view filled in; count what was found."""
    if image.view == "unknown":
        counts["not_clear" if side == "unknown" else "filled"] += 1
        return replace(image, view=side)
    tagged: View = "lateral" if image.view == "lateral" else "frontal"
    if side not in (tagged, "unknown"):
        counts[f"tag_{tagged}_pixels_{side}"] += 1
    return image
