"""Bring the region masks of phantoms to the patches of the model, to measure its heat maps.

A phantom projected from a CT holds the mask of all 29 regions in every view. A drawn one (version
1) holds the boxes of its findings; a box is the truth for the regions in which such a finding lies.
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

_FINE = 256
"""Side of the square on which a box is drawn as a mask, before it is reduced to patches."""

_OF_FINDING: dict[str, tuple[str, ...]] = {
    "cardiomegaly": ("cardiac silhouette",),
    "pleural effusion": ("{side} costophrenic angle",),
    "pneumothorax": ("{side} apical zone", "{side} lung"),
    "consolidation": ("{side} {zone} lung zone",),
    "nodule": ("{side} {zone} lung zone",),
    "atelectasis": ("{side} lower lung zone",),
    "central line": ("svc",),
}
"""Regions of the findings of version 1; edema and a pacemaker extend over too many."""


def region_truth(study: Study, max_views: int, patches: int) -> RegionTruth | None:
    """Return where the regions of a study are, over its first ``max_views`` views.

    Each view has ``patches`` patches, in rows of a square. None means that it is not known.

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
            coverage[REGIONS.index(name), view] = _coverage(mask, side).reshape(-1)
    return RegionTruth(coverage, seen)


def _masks(study: Study) -> dict[StudyImage, dict[str, NDArray[np.bool_]]]:
    """Return the known masks by image and region, on the square that the model sees."""
    if "masks" in study.truth:
        by_image = {}
        for image, masks in zip(study.images, masks_of(study), strict=True):
            by_image[image] = dict(zip(REGIONS, masks, strict=True))
        return by_image
    return _masks_of_boxes(study)


def _masks_of_boxes(study: Study) -> dict[StudyImage, dict[str, NDArray[np.bool_]]]:
    """Return the masks of a drawn phantom: its findings' boxes, on its first image."""
    findings: Any = study.truth.get("findings", ())
    region_boxes: list[tuple[str, Sequence[float]]] = []
    for finding in findings:
        if finding.get("box"):
            region_boxes += [(name, finding["box"]) for name in _regions_of(finding)]
    # Without boxes the film need not be read at all.
    if not region_boxes:
        return {}
    image = study.images[0]
    height, width = read_image(image.path).pixels.shape
    masks: dict[str, NDArray[np.bool_]] = {}
    for name, box in region_boxes:
        drawn = _box_mask(box, height, width)
        masks[name] = masks.get(name, np.zeros_like(drawn)) | drawn
    return {image: masks}


def _regions_of(finding: Mapping[str, Any]) -> list[str]:
    """Return the names of the regions in which a finding lies."""
    if finding.get("side") == "bilateral":
        # One box encloses both sides and so locates neither.
        return []
    return [name.format(**finding) for name in _OF_FINDING.get(finding["type"], ())]


def _box_mask(box: Sequence[float], height: int, width: int) -> NDArray[np.bool_]:
    """Draw a box (left, top, right, bottom; pixels of the film) on the square of the film."""
    longest = max(height, width)
    # Centres of the square's cells, in pixels of the film, which is centred on the square.
    centres = (np.arange(_FINE) + 0.5) / _FINE * longest
    rows = centres - (longest - height) / 2
    columns = centres - (longest - width) / 2
    left, top, right, bottom = box
    in_rows = (rows >= top) & (rows < bottom)
    in_columns = (columns >= left) & (columns < right)
    return in_rows[:, None] & in_columns[None, :]


def _coverage(mask: NDArray[np.bool_], side: int) -> NDArray[np.float32]:
    """Return the fraction of each of side x side patches that a square mask covers."""
    image = Image.fromarray(mask.astype(np.float32))
    return np.asarray(image.resize((side, side), Image.Resampling.BOX))
