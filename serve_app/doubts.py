"""Decide from the images of a study whether it can have a report at all."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import combinations

import numpy as np

from lmrrg.imaging.radiograph import ABSTAIN_CODES, IMAGE_WARNING_CODES, Radiograph
from serve_app.errors import ServiceError
from serve_app.schemas import ImageWarning


def check_one_study(images: Sequence[Radiograph]) -> None:
    """Check that all images are of one study, and that none was sent twice.

    Only what headers state is compared: an image without an identifier fits every other.

    Raises:
        ServiceError: ``mixed_study``, Patient ID (0010,0020) or Study Instance UID (0020,000D)
            differ; ``duplicate_image``, two images have the same pixels.
    """
    for name, stated in (
        ("Patient ID", {image.patient for image in images}),
        ("Study Instance UID", {image.study for image in images}),
    ):
        if len(stated - {""}) > 1:
            raise ServiceError("mixed_study", f"the images differ in {name}")
    numbered = enumerate(images, start=1)
    for (first, one), (second, other) in combinations(numbered, 2):
        if np.array_equal(one.pixels, other.pixels):
            raise ServiceError("duplicate_image", f"images {first} and {second} are the same")


def abstain_reasons(images: Sequence[Radiograph]) -> list[ImageWarning]:
    """Return why no report is written of a study: its images' warnings of ``ABSTAIN_CODES``."""
    found = {code for image in images for code in image.warnings if code in ABSTAIN_CODES}
    return [ImageWarning(code=code, message=IMAGE_WARNING_CODES[code]) for code in sorted(found)]
