"""The truth about regions that phantoms carry, brought to the patches of the model; for measuring only.

A phantom from a CT knows the mask of all 29 regions in every view. A drawn one (version 1) knows the boxes of its
findings: each is the truth for the regions in which such a finding lies.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray
from PIL import Image

from lmrrg.anatomy import REGIONS
from lmrrg.data.phantom.ct.masks import masks_of
from lmrrg.imaging.reading import read_image
from lmrrg.metrics.localisation import RegionTruth
from lmrrg.studies import Study, StudyImage
from lmrrg.views import choose_views

_FINE = 256  # side of the square on which a box becomes a mask

_OF_FINDING: dict[str, tuple[str, ...]] = {
    "cardiomegaly": ("cardiac silhouette",),
    "pleural effusion": ("{side} costophrenic angle",),
    "pneumothorax": ("{side} apical zone", "{side} lung"),
    "consolidation": ("{side} {zone} lung zone",),
    "nodule": ("{side} {zone} lung zone",),
    "atelectasis": ("{side} lower lung zone",),
    "central line": ("svc",),
}
"""Regions in which the box of a finding of version 1 is looked for; edema and a pacemaker spread over too much."""


def region_truth(study: Study, max_views: int, patches: int) -> RegionTruth | None:
    """Where the regions of a study are, over its ``max_views`` views of ``patches`` patches; None where nobody knows.

    Raises:
        ImageError: a film of version 1 cannot be read.
        StudyError: ``region_masks``, the mask file that the truth names is missing or damaged.
    """
    masks = _masks(study)
    if not masks:
        return None
    side = round(patches**0.5)
    coverage = np.zeros((len(REGIONS), max_views, patches), np.float32)
    seen = np.zeros((max_views, patches), np.bool_)
    for view, image in enumerate(choose_views(study.images, max_views)):
        seen[view] = True
        for name, mask in masks.get(image, {}).items():
            coverage[REGIONS.index(name), view] = _shares(mask, side).reshape(-1)
    return RegionTruth(coverage, seen)


def _masks(study: Study) -> dict[StudyImage, dict[str, NDArray[np.bool_]]]:
    """Masks by image and region, on the square that the model sees."""
    if "masks" in study.truth:
        by_view = masks_of(study)
        return {
            image: dict(zip(REGIONS, masks, strict=True))
            for image, masks in zip(study.images, by_view, strict=True)
        }
    findings: Any = study.truth.get("findings", ())
    boxes = [(finding, finding["box"]) for finding in findings if finding.get("box")]
    placed = [(name, box) for finding, box in boxes for name in _regions_of(finding)]
    if not placed:
        return {}
    image = study.images[0]
    height, width = read_image(image.path).pixels.shape
    masks: dict[str, NDArray[np.bool_]] = {}
    for name, box in placed:
        drawn = _box_mask(box, height, width)
        masks[name] = masks.get(name, np.zeros_like(drawn)) | drawn
    return {image: masks}


def _regions_of(finding: Mapping[str, Any]) -> list[str]:
    if finding.get("side") == "bilateral":  # one box around both sides tells nothing about either
        return []
    return [name.format(**finding) for name in _OF_FINDING.get(finding["type"], ())]


def _box_mask(box: Sequence[float], height: int, width: int) -> NDArray[np.bool_]:
    """A box (left, top, right, bottom; pixels of the film) on the square into which the film is fitted."""
    longest = max(height, width)
    rows, columns = (
        (np.arange(_FINE) + 0.5) / _FINE * longest,
        (np.arange(_FINE) + 0.5) / _FINE * longest,
    )
    rows, columns = rows - (longest - height) / 2, columns - (longest - width) / 2
    left, top, right, bottom = box
    return ((rows >= top) & (rows < bottom))[:, None] & ((columns >= left) & (columns < right))[
        None, :
    ]


def _shares(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """The share of each of side x side patches that a square mask covers."""
    return np.asarray(
        Image.fromarray(mask.astype(np.float32)).resize((side, side), Image.Resampling.BOX)
    )
