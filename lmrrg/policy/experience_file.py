"""Experience on disk: to inspect it, to learn from it again, to find out what broke an update."""

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

_FEATURES = ("patches", "views", "view_mask", "evidence")
_ROLLOUT = ("study", "ids", "mask")


def save_experience(path: Path, experience: Experience) -> None:
    """Write an experience as safetensors, atomically; the prompts are in the file's metadata."""
    rollout = experience.rollout
    tensors = {name: getattr(rollout.features, name) for name in _FEATURES}
    tensors |= {name: getattr(rollout, name) for name in _ROLLOUT}
    tensors |= {name: value for name, value in _learnt(experience).items() if value is not None}
    metadata = {"prompts": json.dumps(rollout.prompts)}
    path.parent.mkdir(parents=True, exist_ok=True)
    # Written aside and then renamed, so that a file under the final name is always whole.
    part = path.with_name(f".{path.name}.part")
    # safetensors refuses tensors that share memory, as slices of one rollout do.
    separate = {name: one.detach().cpu().contiguous().clone() for name, one in tensors.items()}
    save_file(separate, str(part), metadata)
    os.replace(part, path)


def load_experience(path: Path) -> Experience:
    """Read an experience back, on CPU.

    Raises:
        PPOError: ``experience_file``, the file does not exist or holds no experience.
    """
    if not path.is_file():
        raise PPOError("experience_file", f"{path} does not exist")
    with safe_open(str(path), framework="pt") as file:
        metadata = file.metadata() or {}
        tensors = {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    required = (*_FEATURES, *_ROLLOUT, "loss_mask", "advantages")
    if missing := [name for name in required if name not in tensors]:
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
    """Where ``value`` is NaN or infinite, save the experience that made it so, and stop.

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
