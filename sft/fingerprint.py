"""What a run is known by: a second start under its name either goes on with it or is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable
from pathlib import Path
from typing import Any

import xxhash

from lmrrg.config.tree import Config
from lmrrg.manifest import manifest_hash
from lmrrg.model.region_queries import load_regions
from lmrrg.vision.encoder import encoder_version
from sft.errors import SFTError

_FREE = {
    "sft": {"resume", "cpus_per_worker", "gpus_per_worker"},
    "data": {
        "cache_dir",
        "cache_gb",
        "decode_workers",
        "path",
        "images",
        "ids",  # the hash of the manifest covers what these three led to
        "eval_split",
        "max_image_mb",
        "max_image_megapixels",
        "burned_in_annotation",  # an image over the limits, or refused for its text, stops a run; none is left out
    },
}


def fingerprint(config: Config, manifest: Path, vocabulary: str, images: Iterable[str]) -> str:
    """Hash of everything that a checkpoint's weights and optimizer state depend on, in two parts, "plan-contents".

    The plan: seed, settings, the manifest, region texts, the image encoder, the vocabulary, names and sizes of a local
    decoder's or text encoder's files. The contents: the bytes of these files, and of the images. A run that an earlier
    version began has the plan alone, and is compared by it.

    Not covered: a model of the Hugging Face Hub, which is known by its name; region masks; the images of other splits;
    an image that changed in place and kept its size and time of change, where its hash is remembered.

    Args:
        images: SHA-256 of the images that the model sees in training and validation, in the studies' order.
    """
    folders = [
        _files(name) for name in (config.model.decoder.pretrained, config.model.text_encoder)
    ]
    plan = {
        "seed": config.seed,
        "data": config.data.model_dump(mode="json", exclude=_FREE["data"]),
        "model": config.model.model_dump(mode="json"),
        "sft": config.sft.model_dump(mode="json", exclude=_FREE["sft"]),
        "manifest": manifest_hash(manifest),
        "regions": load_regions(config.model.regions_file),
        "encoder": encoder_version(config.data.image_size),
        "pretrained": [[(path.name, path.stat().st_size) for path in files] for files in folders],
        "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest(),
    }
    contents = {
        "pretrained": [[_hash(path) for path in files] for files in folders],
        "images": list(images),
    }
    return f"{_hash_of(plan)}-{_hash_of(contents)}"


def check_fingerprint(found: str, expected: str) -> None:
    """Raise :class:`SFTError` ``resume_mismatch`` when a checkpoint belongs to another run."""
    if difference := _difference(found, expected):
        raise SFTError(
            "resume_mismatch",
            f"the run's last checkpoint was made with {difference}; use another name, or sft.resume=false",
        )


def is_same_run(found: str, expected: str) -> bool:
    """Whether two fingerprints are the same run's."""
    return not _difference(found, expected)


def _difference(found: str, expected: str) -> str:
    plan, _, contents = found.partition("-")
    expected_plan, _, expected_contents = expected.partition("-")
    if plan != expected_plan:
        return "other settings or data"
    if contents and contents != expected_contents:
        return "other images, or other files of a pretrained model, under the same names"
    return ""


def _files(name: str | None) -> list[Path]:
    """The files of a model, where the name is a folder's; loading a model reads none below them."""
    return sorted(path for path in Path(name or "").glob("*") if name and path.is_file())


def _hash(path: Path) -> str:
    """XXH3 (128 bits) of a file's bytes: as fast as they are read, against accidents only."""
    with path.open("rb") as file:
        return hashlib.file_digest(file, xxhash.xxh3_128).hexdigest()


def _hash_of(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
