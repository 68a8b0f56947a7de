"""What the films of one body in one pose are made of, projected once and kept on disk.

A phantom's film needs the line integrals of soft tissue and bone, the air of each lung by depth (so
that a finding can be put at a point in space), and the masks of the 29 regions. All regions are
made from the organ mask; zones and landmarks that it lacks are ours.
"""

from __future__ import annotations

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
from lmrrg.files import atomic_writer

VERSION = 1
"""Part of the names of the kept files: raise it when a projection changes."""
FINE = 320
"""Side of a film of line integrals, in cells."""
COARSE = 80
"""Side of a film by depth, which needs less detail."""
SLABS = 16
"""Number of depths."""
FILM_VIEWS: tuple[FilmView, ...] = ("PA", "lateral")
POSES = (Pose(), Pose(0.045, 0.04), Pose(-0.045, -0.05))
BODIES: dict[str, tuple[Body, ...]] = {
    "": (Body(heart=0.80), Body(heart=0.85, breath=10), Body(heart=0.78, breath=-8)),
    "mild": (Body(heart=1.4),),
    "moderate": (Body(heart=1.75),),
    "severe": (Body(heart=2.2, breath=-5),),
    "hyperinflation": (Body(heart=0.72, depth=1.14, breath=32),),
}
"""Bodies by their shape: a degree of cardiomegaly, hyperinflation, or "" for a normal one."""
_BONE_HU = 160
"""What is denser counts as bone in addition, since bones attenuate more than their density says."""
_TOUCH_MM = 6.0
"""A ray that crosses this much of a region shows it."""
Array = NDArray[np.float32]


@dataclass(frozen=True)
class Projection:
    """One view of a body: line integrals in mm of water, float32.

    Attributes:
        soft: the density of all tissue, [320, 320].
        bone: the density above that of the least dense bone, [320, 320].
        air: what the right and the left lung lack to soft tissue, [2, 320, 320].
        depths: the same by depth, [2, 16, 80, 80].
        places: z, y, x of the cells of ``depths`` in mm, [3, 16, 80, 80].
        masks: the regions, bool [29, 64, 64].
    """

    soft: Array
    bone: Array
    air: Array
    depths: Array
    places: Array
    masks: NDArray[np.bool_]


class Anatomy:
    """The CT, and everything that is derived from it once.

    Attributes:
        ct: the CT.
        coarse: the CT with half the resolution across the body.
        heart: middle of the heart, z, y, x in mm.
        fine: density, bone, and the air of the right and the left lung, float32 [4, Z, Y, X].
        air: the last two on the coarse grid.
    """

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
        """The 29 regions on the coarse grid, float32 [29, Z, Y, X]."""
        made = _regions(self.coarse)
        return torch.from_numpy(np.stack([made[name] for name in REGIONS]).astype(np.float32))

    @cached_property
    def hila(self) -> dict[str, NDArray[np.float64]]:
        """The middle of each hilum, z, y, x in mm."""
        return _hila(self.coarse)

    @cached_property
    def windpipe(self) -> NDArray[np.float64]:
        """The middle line of the windpipe, [N, 3] (z, y, x in mm).

        It runs from the neck down to where the windpipe widens above the carina.
        """
        return _windpipe(self.coarse)

    @cached_property
    def lungs(self) -> dict[str, NDArray[np.float64]]:
        """The lowest and the highest z, y, x of each lung, [2, 3] in mm."""
        extents = {}
        for side, lobes in LUNG.items():
            points = self.ct.millimetres(np.argwhere(np.isin(self.ct.organs, lobes)))
            extents[side] = np.stack([points.min(axis=0), points.max(axis=0)])
        return extents

    def points(self, organ: int) -> tuple[NDArray[np.float64], NDArray[np.float32]]:
        """Return an organ's voxels: z, y, x in mm [N, 3], and their bone density [N]."""
        if organ not in self._points:
            at = np.argwhere(self.ct.organs == organ)
            self._points[organ] = self.ct.millimetres(at), self.fine[1].numpy()[tuple(at.T)]
        return self._points[organ]

    def project(self, body: Body, pose: Pose, view: FilmView) -> Projection:
        """Project one view, which takes seconds."""
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
    """Return the anatomy, read once per process."""
    return Anatomy()


@lru_cache(maxsize=64)
def projection(cache: Path, shape: str, body: int, pose: int, view: FilmView) -> Projection:
    """Return one view of ``BODIES[shape][body]`` in ``POSES[pose]``.

    It is read from the folder ``cache``, or made and written into it.
    """
    path = cache / f"v{VERSION}-{shape or 'normal'}-{body}-{pose}-{view}.npz"
    if not path.is_file():
        made = anatomy().project(BODIES[shape][body], POSES[pose], view)
        cache.mkdir(parents=True, exist_ok=True)
        # Several processes may share the folder.
        with atomic_writer(path, "wb") as out:
            np.savez(out, **vars(made))
    with np.load(path, allow_pickle=False) as file:
        return Projection(**{name: file[name] for name in file.files})


def _coarser(ct: CT) -> CT:
    z, y, x = ct.spacing
    middle = (ct.middle[0], ct.middle[1] / 2, ct.middle[2] / 2)
    return CT(ct.hounsfield[:, ::2, ::2], ct.organs[:, ::2, ::2], (z, 2 * y, 2 * x), middle)


def _grid(ct: CT) -> tuple[Array, Array, Array]:
    """Return z, y and x in mm of the CT's voxels, shaped so that they broadcast to [Z, Y, X]."""
    z, y, x = map(_line, ct.organs.shape, ct.middle, ct.spacing)
    return z[:, None, None], y[None, :, None], x[None, None, :]


def _line(count: int, middle: float, step: float) -> Array:
    return (np.arange(count, dtype=np.float32) - middle) * step


def _ball(ct: CT, middle: NDArray[np.floating], radius: float) -> NDArray[np.bool_]:
    z, y, x = _grid(ct)
    return (z - middle[0]) ** 2 + (y - middle[1]) ** 2 + (x - middle[2]) ** 2 < radius**2


def _carina(ct: CT) -> NDArray[np.float64]:
    """Return the middle of the windpipe's lowest 8 mm, where it forks."""
    windpipe = ct.millimetres(np.argwhere(ct.organs == organs.TRACHEA))
    return windpipe[windpipe[:, 0] < windpipe[:, 0].min() + 8].mean(axis=0)


def _windpipe(ct: CT) -> NDArray[np.float64]:
    points = ct.millimetres(np.argwhere(ct.organs == organs.TRACHEA))
    heights = np.unique(points[:, 0])
    # Downwards, every fourth height: a smooth line is drawn through them later.
    heights = heights[heights > _carina(ct)[0] + 15][::-4]
    line = [points[points[:, 0] == height].mean(axis=0) for height in heights]
    # The CT ends below the neck, through which a tube comes.
    above = line[0] + np.array([50.0, 15.0, 0.0])
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
    aorta = ct.organs == organs.AORTA
    aorta_top = ct.millimetres(np.argwhere(aorta))[:, 0].max()
    heart = ct.organs == organs.HEART
    heart_x = ct.millimetres(np.argwhere(heart))[:, 2]
    vena_cava = ct.organs == organs.SVC
    vena_cava_points = ct.millimetres(np.argwhere(vena_cava))
    vena_cava_end = vena_cava_points[vena_cava_points[:, 0] < vena_cava_points[:, 0].min() + 5]
    # Vessels go on below the chest.
    contents = [*organs.VESSELS, organs.TRACHEA, organs.OESOPHAGUS]
    mediastinum = np.isin(ct.organs, contents) & (z > -75)
    return made | {
        "trachea": ct.organs == organs.TRACHEA,
        "spine": np.isin(ct.organs, organs.VERTEBRAE),
        "aortic arch": aorta & (z > aorta_top - 40),
        "mediastinum": mediastinum,
        "upper mediastinum": mediastinum & (z > carina[0]),
        "svc": vena_cava,
        "cardiac silhouette": heart,
        "cavoatrial junction": _ball(ct, vena_cava_end.mean(axis=0), 15),
        # The mask does not tell the chambers apart; the right atrium is the heart's right border.
        "right atrium": heart & (x < np.percentile(heart_x, 25)),
        "carina": _ball(ct, carina, 15),
        "abdomen": np.isin(ct.organs, organs.UPPER_ABDOMEN),
    }


def _lung_regions(ct: CT, side: str) -> dict[str, NDArray[np.bool_]]:
    """Return the regions of one lung.

    They are the lung, its thirds and apex by height, the hilum, and the lung's lower surface and
    outer recess.
    """
    z, _, x = _grid(ct)
    lung = np.isin(ct.organs, LUNG[side])
    points = ct.millimetres(np.argwhere(lung))
    # Not the lowest and the highest voxel, which may be single ones of the recess or the apex.
    low, high = np.percentile(points[:, 0], [1, 99.8])
    first, second = low + (high - low) * np.array([0.36, 0.66])
    outer = np.percentile(np.abs(points[points[:, 0] < first][:, 2]), 72)
    # What lies a little above tissue without lung, that is on the diaphragm.
    above_diaphragm = np.roll(ndimage.binary_erosion(~lung, np.ones((3, 1, 1))), 4, axis=0)
    return {
        f"{side} lung": lung,
        f"{side} upper lung zone": lung & (z > second),
        f"{side} mid lung zone": lung & (z > first) & (z <= second),
        f"{side} lower lung zone": lung & (z <= first),
        f"{side} hilar structures": _ball(ct, _hila(ct)[side], 26),
        f"{side} apical zone": lung & (z > high - 45),
        f"{side} costophrenic angle": lung & (z < low + 45) & (np.abs(x) > outer),
        f"{side} hemidiaphragm": lung & above_diaphragm & (z < first),
    }
