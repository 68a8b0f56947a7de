"""Read every image of an import: which ones are refused, and what is flagged in the others."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

from lmrrg.config.data import DataConfig
from lmrrg.data.importing import Import
from lmrrg.data.priors import without_lost_priors
from lmrrg.imaging.batch import RefusedImage, read_squares
from lmrrg.imaging.radiograph import ImageError
from lmrrg.progress import progress_bar
from lmrrg.studies import Study, StudyError, StudyImage

# Side of the squares that the decoders hand over, of which nothing is used but the warnings.
_SIDE = 8


def check_images(imported: Import, data: DataConfig, *, progress: bool = True) -> Import:
    """Read every image file of an import once, as the encoder would.

    Returns:
        The import with ``refused`` and ``image_check``. Where ``data.skip_refused_images`` says so
        it is without the refused images, and without the studies that have no image left, or none
        left that may be frontal.

    Raises:
        StudyError: ``no_studies``, nothing is left.
    """
    paths = image_files(imported.studies)
    refused = []
    warnings: Counter[str] = Counter()
    images = progress_bar(
        read_squares(paths, data, _SIDE),
        total=len(paths),
        desc="checking images",
        unit="image",
        disable=not progress,
    )
    for path, image in zip(paths, images, strict=True):
        if isinstance(image, ImageError):
            refused.append(RefusedImage(path, image.code))
        else:
            warnings.update(image.warnings)
    counts = {
        "images": len(paths),
        "refused": dict(Counter(image.code for image in refused).most_common()),
        "flagged": dict(warnings.most_common()),
        "left_out": len(refused) if data.skip_refused_images else 0,
    }
    checked = replace(imported, refused=refused, image_check=counts)
    return _without_refused(checked) if data.skip_refused_images and refused else checked


def image_files(studies: Sequence[Study]) -> list[Path]:
    """Return the image files in the studies' order, each once."""
    # A dict, because one file may belong to several studies.
    files: dict[Path, None] = {}
    for study in studies:
        files.update(dict.fromkeys(Path(image.path) for image in study.images))
    return list(files)


def _without_refused(imported: Import) -> Import:
    refused = {image.path for image in imported.refused}
    kept = []
    dropped = Counter(imported.dropped)
    for study in imported.studies:
        images = tuple(image for image in study.images if Path(image.path) not in refused)
        if reason := _reason_to_drop(study.images, images):
            dropped[reason] += 1
        else:
            kept.append(replace(study, images=images))
    if not kept:
        raise StudyError("no_studies", "no study has an image that can be read")
    return replace(imported, studies=without_lost_priors(kept), dropped=dropped)


def _reason_to_drop(before: Sequence[StudyImage], after: Sequence[StudyImage]) -> str:
    """Return why a study goes that has lost images; "" for one that stays."""
    if not after:
        return "no image that can be read"
    if _has_frontal(before) and not _has_frontal(after):
        return "no frontal image that can be read"
    return ""


def _has_frontal(images: Sequence[StudyImage]) -> bool:
    return any(image.view != "lateral" for image in images)
