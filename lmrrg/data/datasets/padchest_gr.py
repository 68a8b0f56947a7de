"""PadChest-GR as BIMCV publishes it: 4,555 frontal films of PadChest with findings as sentences.

The sentences are in two languages. The folder holds ``grounded_reports_20240819.json`` (a list, a
study per record), ``master_table.csv`` (patients and splits) and, at any depth, the unpacked
images.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from lmrrg.config.data import DataConfig
from lmrrg.data.datasets.padchest import labels_named
from lmrrg.data.source import Dropped, Source
from lmrrg.data.tables import clean, find_file, image_stem, index_images, read_csv, read_json
from lmrrg.studies import POSITIVE, Split, Study, StudyError, StudyImage

_REPORTS = "grounded_reports_20240819.json"
_TABLE = "master_table.csv"
_SPLITS: dict[str, Split] = {"train": "train", "validation": "val", "test": "test"}


def read_padchest_gr(folder: Path, data: DataConfig) -> Source:
    """Read the records, with patient and split from the table.

    The findings are a study's English sentences, in their order. Labels are those of its abnormal
    sentences, mapped to the 14 classes as PadChest's; a study without an abnormal sentence is "No
    Finding" (**ours**). Boxes are not read. The earlier studies that some records name come without
    sentences, so no prior is linked.

    Args:
        folder: see the module.
        data: ``images``: the folder of the images, where it is another.

    Raises:
        StudyError: a file or a column is missing, a record is not of this form, or
            ``source_section`` if another section than findings is wanted.
    """
    if data.section != "findings":
        message = f"PadChest-GR has one section, taken as findings, not {data.section}"
        raise StudyError("source_section", message)
    path = folder / _REPORTS
    records = read_json(path)
    if not isinstance(records, list):
        raise StudyError("source_record", f"{path} is no list of studies")
    table = find_file(folder, _TABLE)
    row_of_study = {
        row["StudyID"]: row for row in read_csv(table, ("StudyID", "PatientID", "split"))
    }
    return Source(
        "padchest-gr",
        _rows(records, row_of_study, index_images(data.images or folder), path),
        total=len(records),
        notes={
            "language": "English (sentence_en)",
            "labels": "PadChest's, mapped to the 14 classes",
            "splits": table.name,
        },
        published_splits=True,
    )


def _rows(
    records: list[Any],
    row_of_study: Mapping[str, Mapping[str, str]],
    images: Mapping[str, Path],
    path: Path,
) -> Iterator[Study | Dropped]:
    for record in records:
        try:
            study = str(record["StudyID"])
            image = images.get(image_stem(str(record["ImageID"])))
            sentences = [clean(finding.get("sentence_en")) for finding in record["findings"]]
            labels = _labels(record["findings"])
        except (KeyError, TypeError, AttributeError) as error:
            raise StudyError("source_record", f"{path}: a record has no usable {error}") from error
        if study not in row_of_study:
            yield Dropped("not in the table of splits")
        elif image is None:
            yield Dropped("no image file", str(record["ImageID"]))
        elif not all(sentences):
            yield Dropped("a sentence without English")
        else:
            yield Study(
                id=study,
                patient=row_of_study[study]["PatientID"],
                images=(StudyImage(image, "frontal"),),
                findings=" ".join(sentences),
                labels=labels,
                split=_split(row_of_study[study]["split"], path.with_name(_TABLE)),
                source="padchest-gr",
            )


def _labels(findings: list[dict[str, Any]]) -> dict[str, int]:
    abnormal = [finding for finding in findings if finding["abnormal"]]
    if not abnormal:
        return {"No Finding": POSITIVE}
    names: set[str] = set()
    for finding in abnormal:
        names.update(str(label).strip().lower() for label in finding.get("labels") or ())
    # An abnormal sentence may be labelled "normal" as well; the study is not.
    return labels_named(names - {"normal"})


def _split(name: str, table: Path) -> Split:
    if name.strip() not in _SPLITS:
        raise StudyError("source_record", f"{table}: a split is not train, validation or test")
    return _SPLITS[name.strip()]
