"""The identity of an SFT run: a second start under its name continues it or is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from lmrrg.config.resume import binding_settings
from lmrrg.config.tree import Config
from lmrrg.manifest import manifest_hash
from lmrrg.model.region_queries import load_regions
from lmrrg.vision.encoder import encoder_info
from sft.errors import SFTError


def fingerprint(config: Config, manifest: Path, vocabulary: str, images: Iterable[str]) -> str:
    """Return two hashes, "plan-contents", of what weights and optimizer state depend on.

    The plan: the settings that bind SFT, the manifest, region texts, the image encoder, the
    vocabulary, names and sizes of the files of a local decoder or text encoder. The contents: the
    bytes of these files and of the images.

    Not covered: a model of the Hugging Face Hub, which is known by its name; region masks; the
    images of other splits; an image that changed in place and kept its size and time of change,
    where its hash is remembered.

    Args:
        images: SHA-256 of the images that the model sees in training and validation, in the
            studies' order.
    """
    folders = [
        _files(name) for name in (config.model.decoder.pretrained, config.model.text_encoder)
    ]
    plan = {
        "settings": binding_settings(config, "sft"),
        "manifest": manifest_hash(manifest),
        "regions": load_regions(config.model.regions_file),
        "encoder": encoder_info(config.data.image_size, config.model.image_encoder).version,
        "pretrained": [_names_and_sizes(files) for files in folders],
        "vocabulary": hashlib.sha256(vocabulary.encode()).hexdigest(),
    }
    contents = {
        "pretrained": [_hashes(files) for files in folders],
        "images": list(images),
    }
    return f"{_hash_of(plan)}-{_hash_of(contents)}"


def check_fingerprint(found: str, expected: str, changed: Sequence[str] = ()) -> None:
    """Refuse a checkpoint that belongs to another run.

    Args:
        changed: the settings that are known to differ, for the message.

    Raises:
        SFTError: ``resume_mismatch``.
    """
    if difference := _difference(found, expected):
        if changed:
            difference = f"other values of {', '.join(changed)}"
        raise SFTError(
            "resume_mismatch",
            f"the run's last checkpoint was made with {difference}; use another name, or "
            "sft.resume=false",
        )


def is_same_run(found: str, expected: str) -> bool:
    """Return whether two fingerprints belong to the same run."""
    return not _difference(found, expected)


def _difference(found: str, expected: str) -> str:
    plan, _, contents = found.partition("-")
    expected_plan, _, expected_contents = expected.partition("-")
    if plan != expected_plan:
        return "other settings or data"
    if contents != expected_contents:
        return "other images, or other files of a pretrained model, under the same names"
    return ""


def _files(name: str | None) -> list[Path]:
    """Return the files of a model that is named by its folder; loading reads no subfolder."""
    return sorted(path for path in Path(name or "").glob("*") if name and path.is_file())


def _names_and_sizes(files: Iterable[Path]) -> list[tuple[str, int]]:
    return [(path.name, path.stat().st_size) for path in files]


def _hashes(files: Iterable[Path]) -> list[str]:
    """Return the XXH3 (128 bits) of each file's bytes.

    It is as fast as the disk, and protects against accidents, not against an attacker.
    """
    digests = []
    for path in files:
        with path.open("rb") as file:
            digests.append(hashlib.file_digest(file, xxhash.xxh3_128).hexdigest())
    return digests


def _hash_of(facts: dict[str, Any]) -> str:
    return hashlib.sha256(json.dumps(facts, sort_keys=True).encode()).hexdigest()
