"""Projection of volumes onto films, for the frontal and the lateral view (ours).

Rays come from a point. A volume is taken apart into the slices that lie parallel to the film; each
slice is magnified by its distance and shifted by the patient's turn and tilt, and all are added up.
Film coordinates are millimetres in the plane through the patient's middle: u to the right of the
film, v downwards.
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
"""Slices that are projected together, so that memory does not grow with the volume's depth."""


@dataclass(frozen=True)
class Pose:
    """How the patient is turned (about the vertical axis) and tilted (forwards), radians."""

    turn: float = 0.0
    tilt: float = 0.0


@dataclass(frozen=True)
class Body:
    """How a body differs from the CT's own.

    Attributes:
        heart: factor of the heart's size.
        depth: factor of the depth of the chest, from front to back.
        breath: how much lower the diaphragm is, mm.
    """

    heart: float = 1.0
    depth: float = 1.0
    breath: float = 0.0


def to_film(points: NDArray[np.floating], view: FilmView, pose: Pose) -> NDArray[np.float64]:
    """Convert patient points [..., 3] (z, y, x in mm) to film points [..., 2] (u, v in mm)."""
    z, y, x = np.moveaxis(np.asarray(points, np.float64), -1, 0)
    depth, across = (y, x) if view == "PA" else (x, -y)
    scale = SOURCE_MM / (SOURCE_MM + depth)
    u = (across * np.cos(pose.turn) + depth * np.sin(pose.turn)) * scale
    v = -(z * np.cos(pose.tilt) + depth * np.sin(pose.tilt)) * scale - LOW_MM
    return np.stack([u, v], axis=-1)


def magnification(depth_mm: float) -> float:
    """Return how much larger than in the patient's middle a thing looks at a depth.

    The depth is in mm towards the film, so what is nearer to the film looks smaller.
    """
    return SOURCE_MM / (SOURCE_MM + depth_mm)


def rays(size: int, view: FilmView, pose: Pose, depths: Tensor) -> tuple[Tensor, Tensor]:
    """Return where the rays of a film cross each depth: the inverse of :func:`to_film`.

    Args:
        size: rows and columns of the film.
        view: of the film.
        pose: of the patient.
        depths: mm towards the film, [D].

    Returns:
        Patient coordinates across and z, each [D, size, size], in mm.
    """
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
    """Return where in the CT the tissue at a point of a body comes from.

    This is the inverse of the warp that makes the body from the CT. The heart grows from its middle
    ``heart`` (z, y, x in mm) and pushes the lung aside. The diaphragm sinks more in the middle of
    each lung than at its rim, so that a low one is a flat one. Shifts along the ray are left out,
    since a line integral does not change by them.

    Args:
        view: of the film.
        across: patient coordinate across the film, [D, size, size], mm.
        z: patient coordinate upwards, of the same shape.
        depths: mm towards the film, [D].
        body: the body.
        heart: middle of the CT's heart.

    Returns:
        CT coordinates across and z, shaped as the arguments.
    """
    frontal = view == "PA"
    middle = heart[2] if frontal else -heart[1]
    depth = depths[:, None, None].expand_as(z)
    x, y = (across, depth) if frontal else (depth, -across)
    if not frontal:
        across = across / body.depth
    # 1 in the middle of each lung, less towards its rim.
    inside_lung = torch.exp(-(((x.abs() - 70) / 75) ** 2) - (y / 95) ** 2)
    # The two sigmoids keep the shift to the heights around the diaphragm.
    z = z + body.breath * inside_lung * torch.sigmoid(-(z + 25) / 18) * torch.sigmoid(
        (z + 190) / 10
    )
    dz = z - heart[0]
    dy = y - heart[1]
    dx = x - heart[2]
    radius = ((dz / 85) ** 2 + (dy / 85) ** 2 + (dx / 105) ** 2).sqrt()
    # Smoothstep: the full shift near the heart's middle, none from an ellipsoid around it on.
    t = ((1 - radius) / 0.8).clamp(0, 1)
    pull = (1 - 1 / body.heart) * t * t * (3 - 2 * t)
    pulled_across = (1 if frontal else 0.7) * pull * (across - middle)
    return across - pulled_across, z - 0.45 * pull * dz


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
    """Return line integrals per slab of depth.

    Args:
        volumes: [C, Z, Y, X].
        ct: the grid of the volumes.
        view: of the film.
        pose: of the patient.
        body: the body that the CT is warped to.
        heart: middle of the CT's heart (z, y, x in mm).
        size: rows and columns of the film.
        count: number of slabs, from the source to the film; 1 gives whole line integrals.

    Returns:
        float32 [C, count, size, size] in mm times the volumes' unit, and the slabs' middle depths
        [count] in mm.
    """
    frontal = view == "PA"
    sliced = volumes.permute(2, 0, 1, 3) if frontal else volumes.permute(3, 0, 1, 2).flip(-1)
    # Pairs of slices are averaged: half the resolution is enough along the rays.
    n = sliced.shape[0] - sliced.shape[0] % (2 * count)
    sliced = sliced[:n].unflatten(0, (-1, 2)).mean(1)
    axis = 1 if frontal else 2
    step = ct.spacing[axis]
    start = ct.middle[axis]
    depths = (torch.arange(len(sliced)) * 2 + 0.5 - start) * step
    height, width = sliced.shape[-2:]
    across_middle = ct.middle[2] if frontal else width - 1 - ct.middle[1]
    across_step = ct.spacing[2] if frontal else ct.spacing[1]
    out = torch.zeros(count, volumes.shape[0], size, size)
    per_slab = len(sliced) // count
    for first in range(0, len(sliced), _CHUNK):
        part = slice(first, first + _CHUNK)
        across, z = in_ct(view, *rays(size, view, pose, depths[part]), depths[part], body, heart)
        # grid_sample counts from -1 to 1, from the middle of the first voxel to that of the last.
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
