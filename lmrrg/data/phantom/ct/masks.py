"""Region masks of a phantom study on disk: written by the generator, read for measuring."""

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
    np.savez_compressed(path, masks=np.packbits(masks, axis=-1))


def masks_of(study: Study) -> NDArray[np.bool_]:
    """The masks [views, regions, 64, 64] in the order of the study's images and of the 29 regions.

    Raises:
        StudyError: ``region_masks``, the file that the study's truth names beside its first image cannot be read.
    """
    path = study.images[0].path.parent / str(study.truth["masks"])
    try:
        with np.load(path, allow_pickle=False) as file:
            masks = np.unpackbits(file["masks"], axis=-1).astype(np.bool_)
    except (OSError, ValueError, KeyError, zipfile.BadZipFile) as error:
        raise StudyError(
            "region_masks", f"{path} holds no region masks; make the phantoms again"
        ) from error
    if masks.shape[0] != len(study.images) or masks.shape[2:] != (MASK_SIDE, MASK_SIDE):
        raise StudyError("region_masks", f"{path} does not belong to study {study.id}")
    return masks
