"""Import the studies of any supported data set."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

from lmrrg.config.data import DataConfig
from lmrrg.data.datasets.chexpert_plus import read_chexpert_plus
from lmrrg.data.datasets.csv_table import read_csv_table
from lmrrg.data.datasets.iu_xray import read_iu_xray
from lmrrg.data.datasets.jsonl import read_jsonl
from lmrrg.data.datasets.mimic_cxr import read_mimic_cxr
from lmrrg.data.datasets.padchest import read_padchest
from lmrrg.data.datasets.padchest_gr import read_padchest_gr
from lmrrg.data.datasets.r2gen import read_r2gen
from lmrrg.data.datasets.rexgradient import read_rexgradient
from lmrrg.data.importing import Import, complete_source
from lmrrg.data.phantom.drawn.dataset import import_phantoms
from lmrrg.data.source import Source
from lmrrg.studies import StudyError

_READERS: dict[str, Callable[[Path, DataConfig], Source]] = {
    "iu-xray": read_iu_xray,
    "mimic-cxr": read_mimic_cxr,
    "chexpert-plus": read_chexpert_plus,
    "padchest": read_padchest,
    "padchest-gr": read_padchest_gr,
    "rexgradient": read_rexgradient,
    "r2gen": read_r2gen,
    "csv": read_csv_table,
    "jsonl": read_jsonl,
}
READERS_VERSION = 3
"""Version of the readers: raise it when one makes other studies of the same files than before.

A run then makes its manifest anew instead of keeping the one of an earlier version.
"""


def import_studies(data: DataConfig, folder: Path, seed: int, *, progress: bool = True) -> Import:
    """Read the source that ``data`` names, or generate its phantoms.

    ``data.check_views`` is left to :func:`lmrrg.run.studies.import_checked`, since it needs the
    image encoder.

    Args:
        data: names the source and what is taken from it.
        folder: phantoms are written into ``folder/phantoms``; not used for other sources.
        seed: of the phantoms, and of splits where the source has none.
        progress: whether to show a progress bar.

    Raises:
        StudyError: the source cannot be read or has no usable study.
    """
    if data.source == "phantom":
        return _import_phantoms(data, folder / "phantoms", seed, progress)
    if data.path is None:
        raise StudyError("source_missing", f"data.path is required with data.source={data.source}")
    source = _READERS[data.source](data.path, data)
    return complete_source(
        source, section=data.section, seed=seed, labels=data.labels, progress=progress
    )


def _import_phantoms(data: DataConfig, folder: Path, seed: int, progress: bool) -> Import:
    if data.phantom.generator != "ct":
        return import_phantoms(
            folder, data.phantom, seed=seed, section=data.section, progress=progress
        )
    # Imported here since it loads torch, which no other source needs.
    from lmrrg.data.phantom.ct.dataset import import_ct_phantoms

    cache = data.cache_dir.with_name("phantom_ct")
    return import_ct_phantoms(
        folder, data.phantom, cache, seed=seed, section=data.section, progress=progress
    )
