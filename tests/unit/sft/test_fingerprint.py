"""What a run of SFT is known by, and what a second start under its name is told."""

from __future__ import annotations

import os
from collections.abc import Iterable
from pathlib import Path

import pytest

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.studies import Study, StudyImage
from lmrrg.vision.files import image_hashes
from sft.errors import SFTError
from sft.fingerprint import check_fingerprint, fingerprint, is_same_run


@pytest.fixture
def manifest(tmp_path: Path) -> Path:
    path = tmp_path / "studies.jsonl"
    path.write_text("{}\n")
    return path


def named(manifest: Path, *overrides: str, images: Iterable[str] = ("first", "second")) -> str:
    return fingerprint(load_config(None, overrides), manifest, "vocabulary", images)


@pytest.mark.parametrize(
    "override",
    [
        "data.decode_workers=0",
        "data.eval_split=val",
        "data.max_image_mb=1",
        "data.max_image_megapixels=2",
        "data.burned_in_annotation=refuse",
        "data.ids=published",
        "data.cache_dir=elsewhere",
        "sft.resume=false",
        "sft.gpus_per_worker=1",
    ],
)
def test_what_touches_no_weights_continues_a_run(manifest: Path, override: str):
    assert named(manifest, override) == named(manifest)


@pytest.mark.parametrize(
    "override",
    [
        "seed=8",
        "data.image_size=128",
        "data.max_views=1",
        "data.max_report_tokens=50",
        "data.train_limit=5",
        "data.eval_limit=5",  # chooses the best checkpoint
        "data.section=impression",
        "model.extractor_width=128",
        "sft.learning_rate=0.1",
    ],
)
def test_what_touches_weights_starts_another_run(manifest: Path, override: str):
    assert named(manifest, override) != named(manifest)


def test_other_data_are_another_run(manifest: Path):
    before = named(manifest)
    manifest.write_text("{ }\n")
    assert named(manifest) != before


def test_other_region_texts_or_weights_are_another_run(
    manifest: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    before = named(manifest)
    monkeypatch.setattr("sft.fingerprint.load_regions", lambda _: {"right lung": "other words"})
    assert named(manifest) != before
    (tmp_path / "decoder").mkdir()
    decoder = f"model.decoder.pretrained={tmp_path / 'decoder'}"
    without = named(manifest, decoder)
    (tmp_path / "decoder" / "model.safetensors").write_bytes(b"weights")
    assert named(manifest, decoder) != without


@pytest.mark.parametrize("key", ["model.decoder.pretrained", "model.text_encoder"])
def test_other_weights_of_the_same_size_are_another_run(manifest: Path, tmp_path: Path, key: str):
    weights = tmp_path / "model" / "model.safetensors"
    weights.parent.mkdir()
    weights.write_bytes(b"weights")
    before, time = named(manifest, f"{key}={weights.parent}"), weights.stat().st_mtime_ns
    weights.write_bytes(b"WEIGHTS")
    os.utime(weights, ns=(time, time))
    with pytest.raises(SFTError, match=r"resume_mismatch: .* other files of a pretrained model"):
        check_fingerprint(before, named(manifest, f"{key}={weights.parent}"))


def test_other_images_under_the_same_names_are_another_run(manifest: Path, tmp_path: Path):
    config = Config(data={"cache_dir": tmp_path / "cache", "max_views": 1})  # type: ignore[arg-type]
    paths = [tmp_path / name for name in ("frontal.png", "lateral.png")]
    for path in paths:
        path.write_bytes(b"image")
        os.utime(path, ns=(1, 1))  # long ago: its hash is remembered
    study = Study("s", "p", (StudyImage(paths[1], "lateral"), StudyImage(paths[0], "PA")))

    def now() -> str:
        return named(manifest, images=image_hashes([study], config.data).values())

    before = now()
    os.utime(paths[0], ns=(2, 2))
    paths[1].write_bytes(b"IMAGE")
    assert now() == before, "copied, and one that max_views leaves out"
    paths[0].write_bytes(b"IMAGE")
    with pytest.raises(SFTError, match=r"resume_mismatch: .* other images"):
        check_fingerprint(before, now())


def test_a_fingerprint_has_two_parts_and_the_settings_are_named_first(manifest: Path):
    now = named(manifest)
    other = named(manifest, "seed=8", images=("another",))
    assert [len(part) for part in now.split("-")] == [64, 64]
    assert is_same_run(now, named(manifest))
    assert not is_same_run(now, other)
    with pytest.raises(SFTError, match=r"resume_mismatch: .* other settings or data"):
        check_fingerprint(now, other)
