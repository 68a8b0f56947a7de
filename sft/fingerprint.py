"""The identity of an SFT run: a second start under its name continues it or is refused."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import Any

import xxhash

from lmrrg.config.base import Stage
from lmrrg.config.model import ImageEncoderConfig
from lmrrg.config.resume import binding_settings, changed_keys
from lmrrg.config.tree import Config
from lmrrg.files import atomic_writer
from lmrrg.manifest import manifest_hash
from lmrrg.model.region_queries import load_regions
from lmrrg.run.layout import RunLayout
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


def eye_fingerprint(config: Config, manifest: Path, images: Iterable[str]) -> str:
    """Return two hashes, "plan-contents", of what the weights of an eye depend on.

    The plan: the settings that bind the eye stage, the manifest, the weights that it starts from.
    The contents: the bytes of the images.

    Args:
        images: as in :func:`fingerprint`.
    """
    start = ImageEncoderConfig(name=config.model.image_encoder.name)
    plan = {
        "settings": binding_settings(config, "eye"),
        "manifest": manifest_hash(manifest),
        "encoder": encoder_info(config.data.image_size, start).version,
    }
    return f"{_hash_of(plan)}-{_hash_of({'images': list(images)})}"


def write_mark(config: Config, stage: Stage, fingerprint: str) -> None:
    """Write a stage's fingerprint, and the settings behind it, into the run's folder."""
    layout = RunLayout(config.run_dir)
    layout.stage(stage).mkdir(parents=True, exist_ok=True)
    with atomic_writer(layout.stage_settings(stage)) as out:
        json.dump(binding_settings(config, stage), out, indent=1)
    with atomic_writer(layout.fingerprint(stage)) as out:
        out.write(fingerprint)


def check_mark(config: Config, stage: Stage, fingerprint: str) -> None:
    """Fail fast where the run's folder holds the stage of another run.

    Raises:
        SFTError: ``resume_mismatch``, with the settings that differ.
    """
    layout = RunLayout(config.run_dir)
    if not layout.fingerprint(stage).is_file():
        return
    changed: list[str] = []
    if layout.stage_settings(stage).is_file():
        saved = json.loads(layout.stage_settings(stage).read_text(encoding="utf-8"))
        changed = changed_keys(saved, binding_settings(config, stage))
    found = layout.fingerprint(stage).read_text(encoding="utf-8")
    check_fingerprint(found, fingerprint, changed, stage=stage)


def check_fingerprint(
    found: str, expected: str, changed: Sequence[str] = (), *, stage: Stage = "sft"
) -> None:
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
            f"{stage}.resume=false",
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
