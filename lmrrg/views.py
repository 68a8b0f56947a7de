"""The view of a film: the words that mean it, and the order of a study's films."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Protocol, TypeVar, get_args

from lmrrg.studies import StudyImage, View

_VIEWS: dict[str, View] = {
    **dict.fromkeys(("PA", "POSTEROANTERIOR", "POSTERO ANTERIOR"), "PA"),
    **dict.fromkeys(
        ("AP", "ANTEROPOSTERIOR", "ANTERO POSTERIOR", "AP AXIAL", "AP HORIZONTAL"), "AP"
    ),
    **dict.fromkeys(
        ("L", "LL", "RL", "LAT", "LATERAL", "LEFT LATERAL", "RIGHT LATERAL", "XTABLE LATERAL"),
        "lateral",
    ),
    **dict.fromkeys(("LARGE LATERAL", "LLAT", "RLAT"), "lateral"),
    "FRONTAL": "frontal",
}


def view_of(text: object) -> View:
    """The view that a DICOM ViewPosition, a view code or a word of a data set means; "unknown" for oblique, decubitus,
    and anything else."""
    return _VIEWS.get(
        " ".join(str(text).upper().replace("_", " ").replace("-", " ").split()), "unknown"
    )


def frontal_first(images: Iterable[StudyImage]) -> tuple[StudyImage, ...]:
    """Images with the lateral views last, otherwise in their order."""
    return tuple(sorted(images, key=lambda image: image.view == "lateral"))


_VIEW_RANK = {"PA": 0, "AP": 0, "frontal": 0, "unknown": 1, "lateral": 2}


def choose_views(images: Sequence[V], max_views: int) -> list[V]:
    """The first ``max_views`` images, frontal before unknown before lateral, otherwise in the study's order."""
    return sorted(images, key=lambda image: _VIEW_RANK[image.view])[:max_views]


VIEWS: tuple[str, ...] = get_args(View)
"""The views in the order of their embedding; frontal ones first, which is also the order of a study's images."""


class _Viewed(Protocol):
    @property
    def view(self) -> View: ...


V = TypeVar("V", bound=_Viewed)
