"""Indiana University chest X-rays (Open-i): reports as two CSV files or as XML, and a folder of images.

The forms that a folder may have::

    indiana_reports.csv, indiana_projections.csv      the CSV form, with views
    NLMCXR_reports.tgz                                Open-i's archive of XML files, as torchxrayvision ships it too
    ecgen-radiology/1.xml, 2.xml, ...                 the archive unpacked
    nlmcxr_dicom_metadata.csv[.gz]                    lateral views for the XML forms without indiana_projections.csv
    r2gen_annotation.json                             the field's splits (optional)
"""

from __future__ import annotations

import re
import tarfile
from collections import defaultdict
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
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

_REPORTS, _PROJECTIONS, _ANNOTATION = (
    "indiana_reports.csv",
    "indiana_projections.csv",
    "r2gen_annotation.json",
)
_ARCHIVE, _UNPACKED, _DICOM = "NLMCXR_reports.tgz", "ecgen-radiology", "nlmcxr_dicom_metadata.csv"
_MAX_XML = 1 << 20


@dataclass
class _Report:
    """One report of either form."""

    uid: str
    texts: Texts
    images: list[str] = field(default_factory=list)


def read_iu_xray(folder: Path, data: DataConfig) -> Source:
    """Read the reports in the first form that is there, and the images, matched by name without suffix.

    Open-i's names ("CXR2_IM-0652-1001.png", for the first report "CXR1_1_IM-0001-4001.png") and those of the CSV form
    ("2_IM-0652-1001.dcm.png") are one. Views are those of ``indiana_projections.csv``. Without it only the lateral
    views of the DICOM headers' table are believed: two in five lateral films are PA in it (docs/data.md).

    Where ``r2gen_annotation.json`` lies beside them its splits are taken, joined by the number of the report
    ("CXR2384_IM-0942" is uid 2384). Each uid is one patient, and its only date is the one of publication: no priors.

    Args:
        folder: see the module; or the archive itself.
        data: ``images``: folder of images, searched with its subfolders; ``folder/images`` by default.

    Raises:
        StudyError: no form is there, a column is missing, or a file is not of its form.
    """
    form, reports, views = _read_reports(folder)
    base = folder if folder.is_dir() else folder.parent
    annotation = base / _ANNOTATION
    splits = _r2gen_splits(annotation) if annotation.is_file() else {}
    notes = {"form": form} | ({"splits": f"{_ANNOTATION}, by report number"} if splits else {})
    files = {
        _stem(name): path for name, path in index_images(data.images or base / "images").items()
    }
    rows = _rows(reports, files, views, splits)
    return Source("iu-xray", rows, total=len(reports), notes=notes, published_splits=bool(splits))


def _rows(
    reports: list[_Report], files: dict[str, Path], views: dict[str, View], splits: dict[str, Split]
) -> Iterator[Study | Dropped]:
    for report in reports:
        found = frontal_first(
            StudyImage(files[stem], views.get(stem, "unknown"))
            for stem in report.images
            if stem in files
        )
        if not found:
            yield Dropped("no image file")
            continue
        name = f"CXR{report.uid}"
        split = splits.get(report.uid)
        yield Study(name, name, found, *report.texts, split=split, source="iu-xray")


def _read_reports(folder: Path) -> tuple[str, list[_Report], dict[str, View]]:
    """What the reports were read from, the reports, and the views of images by stem."""
    if (folder / _REPORTS).is_file():
        images, views = _projections(folder)
        rows = read_csv(folder / _REPORTS, ("uid", *Texts._fields))
        return (
            "CSV",
            [_Report(row["uid"], _texts_of(row), images[row["uid"]]) for row in rows],
            views,
        )
    archive = folder if folder.is_file() else folder / _ARCHIVE
    base = archive.parent
    views = _projections(base)[1] if (base / _PROJECTIONS).is_file() else _lateral_views(base)
    if archive.is_file():
        return archive.name, [_parse(xml, archive) for xml in _archived(archive)], views
    xml_files = sorted(
        (folder / _UNPACKED).glob("*.xml"), key=lambda path: (len(path.stem), path.stem)
    )
    if not xml_files:
        raise StudyError(
            "source_missing", f"{folder} has none of {_REPORTS}, {_ARCHIVE} and {_UNPACKED}/*.xml"
        )
    return f"{_UNPACKED}/*.xml", [_parse(path.read_bytes(), path) for path in xml_files], views


def _projections(folder: Path) -> tuple[dict[str, list[str]], dict[str, View]]:
    """Image stems by uid, and the views of images by stem."""
    images: dict[str, list[str]] = defaultdict(list)
    views: dict[str, View] = {}
    for row in read_csv(folder / _PROJECTIONS, ("uid", "filename", "projection")):
        stem = _stem(row["filename"])
        images[row["uid"]].append(stem)
        views[stem] = view_of(row["projection"])
    return images, views


def _texts_of(row: Mapping[str, str]) -> Texts:
    """The texts of a CSV row; two cells that a spreadsheet took for formulas hold its error word."""
    return Texts(*("" if row[name] == "#NAME?" else clean(row[name]) for name in Texts._fields))


def _archived(archive: Path) -> Iterator[bytes]:
    try:
        with tarfile.open(archive) as tar:
            for member in tar:
                content = tar.extractfile(member) if member.name.endswith(".xml") else None
                if content is not None:
                    yield content.read(_MAX_XML + 1)
    except (tarfile.TarError, EOFError, OSError) as error:
        raise StudyError(
            "source_archive", f"{archive} cannot be read as a tar archive: {error}"
        ) from error


def _parse(xml: bytes, path: Path) -> _Report:
    """One Open-i record: ``AbstractText`` elements with a Label, and a ``parentImage`` per image.

    A record has no document type: one that declares entities is refused, since they can grow without bound.
    """
    if len(xml) > _MAX_XML or b"<!DOCTYPE" in xml or b"<!ENTITY" in xml:
        raise StudyError(
            "source_xml", f"{path}: a record is larger than 1 MB or declares a document type"
        )
    try:
        root = ElementTree.fromstring(xml)
    except ElementTree.ParseError as error:
        raise StudyError(
            "source_xml", f"{path} holds a record that is not valid XML: {error}"
        ) from error
    number = root.find("uId")
    uid = (number.get("id") or "").removeprefix("CXR") if number is not None else ""
    if not uid:
        raise StudyError("source_xml", f"{path} holds a record without <uId id=...>")
    texts = {
        (part.get("Label") or "").lower(): "".join(part.itertext())
        for part in root.iter("AbstractText")
    }
    images = [_stem(image.get("id") or "") for image in root.iter("parentImage")]
    return _Report(uid, Texts(*(clean(texts.get(name)) for name in Texts._fields)), images)


def _lateral_views(folder: Path) -> dict[str, View]:
    """Image stems that the DICOM headers' table calls lateral; nothing where it is not in the folder."""
    try:
        path = find_file(folder, _DICOM)
    except StudyError:
        return {}
    rows = read_csv(path, ("imageid", "View Position"))
    return {
        _stem(row["imageid"]): "lateral"
        for row in rows
        if view_of(row["View Position"]) == "lateral"
    }


def _stem(name: str) -> str:
    """ "1_IM-0001-4001" for every name that the data set's editions give to one image."""
    return re.sub(r"^CXR(?:(\d+)_(?=\1_))?", "", image_stem(name))


def _r2gen_splits(path: Path) -> dict[str, Split]:
    """Split of every uid that the annotation file names."""
    splits: dict[str, Split] = {}
    for split, records in read_annotation(path).items():
        for record in records:
            match = re.match(
                r"CXR(\d+)_", str(record.get("id")) if isinstance(record, dict) else ""
            )
            if not match:
                raise StudyError(
                    "source_record", f"{path}: an id in {split} is not of the form CXR<number>_..."
                )
            splits[match.group(1)] = split
    return splits
