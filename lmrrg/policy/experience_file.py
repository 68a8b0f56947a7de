"""An experience on disk: to look at it, to learn from it again, and to find out what broke an update."""

from __future__ import annotations

import json
import os
from dataclasses import fields
from pathlib import Path

import torch
from safetensors import safe_open
from safetensors.torch import save_file
from torch import Tensor

from lmrrg.policy.batches import Experience, Rollout
from lmrrg.ppo.errors import PPOError
from lmrrg.vision.study_features import StudyFeatures

_FEATURES, _ROLLOUT = ("patches", "views", "view_mask"), ("study", "ids", "mask")


def save_experience(path: Path, experience: Experience) -> None:
    """Write an experience as safetensors (atomic); the prompts are in its metadata."""
    rollout = experience.rollout
    tensors = {name: getattr(rollout.features, name) for name in _FEATURES}
    tensors |= {name: getattr(rollout, name) for name in _ROLLOUT}
    tensors |= {name: value for name, value in _learnt(experience).items() if value is not None}
    metadata = {"prompts": json.dumps(rollout.prompts)}
    path.parent.mkdir(parents=True, exist_ok=True)
    part = path.with_name(f".{path.name}.part")
    save_file(
        {name: tensor.detach().cpu().contiguous().clone() for name, tensor in tensors.items()},
        str(part),
        metadata,
    )
    os.replace(part, path)


def load_experience(path: Path) -> Experience:
    """Read it back, on CPU.

    Raises:
        PPOError: ``experience_file``, it does not exist or is none.
    """
    if not path.is_file():
        raise PPOError("experience_file", f"{path} does not exist")
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    if missing := [
        name for name in (*_FEATURES, *_ROLLOUT, "loss_mask", "advantages") if name not in tensors
    ]:
        raise PPOError(
            "experience_file", f"{path} holds no experience: {', '.join(missing)} missing"
        )
    rollout = Rollout(
        features=StudyFeatures(*(tensors.pop(name) for name in _FEATURES)),
        prompts=json.loads(metadata["prompts"]),
        **{name: tensors.pop(name) for name in _ROLLOUT},
    )
    return Experience(rollout=rollout, **tensors)


def require_finite(value: Tensor, experience: Experience, path: Path) -> None:
    """Save the experience that made ``value`` NaN or infinite, and stop.

    Raises:
        PPOError: ``not_finite``.
    """
    if not torch.isfinite(value).all():
        save_experience(path, experience)
        raise PPOError(
            "not_finite", f"a loss or gradient is not finite; its minibatch is in {path}"
        )


def _learnt(experience: Experience) -> dict[str, Tensor | None]:
    return {f.name: getattr(experience, f.name) for f in fields(Experience) if f.name != "rollout"}
