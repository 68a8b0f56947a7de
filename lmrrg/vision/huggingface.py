"""Vision models of Hugging Face as image encoders, from a folder or from the hub."""

from __future__ import annotations

import json
import math
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from huggingface_hub import snapshot_download
from huggingface_hub.errors import HfHubHTTPError, HFValidationError, LocalEntryNotFoundError
from safetensors import SafetensorError
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import AutoConfig, AutoModel, PreTrainedConfig
from transformers.utils import logging as transformers_logging

from lmrrg.vision.cache import FeatureError

HUGGINGFACE = "huggingface"
CONFIG = "config.json"
PREPROCESSING = "preprocessor_config.json"
FILES = (CONFIG, PREPROCESSING, "model*.safetensors", "model.safetensors.index.json")
"""What is read of a model's folder, as patterns."""
_UNUSED = ("pooler", "mask_token")
"""Weights that a checkpoint may lack, because patches do not depend on them."""


def model_folder(name: str) -> Path:
    """Return a model's folder; one of the hub is downloaded, or found in the hub's cache.

    Raises:
        FeatureError: ``encoder_weights``, there is neither such a folder nor such a model.
    """
    if Path(name).is_dir():
        return Path(name)
    try:
        return Path(snapshot_download(name, allow_patterns=list(FILES)))
    except (HFValidationError, HfHubHTTPError, LocalEntryNotFoundError, OSError) as error:
        raise FeatureError(
            "encoder_weights",
            f"{name} is no folder here, and the hub gives no such model: {type(error).__name__}",
        ) from error


@dataclass(frozen=True)
class Preprocessing:
    """How a model wants its pixels: its input side, and the scale of three colours."""

    side: int
    factor: float
    """What 8-bit values are multiplied by, before mean and deviation."""
    mean: tuple[float, ...]
    deviation: tuple[float, ...]

    @classmethod
    def of(cls, stored: dict[str, Any]) -> Preprocessing:
        """Read a ``preprocessor_config.json``.

        A model that crops the middle of a larger picture sees the whole square at the crop's size
        here: findings lie at the borders of a film, too.

        Raises:
            KeyError, TypeError, ValueError: it says something else, or not enough.
        """
        crops = stored.get("do_center_crop", False) and "crop_size" in stored
        size = stored["crop_size"] if crops else stored["size"]
        side, other = _sides(size)
        if side != other:
            raise ValueError(f"its input of {side} x {other} pixels is no square")
        rescales = stored.get("do_rescale", True)
        normalizes = stored.get("do_normalize", True)
        return cls(
            side,
            float(stored.get("rescale_factor", 1 / 255)) if rescales else 1.0,
            tuple(map(float, stored["image_mean"])) if normalizes else (0.0,),
            tuple(map(float, stored["image_std"])) if normalizes else (1.0,),
        )


def _sides(size: int | dict[str, int]) -> tuple[int, int]:
    if isinstance(size, int):
        return size, size
    if "height" in size:
        return int(size["height"]), int(size["width"])
    return int(size["shortest_edge"]), int(size["shortest_edge"])


class HuggingFaceBackbone(nn.Module):
    """The patches of a vision model's last layer; class and register tokens are left out.

    Squares are resized to the model's own input size, with its own normalisation.

    Args:
        folder: of the model, with ``preprocessor_config.json``.
        image_size: side of the squares, pixels.
        weights: False: only the architecture is built, with random weights.

    Raises:
        FeatureError: ``encoder_weights``, the folder holds no vision model of transformers with
            safetensors; ``image_size``, its patches form no square grid.
    """

    mean: Tensor
    deviation: Tensor

    def __init__(self, folder: Path, image_size: int, *, weights: bool = True) -> None:
        super().__init__()
        self.name = HUGGINGFACE
        self.image_size = image_size
        self._preprocessing_text = _read(folder / PREPROCESSING)
        try:
            self.preprocessing = Preprocessing.of(json.loads(self._preprocessing_text))
        except (KeyError, TypeError, ValueError) as error:
            raise FeatureError("encoder_weights", f"{folder}/{PREPROCESSING}: {error}") from error
        config = _vision_config(folder)
        self.network = _build(folder, config, weights)
        colours = getattr(config, "num_channels", 3)
        mean, deviation = self.preprocessing.mean, self.preprocessing.deviation
        self.register_buffer("mean", _per_colour(mean, colours, folder), persistent=False)
        self.register_buffer("deviation", _per_colour(deviation, colours, folder), persistent=False)
        self.patches, self.width = self._shape(folder)

    def forward(self, pixels: Tensor) -> Tensor:
        """Encode images, float32 [N, side, side] in [0, 1], as float32 [N, P, C], row by row."""
        side = self.preprocessing.side
        colours = self.mean.shape[0]
        grey = F.interpolate(
            pixels.unsqueeze(1), (side, side), mode="bilinear", antialias=True, align_corners=False
        )
        values = (grey * (255 * self.preprocessing.factor)).expand(-1, colours, -1, -1)
        hidden = self.network((values - self.mean) / self.deviation).last_hidden_state
        if hidden.dim() == 4:  # convolutional: [N, C, rows, columns]
            return hidden.flatten(2).transpose(1, 2).contiguous()
        return hidden[:, self._special_tokens(hidden.shape[1]) :].contiguous()

    def _special_tokens(self, tokens: int) -> int:
        """Return how many class and register tokens lead ``tokens``."""
        grid = (self.preprocessing.side // self.network.config.patch_size) ** 2
        # A model that merges its patches (Swin) ends with fewer than the first grid, and has no
        # other tokens.
        return max(0, tokens - grid)

    def save_architecture(self, folder: Path) -> None:
        """Write ``config.json`` and ``preprocessor_config.json``, which build it again."""
        folder.mkdir()
        self.network.config.save_pretrained(folder)
        (folder / PREPROCESSING).write_text(self._preprocessing_text, encoding="utf-8")

    def _shape(self, folder: Path) -> tuple[int, int]:
        """Return P and C, as a forward pass gives them.

        Raises:
            FeatureError: ``image_size``.
        """
        square = torch.zeros(1, self.image_size, self.image_size, device=self.mean.device)
        try:
            with torch.no_grad():
                _, patches, width = self(square).shape
        except (ValueError, RuntimeError) as error:
            side = self.preprocessing.side
            why = f"{folder} does not take the {side} pixels of its {PREPROCESSING}: {error}"
            raise FeatureError("image_size", why) from error
        if math.isqrt(patches) ** 2 != patches:
            why = f"the {patches} patches of {folder} form no square grid"
            raise FeatureError("image_size", why)
        return patches, width


def model_files(folder: Path) -> list[Path]:
    """Return the files of a model's folder that are read, sorted.

    Raises:
        FeatureError: ``encoder_weights``, there are no safetensors; other files are never read,
            because they could run code.
    """
    if not any(folder.glob("model*.safetensors")):
        why = f"{folder} holds no model.safetensors; other forms of weights are not read"
        raise FeatureError("encoder_weights", why)
    return sorted(path for pattern in FILES for path in folder.glob(pattern))


def _vision_config(folder: Path) -> PreTrainedConfig:
    """Return the configuration of the vision model, or of the vision tower of CLIP and SigLIP.

    Raises:
        FeatureError: ``encoder_weights``.
    """
    with _coded(folder / CONFIG):
        config = AutoConfig.from_pretrained(folder, local_files_only=True, trust_remote_code=False)
    return getattr(config, "vision_config", config)


def _build(folder: Path, config: PreTrainedConfig, weights: bool) -> Any:
    """Return the network, with the folder's weights or with random ones.

    Raises:
        FeatureError: ``encoder_weights``.
    """
    plain = {"dtype": torch.float32, "trust_remote_code": False}
    with _coded(folder):
        if not weights:
            return _seeing(AutoModel.from_config(config, **plain), folder)
        model_files(folder)
        network, told = AutoModel.from_pretrained(
            folder,
            config=config,
            local_files_only=True,
            use_safetensors=True,
            output_loading_info=True,
            **plain,
        )
    if lacking := sorted(filter(_is_needed, told["missing_keys"])):
        why = f"{folder} lacks weights of {type(network).__name__}: {', '.join(lacking[:3])}"
        raise FeatureError("encoder_weights", why)
    return _seeing(network, folder)


def _is_needed(weight: str) -> bool:
    return not any(part in weight for part in _UNUSED)


def _seeing(network: Any, folder: Path) -> Any:
    if network.main_input_name != "pixel_values":
        why = f"{folder} holds a {type(network).__name__}, which is no vision model"
        raise FeatureError("encoder_weights", why)
    return network


@contextmanager
def _coded(what: Path) -> Iterator[None]:
    """Turn what transformers raises into ``encoder_weights``, and keep its reports to itself."""
    before = transformers_logging.get_verbosity()
    transformers_logging.set_verbosity_error()  # of CLIP it would list the whole text tower
    try:
        yield
    except FeatureError:
        raise
    except (OSError, ValueError, KeyError, TypeError, RuntimeError, SafetensorError) as error:
        raise FeatureError("encoder_weights", f"{what} cannot be read: {error}") from error
    finally:
        transformers_logging.set_verbosity(before)


def _read(path: Path) -> str:
    try:
        return path.read_text(encoding="utf-8")
    except OSError as error:
        why = f"{path} cannot be read, and says how the model wants its pixels"
        raise FeatureError("encoder_weights", why) from error


def _per_colour(values: tuple[float, ...], colours: int, folder: Path) -> Tensor:
    """Return one value for each colour, [colours, 1, 1]."""
    if len(values) not in (1, colours):
        why = f"{folder}/{PREPROCESSING} has {len(values)} colours, the model {colours}"
        raise FeatureError("encoder_weights", why)
    return torch.tensor(values).expand(colours).reshape(colours, 1, 1).clone()
