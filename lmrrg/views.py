"""The projection of a film: the words and codes that name it, and the order of a study's films."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar, get_args

from lmrrg.studies import StudyImage, View

VIEWS: tuple[str, ...] = get_args(View)
"""The views in the order of their embedding, which is part of every checkpoint: append only."""

# Keys are upper case, with single spaces where a source writes underscores or hyphens.
_VIEW_OF_WORD: dict[str, View] = {
    # DICOM View Position (0018,5101), and what data sets write in its place.
    "PA": "PA",
    "POSTEROANTERIOR": "PA",
    "POSTERO ANTERIOR": "PA",
    "AP": "AP",
    "ANTEROPOSTERIOR": "AP",
    "ANTERO POSTERIOR": "AP",
    "AP AXIAL": "AP",
    "AP HORIZONTAL": "AP",
    "L": "lateral",
    "LL": "lateral",
    "RL": "lateral",
    "LAT": "lateral",
    "LLAT": "lateral",
    "RLAT": "lateral",
    "LATERAL": "lateral",
    "LARGE LATERAL": "lateral",
    "LEFT LATERAL": "lateral",
    "RIGHT LATERAL": "lateral",
    "XTABLE LATERAL": "lateral",
    "FRONTAL": "frontal",
    # DICOM View Code Sequence (0054,0220): PS3.16 CID 4010 by its SNOMED CT codes, each followed by
    # the SNOMED RT code of the same view, which older devices write.
    "272479007": "PA",
    "R 10214": "PA",
    "399348003": "AP",
    "R 10206": "AP",
    "399067008": "lateral",
    "R 102CD": "lateral",
    "399173006": "lateral",
    "R 10236": "lateral",
    "399198007": "lateral",
    "R 10232": "lateral",
    "399033003": "frontal",
    "R 10202": "frontal",
}

_VIEW_RANK = {"PA": 0, "AP": 0, "frontal": 0, "unknown": 1, "lateral": 2}


def view_of(text: object) -> View:
    """Return the view that a word or code names; "unknown" for oblique, decubitus and all else.

    Accepted are a DICOM View Position, a code of DICOM's View Code Sequence and the words of data
    sets, in any case, with hyphens, underscores or spaces.

    >>> view_of("postero-anterior"), view_of("LL"), view_of("R-10206"), view_of("oblique")
    ('PA', 'lateral', 'AP', 'unknown')
    """
    words = str(text).upper().replace("_", " ").replace("-", " ").split()
    return _VIEW_OF_WORD.get(" ".join(words), "unknown")


def frontal_first(images: Iterable[StudyImage]) -> tuple[StudyImage, ...]:
    """Return the images with the lateral views last and their order otherwise kept."""
    return tuple(sorted(images, key=lambda image: image.view == "lateral"))


class _HasView(Protocol):
    @property
    def view(self) -> View: ...


ImageT = TypeVar("ImageT", bound=_HasView)


def choose_views(images: Sequence[ImageT], max_views: int) -> list[ImageT]:
    """Return the ``max_views`` images that the model sees: frontal before unknown before lateral.

    Images of one kind stay in the study's order.
    """
    return sorted(images, key=lambda image: _VIEW_RANK[image.view])[:max_views]
