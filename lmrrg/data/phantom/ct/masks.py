"""Region masks of a phantom study on disk: the generator writes them, evaluation reads them."""

from __future__ import annotations

import zipfile
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from lmrrg.studies import Study, StudyError

MASK_SIDE = 64
"""Rows and columns of a mask, over the whole square film."""


def write_masks(path: Path, masks: NDArray[np.bool_]) -> None:
    """Write masks bool [views, regions, 64, 64]; the same masks give the same bytes."""
    # 8 pixels in a byte; NumPy's own booleans take a byte each.
    np.savez_compressed(path, masks=np.packbits(masks, axis=-1))


def masks_of(study: Study) -> NDArray[np.bool_]:
    """Read the masks [views, regions, 64, 64] of a study.

    Views are in the order of the study's images, regions in that of :data:`lmrrg.anatomy.REGIONS`.
    The file lies beside the study's first image, under the name in the study's truth.

    Raises:
        StudyError: ``region_masks``, the file cannot be read, or is another study's.
    """
    path = study.images[0].path.parent / str(study.truth["masks"])
    try:
        with np.load(path, allow_pickle=False) as file:
            masks = np.unpackbits(file["masks"], axis=-1).astype(np.bool_)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        message = f"{path} holds no region masks; make the phantoms again"
        raise StudyError("region_masks", message) from error
    if masks.shape[0] != len(study.images) or masks.shape[2:] != (MASK_SIDE, MASK_SIDE):
        raise StudyError("region_masks", f"{path} does not belong to study {study.id}")
    return masks
