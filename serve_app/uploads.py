"""Turn uploaded files into a study: the checks and the decoding that every route shares."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lmrrg.imaging.radiograph import ImageError, Radiograph
from serve_app.doubts import check_one_study
from serve_app.errors import ServiceError
from serve_app.service import MAX_IMAGES, Service


def check_count(images: int) -> None:
    """Check the number of images of one study, before any of them is decoded.

    Raises:
        ServiceError: ``too_many_images``.
    """
    if images > MAX_IMAGES:
        raise ServiceError(
            "too_many_images", f"{images} images; one study has at most {MAX_IMAGES}"
        )


async def decode_images(service: Service, files: Sequence[bytes]) -> list[Radiograph]:
    """Decode the images of one study, outside the event loop.

    Raises:
        ImageError: the code of the first image that is refused. The message names it by its number,
            because a file name may contain a patient's name.
        ServiceError: ``mixed_study`` or ``duplicate_image``.
    """
    images = [await _decode(service, number, data) for number, data in enumerate(files, start=1)]
    check_one_study(images)
    return images


async def _decode(service: Service, number: int, data: bytes) -> Radiograph:
    try:
        return await asyncio.to_thread(service.decoders.decode, data, service.image_size)
    except ImageError as error:
        detail = str(error).removeprefix(f"{error.code}: ")
        raise ImageError(error.code, f"image {number}: {detail}") from error
