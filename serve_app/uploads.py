"""Turn uploaded files into a study: the checks and the decoding that every route shares."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from lmrrg.imaging.radiograph import ImageError, Radiograph
from serve_app.doubts import check_one_study
from serve_app.errors import FilesRefused, ServiceError
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
        FilesRefused: some images are refused; it names each of them.
        ServiceError: ``mixed_study`` or ``duplicate_image``.
    """
    images: list[Radiograph] = []
    refused: dict[int, ImageError] = {}
    for index, data in enumerate(files):
        try:
            images.append(
                await asyncio.to_thread(service.decoders.decode, data, service.image_size)
            )
        except ImageError as error:
            refused[index] = error
    if refused:
        raise FilesRefused(refused)
    check_one_study(images)
    return images
