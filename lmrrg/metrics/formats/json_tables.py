"""Turn the shapes of JSON files of reports into rows."""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.formats.columns import ID_COLUMNS, LINE, is_known, plain_name

_SPLITS = frozenset({"train", "val", "valid", "validation", "test"})

Record = dict[str, object]


class RepeatedKeyError(ValueError):
    """A JSON object that has a key twice; the standard library would keep the last in silence."""


def load_json(text: str) -> Any:
    """Parse JSON.

    Raises:
        RepeatedKeyError: an object has a key twice.
        ValueError: the text is not JSON.
        RecursionError: lists or objects are nested too deeply.
    """
    return json.loads(text, object_pairs_hook=_unique)


def json_table(path: Path, content: object, split: str) -> list[Record]:
    """Return the rows of a JSON file.

    It may be a list of objects or of texts, an object of study id → text or → object (ReXrank's
    prediction.json), an object of columns (lists, or objects as pandas writes them), an object
    with such a list under a single key, or R2Gen's annotation.json, of which the list ``split`` is
    taken.

    Raises:
        MetricError: ``bad_row`` (another shape), ``length_mismatch`` (columns of different
            lengths) or ``no_rows`` (no such split).
    """
    if isinstance(content, list):
        return list(_list_rows(path, content))
    # What the object holds is not quoted in any message: its keys may be reports, too.
    if not isinstance(content, dict):
        raise _bad_shape(path)
    if content and content.keys() <= _SPLITS:
        return _split_rows(path, content, split)
    if any(is_known(plain_name(key)) for key in content):
        return _column_rows(path, content)
    values = list(content.values())
    if len(values) == 1 and isinstance(values[0], list) and _are(values[0], dict):
        return list(_list_rows(path, values[0]))
    return list(_id_rows(path, content))


def _split_rows(path: Path, content: Mapping[str, object], split: str) -> list[Record]:
    rows = content.get(split)
    if not isinstance(rows, list):
        raise MetricError("no_rows", f"{path} has no list {split!r}")
    return list(_list_rows(path, rows))


def _list_rows(path: Path, content: Sequence[object]) -> Iterator[Record]:
    texts = bool(content) and isinstance(content[0], str)
    for number, item in enumerate(content, start=1):
        if texts and isinstance(item, str):
            yield {LINE: item}
        elif isinstance(item, dict) and not texts:
            yield item
        else:
            raise MetricError("bad_row", f"{path}, row {number} has another form than row 1")


def _column_rows(path: Path, content: Mapping[str, object]) -> list[Record]:
    """Return the rows of an object whose keys are the names of columns."""
    columns: dict[str, list[object]] = {}
    scalars: Record = {}
    for name, values in content.items():
        if isinstance(values, dict):
            columns[name] = list(values.values())
        elif isinstance(values, list):
            columns[name] = values
        else:
            scalars[name] = values
    if not columns:
        return [scalars]
    # Other values beside the columns describe the whole file; no row has them.
    known = {name: column for name, column in columns.items() if is_known(plain_name(name))}
    lengths = {len(column) for column in known.values()}
    if len(lengths) != 1:
        raise MetricError("length_mismatch", f"{path} has columns of {sorted(lengths)} rows")
    return [dict(zip(known, cells, strict=True)) for cells in zip(*known.values(), strict=True)]


def _id_rows(path: Path, content: Mapping[str, object]) -> Iterator[Record]:
    """Yield the rows of an object whose keys are study ids."""
    for number, (study, value) in enumerate(content.items(), start=1):
        # The captioning packages keep a list of references for each image.
        if isinstance(value, list) and len(value) == 1:
            value = value[0]
        if isinstance(value, dict):
            record: Record = {ID_COLUMNS[0]: study}
            yield record | value
        elif isinstance(value, list):
            raise MetricError("bad_row", f"{path}, row {number} is neither a text nor an object")
        else:
            yield {ID_COLUMNS[0]: study, "report": value}


def _unique(pairs: list[tuple[str, object]]) -> Record:
    record = dict(pairs)
    if len(record) != len(pairs):
        raise RepeatedKeyError("a key occurs twice")
    return record


def _are(values: Sequence[object], kind: type) -> bool:
    return all(isinstance(value, kind) for value in values)


def _bad_shape(path: Path) -> MetricError:
    return MetricError(
        "bad_row", f"{path} must be a list of objects, or an object of study id and text"
    )
