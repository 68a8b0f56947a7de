"""An image encoder with a class head, and the directory that it is kept in.

An eye directory is what training the encoder makes, and what ``model.image_encoder.weights`` names:

    config.json         "architecture": "LMRRG-eye", the encoder's name, calibration, provenance
    model.safetensors   backbone and class head
    backbone/           of a Hugging Face backbone: its architecture and preprocessing
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any, NamedTuple

from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lmrrg.files import directory_writer
from lmrrg.studies import LABELS
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.calibration import Calibration
from lmrrg.vision.efficientnet import EfficientNetBackbone
from lmrrg.vision.huggingface import HUGGINGFACE, HuggingFaceBackbone, model_folder

ARCHITECTURE = "LMRRG-eye"
FORMAT = 1
CONFIG = "config.json"
WEIGHTS = "model.safetensors"
BACKBONE = "backbone"


class Encoded(NamedTuple):
    """What an image encoder makes of N images."""

    patches: Tensor
    """float32 [N, P, C], patches by rows."""
    logits: Tensor | None
    """float32 [N, 14], not calibrated; None where the encoder has no class head."""


Backbone = EfficientNetBackbone | HuggingFaceBackbone
"""A module from images [N, side, side] to patches [N, P, C]."""


class ClassHead(nn.Module):
    """Logits of the 14 classes; every class weighs the patches by its own attention (**ours**).

    A new head weighs all patches alike, so it starts as a linear classifier of their mean.
    """

    def __init__(self, width: int) -> None:
        super().__init__()
        self.norm = nn.LayerNorm(width)
        self.relevance = nn.Linear(width, len(LABELS))
        self.evidence = nn.Linear(width, len(LABELS))
        for weight in (*self.relevance.parameters(), *self.evidence.parameters()):
            nn.init.zeros_(weight)

    def forward(self, patches: Tensor) -> Tensor:
        """Return logits [N, 14] of patches [N, P, C]."""
        x = self.norm(patches)
        return (self.relevance(x).softmax(dim=1) * self.evidence(x)).sum(dim=1)


class Eye(nn.Module):
    """A backbone and its class head; ``calibration`` belongs to the logits of a study."""

    def __init__(self, backbone: Backbone, calibration: Calibration) -> None:
        super().__init__()
        self.backbone = backbone
        self.head = ClassHead(backbone.width)
        self.calibration = calibration

    @classmethod
    def new(cls, name: str, image_size: int, weights: str | None = None) -> Eye:
        """Return an eye with a new class head, on the pretrained weights of the backbone.

        Args:
            name: ``model.image_encoder.name``.
            image_size: side of the squares, pixels.
            weights: folder or hub name of a Hugging Face model; others start from ImageNet's.

        Raises:
            FeatureError: ``image_size``; ``encoder_weights``.
        """
        if name != HUGGINGFACE:
            return cls(EfficientNetBackbone(name, image_size), Calibration())
        if weights is None:
            raise FeatureError("encoder_weights", "a Hugging Face model to start from is not given")
        return cls(HuggingFaceBackbone(model_folder(weights), image_size), Calibration())

    def forward(self, pixels: Tensor) -> Encoded:
        """Encode images, float32 [N, side, side] in [0, 1], with gradients."""
        patches = self.backbone(pixels)
        return Encoded(patches, self.head(patches))


def save_eye(eye: Eye, folder: Path, extra: Mapping[str, Any]) -> None:
    """Write an eye directory, replacing an older one only when all of it is written.

    Args:
        extra: provenance (data hash, image size, metrics, ...): JSON values.
    """
    settings = {
        "architecture": ARCHITECTURE,
        "format": FORMAT,
        "name": eye.backbone.name,
        "classes": list(LABELS),
        "calibration": asdict(eye.calibration),
        "provenance": dict(extra),
    }
    weights = {
        name: tensor.detach().cpu().contiguous() for name, tensor in eye.state_dict().items()
    }
    with directory_writer(Path(folder)) as part:
        (part / CONFIG).write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
        save_file(weights, part / WEIGHTS, metadata={"format": "pt"})
        if isinstance(eye.backbone, HuggingFaceBackbone):
            eye.backbone.save_architecture(part / BACKBONE)


def eye_files(folder: Path) -> list[Path]:
    """Return the files of an eye directory; others that lie in it do not belong to it.

    Raises:
        FeatureError: ``encoder_weights``, there is no eye.
    """
    read_eye_settings(folder)
    return [folder / WEIGHTS, folder / CONFIG, *sorted((folder / BACKBONE).glob("*.json"))]


def is_eye(folder: Path) -> bool:
    """Return whether a folder's ``config.json`` is that of an eye."""
    try:
        settings = json.loads((folder / CONFIG).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False
    return isinstance(settings, dict) and settings.get("architecture") == ARCHITECTURE


def load_eye(folder: Path, image_size: int) -> Eye:
    """Read an eye, float32 on CPU, in evaluation mode, for squares of ``image_size``.

    Raises:
        FeatureError: ``encoder_weights``, the folder holds no eye or a damaged one;
            ``image_size``.
    """
    settings = read_eye_settings(folder)
    eye = Eye(_backbone(settings, folder, image_size), eye_calibration(settings, folder))
    try:
        eye.load_state_dict(load_file(folder / WEIGHTS))
    except (SafetensorError, RuntimeError, OSError) as error:
        raise FeatureError("encoder_weights", f"{folder}/{WEIGHTS}: {error}") from error
    return eye.eval()


def read_eye_settings(folder: Path) -> dict[str, Any]:
    """Return the ``config.json`` of an eye directory.

    Raises:
        FeatureError: ``encoder_weights``.
    """
    path = Path(folder) / CONFIG
    for needed in (path, path.with_name(WEIGHTS)):
        if not needed.is_file():
            raise FeatureError("encoder_weights", f"there is no {needed}; sft/eye.py makes eyes")
    try:
        settings = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise FeatureError("encoder_weights", f"{path} is not JSON: {error}") from error
    expected = {"architecture": ARCHITECTURE, "format": FORMAT, "classes": list(LABELS)}
    if not isinstance(settings, dict) or {k: settings.get(k) for k in expected} != expected:
        raise FeatureError(
            "encoder_weights",
            f"{path} is not of an {ARCHITECTURE} of format {FORMAT} with our classes",
        )
    return settings


def eye_calibration(settings: Mapping[str, Any], folder: Path) -> Calibration:
    """Return the calibration that an eye directory records.

    Raises:
        FeatureError: ``encoder_weights``, it records none that can be read.
    """
    try:
        return Calibration.of(settings["calibration"])
    except (KeyError, TypeError, ValueError) as error:
        raise FeatureError(
            "encoder_weights", f"{folder}/{CONFIG} has no calibration that can be read: {error}"
        ) from error


def _backbone(settings: Mapping[str, Any], folder: Path, image_size: int) -> Backbone:
    """Return the architecture of an eye's backbone; its weights are still to be loaded."""
    if settings["name"] == HUGGINGFACE:
        return HuggingFaceBackbone(folder / BACKBONE, image_size, weights=False)
    return EfficientNetBackbone(settings["name"], image_size)
