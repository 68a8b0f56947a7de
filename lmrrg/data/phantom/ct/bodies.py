"""What the films of one body in one pose are made of, projected once and kept on disk.

A phantom's film needs the line integrals of soft tissue and bone, the air of each lung by depth (so that a finding can
be put at a place in space), and the 29 regions' masks. All regions are made from the organ mask; zones and landmarks
that it lacks are ours.
"""

from __future__ import annotations

import os
import tempfile
from dataclasses import dataclass
from functools import cached_property, lru_cache
from pathlib import Path

import numpy as np
import torch
from numpy.typing import NDArray
from scipy import ndimage

from lmrrg.anatomy import REGIONS
from lmrrg.data.phantom.ct import volume as organs
from lmrrg.data.phantom.ct.masks import MASK_SIDE
from lmrrg.data.phantom.ct.projection import Body, FilmView, Pose, rays, slabs
from lmrrg.data.phantom.ct.volume import CT, LUNG, load_ct

VERSION = 1
FINE, COARSE, SLABS = 320, 80, 16
VIEWS: tuple[FilmView, ...] = ("PA", "lateral")
POSES = (Pose(), Pose(0.045, 0.04), Pose(-0.045, -0.05))
BODIES: dict[str, tuple[Body, ...]] = {
    "": (Body(heart=0.80), Body(heart=0.85, breath=10), Body(heart=0.78, breath=-8)),
    "mild": (Body(heart=1.4),),
    "moderate": (Body(heart=1.75),),
    "severe": (Body(heart=2.2, breath=-5),),
    "hyperinflation": (Body(heart=0.72, depth=1.14, breath=32),),
}
"""Bodies by what is wrong with their shape: a degree of cardiomegaly, hyperinflation, or nothing."""
_BONE_HU = 160
_TOUCH_MM = 6.0
"""A ray that crosses this much of a region shows it."""
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Projection:
    """One view of a body: line integrals in mm of water, float32.

    ``soft`` and ``bone`` [320, 320]; ``air`` [2, 320, 320], what the right and the left lung lack to soft tissue, and
    by depth ``depths`` [2, 16, 80, 80]; ``places`` [3, 16, 80, 80], the z, y, x in mm of these cells; ``masks`` bool
    [29, 64, 64].
    """

    soft: Array
    bone: Array
    air: Array
    depths: Array
    places: Array
    masks: NDArray[np.bool_]


class Anatomy:
    """The CT with everything that is derived from it once."""

    def __init__(self) -> None:
        self.ct = load_ct()
        self.coarse = _coarser(self.ct)
        density = np.clip(1 + self.ct.hounsfield / 1000, 0, None).astype(np.float32)
        bone = np.clip(self.ct.hounsfield - _BONE_HU, 0, None).astype(np.float32) / 1000
        z, y, x = self._middle_of(organs.HEART).tolist()
        self.heart: tuple[float, float, float] = (z, y, x)
        lungs = [np.isin(self.ct.organs, LUNG[side]) for side in ("right", "left")]
        air = [np.where(lung, np.maximum(1 - density, 0), 0).astype(np.float32) for lung in lungs]
        self.fine = torch.from_numpy(np.stack([density, bone, *air]))
        self.air = self.fine[2:, :, ::2, ::2]
        self._points: dict[int, tuple[NDArray[np.float64], NDArray[np.float32]]] = {}

    def _middle_of(self, organ: int) -> NDArray[np.float64]:
        return self.ct.millimetres(np.argwhere(self.ct.organs == organ)).mean(axis=0)

    @cached_property
    def regions(self) -> torch.Tensor:
        """The 29 regions on the coarse grid: float32 [29, Z, Y, X]."""
        made = _regions(self.coarse)
        return torch.from_numpy(np.stack([made[name] for name in REGIONS]).astype(np.float32))

    @cached_property
    def hila(self) -> dict[str, NDArray[np.float64]]:
        """The middle of each hilum (z, y, x in mm)."""
        return _hila(self.coarse)

    @cached_property
    def windpipe(self) -> NDArray[np.float64]:
        """The middle of the windpipe from the neck down to where it widens above the carina: [N, 3] (z, y, x in mm)."""
        return _windpipe(self.coarse)

    @cached_property
    def lungs(self) -> dict[str, NDArray[np.float64]]:
        """Lowest and highest z, y, x of each lung, mm: [2, 3]."""
        found = {
            side: self.ct.millimetres(np.argwhere(np.isin(self.ct.organs, LUNG[side])))
            for side in LUNG
        }
        return {
            side: np.stack([points.min(axis=0), points.max(axis=0)])
            for side, points in found.items()
        }

    def points(self, organ: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """The voxels of an organ: places [N, 3] (z, y, x in mm), and their bone density."""
        if organ not in self._points:
            at = np.argwhere(self.ct.organs == organ)
            self._points[organ] = self.ct.millimetres(at), self.fine[1].numpy()[tuple(at.T)]
        return self._points[organ]

    def project(self, body: Body, pose: Pose, view: FilmView) -> Projection:
        """Project one view (seconds)."""
        fine, _ = slabs(self.fine, self.ct, view, pose, body, self.heart, size=FINE)
        depths, middles = slabs(
            self.air, self.coarse, view, pose, body, self.heart, size=COARSE, count=SLABS
        )
        across, z = rays(COARSE, view, pose, middles)
        along = middles[:, None, None].expand_as(z)
        places = torch.stack([z, along, across] if view == "PA" else [z, -across, along])
        shown, _ = slabs(self.regions, self.coarse, view, pose, body, self.heart, size=MASK_SIDE)
        soft, bone, *air = fine[:, 0].numpy()
        masks = shown[:, 0].numpy() > _TOUCH_MM
        return Projection(soft, bone, np.stack(air), depths.numpy(), places.numpy(), masks)


@lru_cache(maxsize=1)
def anatomy() -> Anatomy:
    """The process's anatomy."""
    return Anatomy()


@lru_cache(maxsize=64)
def projection(cache: Path, shape: str, body: int, pose: int, view: FilmView) -> Projection:
    """One view of ``BODIES[shape][body]`` in ``POSES[pose]``, from the folder ``cache`` or made into it."""
    path = cache / f"v{VERSION}-{shape or 'normal'}-{body}-{pose}-{view}.npz"
    if not path.is_file():
        made = anatomy().project(BODIES[shape][body], POSES[pose], view)
        cache.mkdir(parents=True, exist_ok=True)
        handle, part = tempfile.mkstemp(dir=cache, suffix=".part")
        with os.fdopen(handle, "wb") as out:
            np.savez(out, **vars(made))
        os.replace(part, path)
    with np.load(path, allow_pickle=False) as file:
        return Projection(**{name: file[name] for name in file.files})


def _coarser(ct: CT) -> CT:
    z, y, x = ct.spacing
    middle = (ct.middle[0], (ct.middle[1]) / 2, (ct.middle[2]) / 2)
    return CT(ct.hounsfield[:, ::2, ::2], ct.organs[:, ::2, ::2], (z, 2 * y, 2 * x), middle)


def _grid(ct: CT) -> tuple[Array, Array, Array]:
    z, y, x = (
        (np.arange(n, dtype=np.float32) - m) * s
        for n, m, s in zip(ct.organs.shape, ct.middle, ct.spacing, strict=True)
    )
    return z[:, None, None], y[None, :, None], x[None, None, :]


def _ball(ct: CT, middle: NDArray[np.floating], radius: float) -> NDArray[np.bool_]:
    z, y, x = _grid(ct)
    return (z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2 < radius**2


def _carina(ct: CT) -> NDArray[np.float64]:
    windpipe = ct.millimetres(np.argwhere(ct.organs == organs.TRACHEA))
    return windpipe[windpipe[:, 0] < windpipe[:, 0].min() + 8].mean(axis=0)


def _windpipe(ct: CT) -> NDArray[np.float64]:
    points = ct.millimetres(np.argwhere(ct.organs == organs.TRACHEA))
    heights = np.unique(points[:, 0])
    heights = heights[heights > _carina(ct)[0] + 15][::-4]
    line = [points[points[:, 0] == height].mean(axis=0) for height in heights]
    above = line[0] + np.array([50.0, 15.0, 0.0])  # the CT ends below the neck
    return np.stack([above, *line])


def _hila(ct: CT) -> dict[str, NDArray[np.float64]]:
    carina = _carina(ct)
    return {"right": carina + np.array([-22, 0, -42]), "left": carina + np.array([-14, 0, 42])}


def _regions(ct: CT) -> dict[str, NDArray[np.bool_]]:
    z, _, x = _grid(ct)
    carina = _carina(ct)
    made: dict[str, NDArray[np.bool_]] = {}
    for side in ("right", "left"):
        made |= _lung_regions(ct, side)
        made[f"{side} clavicle"] = ct.organs == organs.CLAVICLE[side]
    aorta, heart = ct.organs == organs.AORTA, ct.organs == organs.HEART
    cava = ct.organs == organs.SVC
    top = ct.millimetres(np.argwhere(aorta))[:, 0].max()
    middle = np.isin(ct.organs, [*organs.VESSELS, organs.TRACHEA, 15]) & (z > -75)
    end = ct.millimetres(np.argwhere(cava))
    heart_x = ct.millimetres(np.argwhere(heart))[:, 2]
    return made | {
        "trachea": ct.organs == organs.TRACHEA,
        "spine": np.isin(ct.organs, organs.VERTEBRAE),
        "aortic arch": aorta & (z > top - 40),
        "mediastinum": middle,
        "upper mediastinum": middle & (z > carina[0]),
        "svc": cava,
        "cardiac silhouette": heart,
        "cavoatrial junction": _ball(ct, end[end[:, 0] < end[:, 0].min() + 5].mean(axis=0), 15),
        "right atrium": heart & (x < np.percentile(heart_x, 25)),
        "carina": _ball(ct, carina, 15),
        "abdomen": np.isin(ct.organs, organs.UPPER_ABDOMEN),
    }


def _lung_regions(ct: CT, side: str) -> dict[str, NDArray[np.bool_]]:
    """The lung, its thirds and apex by height, the hilum, and the lung's lower surface and outer recess."""
    z, _, x = _grid(ct)
    lung = np.isin(ct.organs, LUNG[side])
    points = ct.millimetres(np.argwhere(lung))
    low, high = np.percentile(points[:, 0], [1, 99.8])
    first, second = low + (high - low) * np.array([0.36, 0.66])
    outer = np.percentile(np.abs(points[points[:, 0] < first][:, 2]), 72)
    beneath = np.roll(ndimage.binary_erosion(~lung, np.ones((3, 1, 1))), 4, axis=0)
    return {
        f"{side} lung": lung,
        f"{side} upper lung zone": lung & (z > second),
        f"{side} mid lung zone": lung & (z > first) & (z <= second),
        f"{side} lower lung zone": lung & (z <= first),
        f"{side} hilar structures": _ball(ct, _hila(ct)[side], 26),
        f"{side} apical zone": lung & (z > high - 45),
        f"{side} costophrenic angle": lung & (z < low + 45) & (np.abs(x) > outer),
        f"{side} hemidiaphragm": lung & beneath & (z < first),
    }
