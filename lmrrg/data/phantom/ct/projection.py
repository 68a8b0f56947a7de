"""Projection of volumes onto films: rays from a point source, for the frontal and the lateral view (ours).

A volume is taken apart into the slices that lie parallel to the film; each slice is magnified by its distance and
shifted by the patient's turn and tilt, and all are added up. Film coordinates are millimetres in the plane through the
patient's middle: u to the right of the film, v downwards.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from lmrrg.data.phantom.ct.volume import CT

FilmView = Literal["PA", "lateral"]
SOURCE_MM = 1650.0
"""From the source to the patient's middle: the usual 1.8 m to the film."""
FIELD_MM = 320.0
"""Side of the square that is projected, in the plane of the patient's middle."""
LOW_MM = 15.0
"""How much lower than the middle of the lungs the middle of the film is."""
_CHUNK = 16


@dataclass(frozen=True)
class Pose:
    """How the patient is turned (about the vertical axis) and tilted (forwards), radians."""

    turn: float = 0.0
    tilt: float = 0.0


@dataclass(frozen=True)
class Body:
    """How a body differs from the CT's own: a factor of the heart's size, one of the depth of the chest, and the way
    that the diaphragm is lower, mm."""

    heart: float = 1.0
    depth: float = 1.0
    breath: float = 0.0


def to_film(points: NDArray[np.floating], view: FilmView, pose: Pose) -> NDArray[np.float64]:
    """Patient points [..., 3] (z, y, x in mm) as film points [..., 2] (u, v in mm)."""
    z, y, x = np.moveaxis(np.asarray(points, np.float64), -1, 0)
    depth, across = (y, x) if view == "PA" else (x, -y)
    scale = SOURCE_MM / (SOURCE_MM + depth)
    u = (across * np.cos(pose.turn) + depth * np.sin(pose.turn)) * scale
    return np.stack(
        [u, -(z * np.cos(pose.tilt) + depth * np.sin(pose.tilt)) * scale - LOW_MM], axis=-1
    )


def magnification(depth_mm: float) -> float:
    """How much larger than in the patient's middle something looks at a depth, mm towards the film."""
    return SOURCE_MM / (SOURCE_MM + depth_mm)


def rays(size: int, view: FilmView, pose: Pose, depths: Tensor) -> tuple[Tensor, Tensor]:
    """Patient coordinates (across, z), each [D, size, size], where the rays of a film cross each depth [D]."""
    line = (torch.arange(size, dtype=torch.float32) + 0.5) / size * FIELD_MM - FIELD_MM / 2
    scale = SOURCE_MM / (SOURCE_MM + depths)
    u = line[None, None, :] / scale[:, None, None] - (depths * np.sin(pose.turn))[:, None, None]
    v = (
        -(line + LOW_MM)[None, :, None] / scale[:, None, None]
        - (depths * np.sin(pose.tilt))[:, None, None]
    )
    shape = (len(depths), size, size)
    return (u / np.cos(pose.turn)).expand(shape), (v / np.cos(pose.tilt)).expand(shape)


def in_ct(
    view: FilmView,
    across: Tensor,
    z: Tensor,
    depths: Tensor,
    body: Body,
    heart: tuple[float, float, float],
) -> tuple[Tensor, Tensor]:
    """Where in the CT the tissue at a place of a body comes from: the warp that makes the body, backwards.

    The heart grows from its middle ``heart`` (z, y, x in mm) and pushes the lung aside, the diaphragm sinks more in
    the middle of each lung than at its rim, so that a low one is a flat one. Shifts along the ray are left out: a line
    integral does not see them.
    """
    frontal = view == "PA"
    middle = heart[2] if frontal else -heart[1]
    depth = depths[:, None, None].expand_as(z)
    x, y = (across, depth) if frontal else (depth, -across)
    if not frontal:
        across = across / body.depth
    low = torch.exp(-(((x.abs() - 70) / 75) ** 2) - (y / 95) ** 2)
    z = z + body.breath * low * torch.sigmoid(-(z + 25) / 18) * torch.sigmoid((z + 190) / 10)
    dz, dy, dx = (v - m for v, m in zip((z, y, x), heart, strict=True))
    radius = ((dz / 85) ** 2 + (dy / 85) ** 2 + (dx / 105) ** 2).sqrt()
    t = ((1 - radius) / 0.8).clamp(0, 1)
    pull = (1 - 1 / body.heart) * t * t * (3 - 2 * t)
    return across - (1 if frontal else 0.7) * pull * (across - middle), z - 0.45 * pull * dz


def slabs(
    volumes: Tensor,
    ct: CT,
    view: FilmView,
    pose: Pose,
    body: Body,
    heart: tuple[float, float, float],
    *,
    size: int,
    count: int = 1,
) -> tuple[Tensor, Tensor]:
    """Line integrals per slab of depth.

    Args:
        volumes: [C, Z, Y, X].
        count: slabs, from the source to the film; 1 gives whole line integrals.

    Returns:
        float32 [C, count, size, size] in mm times the volumes' unit, and the slabs' middle depths [count] in mm.
    """
    frontal = view == "PA"
    sliced = volumes.permute(2, 0, 1, 3) if frontal else volumes.permute(3, 0, 1, 2).flip(-1)
    n = sliced.shape[0] - sliced.shape[0] % (2 * count)
    sliced = (
        sliced[:n].unflatten(0, (-1, 2)).mean(1)
    )  # the depth needs no more than every second slice
    step, start = (ct.spacing[1], ct.middle[1]) if frontal else (ct.spacing[2], ct.middle[2])
    depths = (torch.arange(len(sliced)) * 2 + 0.5 - start) * step
    height, width = sliced.shape[-2:]
    across_middle = ct.middle[2] if frontal else width - 1 - ct.middle[1]
    across_step = ct.spacing[2] if frontal else ct.spacing[1]
    out = torch.zeros(count, volumes.shape[0], size, size)
    per_slab = len(sliced) // count
    for first in range(0, len(sliced), _CHUNK):
        part = slice(first, first + _CHUNK)
        across, z = in_ct(view, *rays(size, view, pose, depths[part]), depths[part], body, heart)
        columns = 2 * (across / across_step + across_middle) / (width - 1) - 1
        rows = 2 * (z / ct.spacing[0] + ct.middle[0]) / (height - 1) - 1
        grid = torch.stack([columns, rows], dim=-1)
        seen = F.grid_sample(
            sliced[part], grid, mode="bilinear", padding_mode="border", align_corners=True
        )
        owner = torch.arange(first, first + len(seen)).div(per_slab, rounding_mode="floor")
        out.index_add_(0, owner, seen * (2 * step))
    middles = depths.unflatten(0, (count, per_slab)).mean(1)
    return out.transpose(0, 1), middles
