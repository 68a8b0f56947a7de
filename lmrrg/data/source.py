"""What a reader of a data set gives: studies, or why a row makes none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from lmrrg.studies import NEGATIVE, POSITIVE, UNCERTAIN, Study, StudyError

_VALUES = {1.0: POSITIVE, 0.0: NEGATIVE, -1.0: UNCERTAIN}


@dataclass(frozen=True)
class Dropped:
    """A row of a source that makes no study, and why."""

    reason: str


@dataclass(frozen=True)
class Source:
    """What a reader found in a folder: its rows, and what is known about all of them.

    Attributes:
        total: number of rows, for the progress bar; ``None`` when it is not known before they are read.
        taken: when a study was made, by its id, as text that sorts in time. It orders studies and is not kept.
        published_splits: the splits are the field's, so results compare only on all of their studies.
        val_share: share of the training patients that become val, where the source publishes no validation split.
        id_of: a study's id as the manifest has it, from the source's own: a file of labels may be keyed by either.
    """

    name: str
    rows: Iterable[Study | Dropped]
    total: int | None = None
    taken: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    published_splits: bool = False
    val_share: float = 0.0
    id_of: Callable[[str], str] = str


def label_value(text: str | float, where: str) -> int:
    """A label as 1, 0 or -1, from the forms that the field writes ("1.0", 1, "-1").

    Raises:
        StudyError: ``labels_value``.
    """
    try:
        return _VALUES[float(text)]
    except (ValueError, KeyError):
        # The cell stays unsaid: where columns are shifted it may be a name.
        raise StudyError("labels_value", f"{where}: not 1, 0, -1 or blank") from None
