"""The interface of the readers of data sets: studies, or the reason why a row makes none."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field

from lmrrg.data.placeholders import is_placeholder
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, UNCERTAIN, Study, StudyError

_VALUES = {1.0: POSITIVE, 0.0: NEGATIVE, -1.0: UNCERTAIN}

NO_ID = "no study or patient id"
"""Why a row is dropped that belongs to nobody known."""


@dataclass(frozen=True)
class Dropped:
    """A row of a source that makes no study, and the reason, as the audit counts it.

    ``example`` says what was looked for, such as a path. The first one of each reason is printed,
    so it must not hold what a data set keeps private.
    """

    reason: str
    example: str = ""


@dataclass(frozen=True)
class Source:
    """The rows that a reader found, and what is known about all of them.

    Attributes:
        name: the name of the data set.
        rows: one study, or the reason for leaving it out, per row. Read once, and lazily.
        total: number of rows, for the progress bar; ``None`` when it is not known before reading.
        study_dates: when each study was made, by its id, as text that sorts in time. The dates
            order the studies of a patient; they are not kept.
        notes: facts for the audit. A reader may add to them until its last row is read.
        published_splits: whether the splits are those of the literature. Results on them are
            comparable only if no study of them is left out.
        val_fraction: fraction of the training patients that become the validation split, for a
            source without one.
        manifest_id: maps a study's id in the source to its id in the manifest. The two differ where
            ids are hashed; a file of labels may be keyed by either.
    """

    name: str
    rows: Iterable[Study | Dropped]
    total: int | None = None
    study_dates: Mapping[str, str] = field(default_factory=dict)
    notes: Mapping[str, str] = field(default_factory=dict)
    published_splits: bool = False
    val_fraction: float = 0.0
    manifest_id: Callable[[str], str] = str


def label_value(text: str | float, where: str) -> int:
    """Return a label as 1, 0 or -1, from any form that data sets write it in ("1.0", 1, "-1").

    Args:
        text: the cell.
        where: the cell's place, for the error message.

    Raises:
        StudyError: ``labels_value``.
    """
    try:
        return _VALUES[float(text)]
    except (ValueError, KeyError):
        # The message does not quote the cell: where columns are shifted it may hold a name.
        raise StudyError("labels_value", f"{where}: not 1, 0, -1 or blank") from None


def labels_of_row(row: Mapping[str, str], where: str) -> dict[str, int]:
    """Return the labels of a table's row, without the classes whose cell is empty or missing.

    Args:
        row: cells by column; the columns of labels are called like the 14 classes.
        where: the row's place, for the error message.

    Raises:
        StudyError: ``labels_value``.
    """
    cells = {label: row.get(label, "") for label in LABELS}
    return {
        label: label_value(cell, f"{where}: {label}")
        for label, cell in cells.items()
        if not is_placeholder(cell)
    }
