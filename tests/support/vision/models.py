"""Tiny vision models of Hugging Face with random weights, written as their folders."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import torch
from transformers import (
    AutoModel,
    BertConfig,
    CLIPConfig,
    ConvNextConfig,
    Dinov2Config,
    Dinov2WithRegistersConfig,
    PreTrainedConfig,
    ResNetConfig,
    SiglipConfig,
    SwinConfig,
    ViTConfig,
)

_LAYERS: dict[str, Any] = {"hidden_size": 32, "num_hidden_layers": 2, "num_attention_heads": 2}
_VIT: dict[str, Any] = {**_LAYERS, "intermediate_size": 64, "image_size": 64, "patch_size": 16}
_DINO: dict[str, Any] = {**_LAYERS, "mlp_ratio": 2, "image_size": 56, "patch_size": 14}
_TEXT: dict[str, Any] = {
    **{**_LAYERS, "num_hidden_layers": 1},
    "intermediate_size": 64,
    "vocab_size": 100,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
_STAGES: dict[str, Any] = {"hidden_sizes": [8, 16, 16, 32], "depths": [1, 1, 1, 1]}

ARCHITECTURES: dict[str, tuple[Callable[[], PreTrainedConfig], int, tuple[int, int]]] = {
    "vit": (lambda: ViTConfig(**_VIT), 64, (16, 32)),
    "dinov2": (lambda: Dinov2Config(**_DINO), 56, (16, 32)),
    "dinov2 with registers": (
        lambda: Dinov2WithRegistersConfig(**_DINO, num_register_tokens=4),
        56,
        (16, 32),
    ),
    # Whole two-tower models, as they are published.
    "clip": (lambda: CLIPConfig(vision_config=_VIT, text_config=_TEXT), 64, (16, 32)),
    "siglip": (lambda: SiglipConfig(vision_config=_VIT, text_config=_TEXT), 64, (16, 32)),
    "swin": (
        lambda: SwinConfig(
            image_size=64, embed_dim=16, depths=[1, 1, 1], num_heads=[1, 2, 4], window_size=4
        ),
        64,
        (16, 64),
    ),
    "convnext": (lambda: ConvNextConfig(**_STAGES), 96, (9, 32)),
    "resnet": (lambda: ResNetConfig(**_STAGES, embedding_size=8), 96, (9, 32)),
}
"""Name -> settings, input side, and the shape (P, C) of its features."""


def write_vision_model(name: str, folder: Path, seed: int = 0) -> Path:
    """Write a model of :data:`ARCHITECTURES` with its preprocessing; return its folder."""
    settings, side, _ = ARCHITECTURES[name]
    torch.manual_seed(seed)
    AutoModel.from_config(settings()).save_pretrained(folder)
    write_preprocessing(folder, size={"height": side, "width": side})
    return folder


def write_text_model(folder: Path) -> Path:
    """Write a model that sees no images."""
    AutoModel.from_config(BertConfig(**_TEXT)).save_pretrained(folder)
    write_preprocessing(folder, size=64)
    return folder


def write_preprocessing(folder: Path, **changes: Any) -> None:
    """Write ``preprocessor_config.json``."""
    settings = {
        "do_rescale": True,
        "rescale_factor": 1 / 255,
        "do_normalize": True,
        "image_mean": [0.4, 0.5, 0.6],
        "image_std": [0.2, 0.25, 0.3],
        **changes,
    }
    (folder / "preprocessor_config.json").write_text(json.dumps(settings))
