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
    "POSTERIOR ANTERIOR": "PA",
    "ANTERIOR POSTERIOR": "AP",
    "L": "lateral",
    "LL": "lateral",
    "RL": "lateral",
    "LAT": "lateral",
    "LLAT": "lateral",
    "RLAT": "lateral",
    "LATERAL": "lateral",
    "LATERO LATERAL": "lateral",
    "LATEROLATERAL": "lateral",
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

# Words beside a view that do not change it: position, device, and words without a meaning here.
_QUALIFIERS = frozenset(
    (
        *("ERECT", "UPRIGHT", "STANDING", "SITTING", "SEATED", "SUPINE", "RECUMBENT", "LYING"),
        *("SEMI", "SEMIERECT", "SEMIUPRIGHT", "SEMISUPINE", "PORTABLE", "PORT", "MOBILE"),
        *("BEDSIDE", "AXIAL", "HORIZONTAL", "LORDOTIC", "XTABLE", "CROSSTABLE", "CROSS", "TABLE"),
        *("X", "LARGE", "CHEST", "CXR", "THORAX", "LUNG", "LUNGS", "XRAY", "RAY", "VIEW", "VIEWS"),
        *("PROJECTION", "FILM", "IMAGE", "RADIOGRAPH", "SINGLE", "DIRECT", "DIGITAL"),
        *("INSPIRATION", "EXPIRATION"),
    )
)
# Sides of a lateral film.
_SIDES = frozenset(("LEFT", "RIGHT", "LT", "RT", "L", "R"))
_BLANKS = str.maketrans(dict.fromkeys("_-/,;:()[]\"'", " "))

_VIEW_RANK = {"PA": 0, "AP": 0, "frontal": 0, "unknown": 1, "lateral": 2}


def view_of(text: object) -> View:
    """Return the view that a word or code names; "unknown" for oblique, decubitus and all else.

    Accepted are a DICOM View Position, a code of DICOM's View Code Sequence and the words of data
    sets, in any case, with punctuation or spaces. Words for the patient's position, the device or
    the side of a lateral film may stand beside. A text that names two views is "unknown".

    >>> view_of("postero-anterior"), view_of("LL"), view_of("R-10206"), view_of("oblique")
    ('PA', 'lateral', 'AP', 'unknown')
    >>> view_of("Chest PA (erect)"), view_of("left lateral view"), view_of("PA and lateral")
    ('PA', 'lateral', 'unknown')
    """
    words = str(text).upper().replace(".", "").translate(_BLANKS).split()
    exact = _VIEW_OF_WORD.get(" ".join(words))
    if exact is not None:
        return exact
    # "LEFT LATERAL DECUBITUS" keeps its last word, which no table entry has: it is no lateral view.
    main = [word for word in words if word not in _QUALIFIERS]
    view = _VIEW_OF_WORD.get(" ".join(main))
    if view is not None:
        return view
    lateral = [word for word in main if word not in _SIDES]
    return "lateral" if _VIEW_OF_WORD.get(" ".join(lateral)) == "lateral" else "unknown"


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
