"""What the studies of a run were made from: saved beside the manifest, to notice changes."""

from __future__ import annotations

import hashlib
import json
import logging
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

from lmrrg.config.data import DataConfig
from lmrrg.config.resume import binding_settings, changed_keys
from lmrrg.config.tree import Config
from lmrrg.data.phantom.drawn import dataset as drawn_phantoms
from lmrrg.data.sources import READERS_VERSION
from lmrrg.files import atomic_writer
from lmrrg.manifest import manifest_hash, read_studies

logger = logging.getLogger(__name__)

_TABLES: dict[str, tuple[str, ...]] = {
    "iu-xray": (
        "indiana_*.csv",
        "nlmcxr_dicom_metadata.csv*",
        "NLMCXR_reports.tgz",
        "r2gen_annotation.json",
    ),
    "mimic-cxr": ("mimic-cxr-2.0.0-*.csv*", "mimic-cxr-reports.zip"),
    "chexpert-plus": ("df_chexpert_plus_240401.csv*", "chexbert_labels/*.json"),
    "padchest": ("PADCHEST_chest_x_ray_images_labels_160K_01.02.19.csv*",),
    "padchest-gr": ("grounded_reports_20240819.json", "master_table.csv*"),
    "rexgradient": ("metadata/*_metadata_view_position.json",),
    "r2gen": ("annotation.json", "mimic-cxr-2.0.0-metadata.csv*"),
}
"""Files with texts, labels and splits in the folder of a source. A source that is one file is its
own table."""


@dataclass(frozen=True)
class StudiesOrigin:
    """What a manifest was made from.

    Texts in single files (unpacked reports) and images are not part of it: there are too many to
    look at whenever a stage starts.
    """

    settings: str | None = None
    """Hash of the settings that decide what the manifest holds."""
    readers: int | None = None
    """Revision of the code that reads data sets."""
    tables: dict[str, list[int]] | None = None
    """Size and time of change (ns) of the source's tables, by path."""
    manifest: str | None = None
    """Hash of the manifest; None before it is written."""
    values: dict[str, Any] | None = None
    """The settings themselves, by key, to name those that changed."""

    @classmethod
    def of(cls, config: Config) -> StudiesOrigin:
        """Return what a manifest would be made from now."""
        return cls(
            settings=_settings_hash(config),
            readers=READERS_VERSION,
            tables=_tables(config.data),
            values=binding_settings(config, "data"),
        )

    @classmethod
    def load(cls, path: Path) -> StudiesOrigin:
        """Read a saved origin; everything in it is None where the file is missing or damaged."""
        if not path.is_file():
            return cls()
        try:
            saved: Any = json.loads(path.read_text(encoding="utf-8"))
            return cls(**saved)
        except (ValueError, TypeError):  # TypeError: it is no mapping, or has unknown keys
            return cls()

    def save(self, path: Path, manifest: Path) -> None:
        """Write this origin, as that of ``manifest``."""
        with atomic_writer(path) as out:
            json.dump(asdict(replace(self, manifest=manifest_hash(manifest))), out)

    def changed_settings(self, current: StudiesOrigin) -> list[str]:
        """Return the keys of the settings that differ; [] where they are not known."""
        if self.values is None or current.values is None:
            return []
        return changed_keys(self.values, current.values)

    def is_of(self, manifest: Path, current: StudiesOrigin) -> bool:
        """Return whether ``manifest`` was made from this, and ``current`` is still the same.

        A source that is gone has not changed. Nor has what this origin does not know: it may have
        been saved before tables and readers were recorded.
        """
        if not manifest.is_file() or self.settings != current.settings:
            return False
        if self.manifest != manifest_hash(manifest):
            return False  # edited by hand
        if current.tables and self.tables not in (None, current.tables):
            return _outdated(manifest, "the source's tables")
        if self.readers not in (None, current.readers):
            return _outdated(manifest, "how the source is read")
        return all(
            image.path.is_file() for study in read_studies(manifest) for image in study.images
        )


def _outdated(manifest: Path, what: str) -> bool:
    logger.warning("%s is made anew: %s changed", manifest, what)
    return False


def _settings_hash(config: Config) -> str:
    version = [drawn_phantoms.VERSION]
    if config.data.phantom.generator == "ct":
        # Imported here because it loads the CT renderer.
        from lmrrg.data.phantom.ct import dataset as ct_phantoms

        version = [ct_phantoms.VERSION, ct_phantoms.REVISION]
    text = json.dumps([binding_settings(config, "data"), version], sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


def _tables(data: DataConfig) -> dict[str, list[int]]:
    """Return size and time of every table; nothing where the source has none, or is gone."""
    if data.path is None:
        return {}
    folder = data.path.parent if data.path.is_file() else data.path
    candidates = [data.path]
    for pattern in _TABLES.get(data.source, ()):
        candidates.extend(folder.glob(pattern))
    tables = [path for path in candidates if path.is_file()]
    # Labels alone are no source: without a table the source is gone, and nothing has changed.
    if tables and data.labels is not None and data.labels.is_file():
        tables.append(data.labels)
    return {str(path): _size_and_time(path) for path in tables}


def _size_and_time(path: Path) -> list[int]:
    facts = path.stat()
    return [facts.st_size, facts.st_mtime_ns]
