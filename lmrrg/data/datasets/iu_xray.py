"""Indiana University chest X-rays (Open-i): reports as CSV files or XML, and a folder of images.

The forms that a folder may have::

    indiana_reports.csv, indiana_projections.csv   the CSV form, with views
    NLMCXR_reports.tgz                             Open-i's archive of XML files, as torchxrayvision
                                                   ships it too
    ecgen-radiology/1.xml, 2.xml, ...              the archive unpacked
    nlmcxr_dicom_metadata.csv[.gz]                 lateral views for the XML forms, where
                                                   indiana_projections.csv is missing
    r2gen_annotation.json                          the splits of the literature (optional)
"""

from __future__ import annotations

import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import NamedTuple
from xml.etree import ElementTree

from lmrrg.config.data import DataConfig
from lmrrg.data.source import Dropped, Source
from lmrrg.data.tables import (
    Texts,
    clean,
    find_file,
    image_stem,
    index_images,
    read_annotation,
    read_csv,
)
from lmrrg.studies import Split, Study, StudyError, StudyImage, View
from lmrrg.views import frontal_first, view_of

_REPORTS = "indiana_reports.csv"
_PROJECTIONS = "indiana_projections.csv"
_ANNOTATION = "r2gen_annotation.json"
_ARCHIVE = "NLMCXR_reports.tgz"
_UNPACKED = "ecgen-radiology"
_DICOM_HEADERS = "nlmcxr_dicom_metadata.csv"
_MAX_XML_BYTES = 1 << 20

# What a file name adds to the image's own: "CXR2_IM-0652-1001" and "CXR1_1_IM-0001-4001" are the
# images "2_IM-0652-1001" and "1_IM-0001-4001". The report's number goes where it comes twice.
_NAME_PREFIX = re.compile(r"^CXR(?:(\d+)_(?=\1_))?")
# "CXR2384_IM-0942", the id of an R2Gen record; the number is the report's.
_RECORD_ID = re.compile(r"CXR(\d+)_")


@dataclass
class _Report:
    """One report of any form; ``images`` are the stems of its image files."""

    uid: str
    texts: Texts
    images: list[str] = field(default_factory=list)


class _Collection(NamedTuple):
    """All reports, the form that they were read from, and the views of images by stem."""

    form: str
    reports: list[_Report]
    views: dict[str, View]


def read_iu_xray(folder: Path, data: DataConfig) -> Source:
    """Read the reports in the first form that the folder has, and match the images by their names.

    Names are compared without suffix. Open-i's ("CXR2_IM-0652-1001.png", for the first report
    "CXR1_1_IM-0001-4001.png") and those of the CSV form ("2_IM-0652-1001.dcm.png") are one. Views
    are those of ``indiana_projections.csv``. Without it only the lateral views of the DICOM
    headers' table are believed: two in five lateral films are PA in it (docs/data.md).

    Where ``r2gen_annotation.json`` lies beside them its splits are taken, joined by the number of
    the report ("CXR2384_IM-0942" is uid 2384). Each uid is one patient, and its only date is the
    one of publication, so there are no priors.

    Args:
        folder: see the module; or the archive itself.
        data: ``images``: the folder of images, searched with its subfolders; by default
            ``folder/images``.

    Raises:
        StudyError: the folder has no form, a column is missing, or a file is not of its form.
    """
    collection = _read_collection(folder)
    base = folder if folder.is_dir() else folder.parent
    notes = {"form": collection.form}
    splits: dict[str, Split] = {}
    if (base / _ANNOTATION).is_file():
        splits = _r2gen_splits(base / _ANNOTATION)
        notes["splits"] = f"{_ANNOTATION}, by report number"
    indexed = index_images(data.images or base / "images")
    files = {_image_name(stem): path for stem, path in indexed.items()}
    return Source(
        "iu-xray",
        _rows(collection, files, splits),
        total=len(collection.reports),
        notes=notes,
        published_splits=bool(splits),
    )


def _rows(
    collection: _Collection, files: dict[str, Path], splits: dict[str, Split]
) -> Iterator[Study | Dropped]:
    for report in collection.reports:
        present = [stem for stem in report.images if stem in files]
        if not present:
            yield Dropped("no image file", next(iter(report.images), ""))
            continue
        images = frontal_first(
            StudyImage(files[stem], collection.views.get(stem, "unknown")) for stem in present
        )
        name = f"CXR{report.uid}"
        split = splits.get(report.uid)
        yield Study(name, name, images, *report.texts, split=split, source="iu-xray")


def _read_collection(folder: Path) -> _Collection:
    if (folder / _REPORTS).is_file():
        return _read_csv_form(folder)
    archive = folder if folder.is_file() else folder / _ARCHIVE
    views = _views(archive.parent)
    if archive.is_file():
        reports = [_parse_record(xml, archive) for xml in _archived_records(archive)]
        return _Collection(archive.name, reports, views)
    # By number, as in the archive: 2.xml comes before 10.xml.
    paths = sorted((folder / _UNPACKED).glob("*.xml"), key=lambda p: (len(p.stem), p.stem))
    if not paths:
        message = f"{folder} has none of {_REPORTS}, {_ARCHIVE} and {_UNPACKED}/*.xml"
        raise StudyError("source_missing", message)
    reports = [_parse_record(path.read_bytes(), path) for path in paths]
    return _Collection(f"{_UNPACKED}/*.xml", reports, views)


def _read_csv_form(folder: Path) -> _Collection:
    images, views = _projections(folder)
    rows = read_csv(folder / _REPORTS, ("uid", *Texts._fields))
    reports = [_Report(row["uid"], _texts_of_row(row), images[row["uid"]]) for row in rows]
    return _Collection("CSV", reports, views)


def _projections(folder: Path) -> tuple[dict[str, list[str]], dict[str, View]]:
    """Return the image stems by uid, and the views of images by stem."""
    images: dict[str, list[str]] = defaultdict(list)
    views: dict[str, View] = {}
    for row in read_csv(folder / _PROJECTIONS, ("uid", "filename", "projection")):
        stem = _image_name(row["filename"])
        images[row["uid"]].append(stem)
        views[stem] = view_of(row["projection"])
    return images, views


def _views(folder: Path) -> dict[str, View]:
    """Return the known views by image stem, for the XML forms, whose records name none."""
    if (folder / _PROJECTIONS).is_file():
        return _projections(folder)[1]
    try:
        path = find_file(folder, _DICOM_HEADERS)
    except StudyError:
        return {}
    views: dict[str, View] = {}
    for row in read_csv(path, ("imageid", "View Position")):
        # The headers call many lateral films frontal, but no frontal one lateral.
        if view_of(row["View Position"]) == "lateral":
            views[_image_name(row["imageid"])] = "lateral"
    return views


def _texts_of_row(row: Mapping[str, str]) -> Texts:
    # Two cells, which a spreadsheet took for formulas, hold its error word.
    return Texts(*("" if row[name] == "#NAME?" else clean(row[name]) for name in Texts._fields))


def _archived_records(archive: Path) -> Iterator[bytes]:
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name.endswith(".xml") else None
                if content is not None:
                    # One byte more than a record may have, so that a larger one is refused below.
                    yield content.read(_MAX_XML_BYTES + 1)
    except (tarfile.TarError, EOFError, OSError) as error:
        message = f"{archive} cannot be read as a tar archive: {error}"
        raise StudyError("source_archive", message) from error


def _parse_record(xml: bytes, path: Path) -> _Report:
    """Read one Open-i record.

    It has ``AbstractText`` elements with a Label, and a ``parentImage`` per image. A record has no
    document type: one that declares entities is refused, since they can grow without bound.
    """
    if len(xml) > _MAX_XML_BYTES or b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
        message = f"{path}: a record is larger than 1 MB or declares a document type"
        raise StudyError("source_xml", message)
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        message = f"{path} holds a record that is not valid XML: {error}"
        raise StudyError("source_xml", message) from error
    number = root.find("uId")
    uid = (number.get("id") or "").removeprefix("CXR") if number is not None else ""
    if not uid:
        raise StudyError("source_xml", f"{path} holds a record without <uId id=...>")
    texts: dict[str, str] = {}
    for part in root.iter("AbstractText"):
        texts[(part.get("Label") or "").lower()] = "".join(part.itertext())
    images = [_image_name(image.get("id") or "") for image in root.iter("parentImage")]
    return _Report(uid, Texts(*(clean(texts.get(name)) for name in Texts._fields)), images)


def _image_name(name: str) -> str:
    """Return "1_IM-0001-4001" for every name that the data set's editions give to one image.

    >>> _image_name("CXR1_1_IM-0001-4001.png"), _image_name("1_IM-0001-4001.dcm.png")
    ('1_IM-0001-4001', '1_IM-0001-4001')
    """
    return _NAME_PREFIX.sub("", image_stem(name))


def _r2gen_splits(path: Path) -> dict[str, Split]:
    """Return the split of every uid that the annotation file names."""
    splits: dict[str, Split] = {}
    for split, records in read_annotation(path).items():
        for record in records:
            record_id = record.get("id") if isinstance(record, dict) else None
            match = _RECORD_ID.match(str(record_id))
            if not match:
                message = f"{path}: an id in {split} is not of the form CXR<number>_..."
                raise StudyError("source_record", message)
            splits[match[1]] = split
    return splits
