"""Frontal or lateral, told from the pixels: a linear classifier on the frozen image features (ours).

``python -m lmrrg.cli.train_views`` made the packaged weights from IU X-ray (Open-i), whose two projections were sorted
by people. They serve ``data.check_views``: a missing view is filled in, and a tag that disagrees is counted, never changed.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from functools import cache
from importlib.resources import as_file, files
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
from lmrrg.vision.encoder import encoder_version
from lmrrg.vision.files import FeatureFiles

SIDE = 256
"""The classifier's own image size, pixels, whatever the model's is."""
SURE = 0.9
"""A view is filled in, or a tag doubted, from this probability on; between is "unknown"."""
_REGULARISATION = 0.02
_GRID = 8
_CHUNK = 256
Side = Literal["frontal", "lateral", "unknown"]


def describe_views(
    studies: Sequence[Study], data: DataConfig, *, progress: bool = True
) -> np.ndarray:
    """What the classifier sees of every image, in order: float32 [N, 4 C], the mean features of the four quarters.

    Raises:
        ImageError, FeatureError: as :class:`~lmrrg.vision.files.FeatureFiles`.
    """
    alone = [
        Study(study.id, study.patient, (image,)) for study in studies for image in study.images
    ]
    own = data.model_copy(update={"image_size": SIDE, "max_views": 1})
    features = FeatureFiles(alone, own, progress=progress)
    starts = range(0, len(alone), _CHUNK)
    parts = [
        _quarters(features.select(range(i, min(i + _CHUNK, len(alone)))).patches[:, 0])
        for i in starts
    ]
    return np.concatenate(parts)


def _quarters(patches: Tensor) -> np.ndarray:
    """Patches [N, 64, C] as [N, 4 C]."""
    grid = patches.float().unflatten(1, (2, _GRID // 2, 2, _GRID // 2))
    return grid.mean((2, 4)).flatten(1).numpy()


class ViewClassifier:
    """Weights [4 C] and a bias, with the mean and scale of what it sees."""

    def __init__(self, weight: np.ndarray, bias: float) -> None:
        self.weight, self.bias = weight.astype(np.float32), bias

    @classmethod
    def fit(cls, seen: np.ndarray, lateral: np.ndarray) -> ViewClassifier:
        """Logistic regression on standardised features; ``lateral`` bool [N]."""
        mean, scale = seen.mean(0), seen.std(0) + 1e-3
        model = LogisticRegression(C=_REGULARISATION, max_iter=1000).fit(
            (seen - mean) / scale, lateral
        )
        weight = model.coef_[0] / scale
        return cls(weight, float(model.intercept_[0] - weight @ mean))

    def lateral(self, seen: np.ndarray) -> np.ndarray:
        """The probability that each image is lateral, [N]."""
        return np.asarray(1 / (1 + np.exp(-(seen @ self.weight + self.bias))))

    def save(self, path: Path, origin: str) -> None:
        """Write the weights as safetensors, with the encoder and the data that they come from."""
        tensors = {"weight": self.weight, "bias": np.array([self.bias], np.float32)}
        path.parent.mkdir(parents=True, exist_ok=True)
        with atomic_writer(path, "wb") as out:
            out.write(
                save(tensors, metadata={"encoder": encoder_version(SIDE), "trained_on": origin})
            )

    @classmethod
    def load(cls, path: Path) -> ViewClassifier:
        """Read weights.

        Raises:
            FeatureError: ``views_encoder`` when they belong to another image encoder.
        """
        with safe_open(path, "np") as file:
            if file.metadata().get("encoder") != encoder_version(SIDE):
                raise FeatureError(
                    "views_encoder", f"{path} was trained on another image encoder; train it again"
                )
            return cls(file.get_tensor("weight"), float(file.get_tensor("bias")[0]))


@cache
def packaged_classifier() -> ViewClassifier:
    """The classifier that comes with the package."""
    with as_file(files("lmrrg.vision") / "views.safetensors") as path:
        return ViewClassifier.load(path)


def views_by_pixels(
    studies: Sequence[Study], data: DataConfig, *, progress: bool = True
) -> list[list[Side]]:
    """What the pixels say about every image of every study; "unknown" where they do not say it clearly."""
    lateral = iter(
        packaged_classifier().lateral(describe_views(studies, data, progress=progress)).tolist()
    )
    return [[_side(next(lateral)) for _ in study.images] for study in studies]


def _side(lateral: float) -> Side:
    return "lateral" if lateral >= SURE else "frontal" if lateral <= 1 - SURE else "unknown"


def checked_views(
    studies: Sequence[Study], data: DataConfig, *, progress: bool = True
) -> tuple[list[Study], dict[str, int]]:
    """The studies with missing views filled in, and the counts for the audit: ``images``, ``filled``, ``not_clear``
    (missing, and the pixels do not say it clearly), ``tag_frontal_pixels_lateral``, ``tag_lateral_pixels_frontal``.
    """
    keys = ("filled", "not_clear", "tag_frontal_pixels_lateral", "tag_lateral_pixels_frontal")
    counts = {"images": sum(len(study.images) for study in studies)} | dict.fromkeys(keys, 0)
    checked = []
    for study, seen in zip(studies, views_by_pixels(studies, data, progress=progress), strict=True):
        images = tuple(
            _checked(image, side, counts) for image, side in zip(study.images, seen, strict=True)
        )
        checked.append(replace(study, images=frontal_first(images)))
    return checked, counts


def _checked(image: StudyImage, side: Side, counts: dict[str, int]) -> StudyImage:
    if image.view == "unknown":
        counts["not_clear" if side == "unknown" else "filled"] += 1
        return replace(image, view=side)
    tagged: View = "lateral" if image.view == "lateral" else "frontal"
    if side not in (tagged, "unknown"):
        counts[f"tag_{tagged}_pixels_{side}"] += 1
    return image
