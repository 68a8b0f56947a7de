"""Test an eye: gradients, its directory, and its evidence on the way through the feature cache."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from lmrrg.config.model import ImageEncoderConfig
from lmrrg.config.tree import Config
from lmrrg.imaging.reading import read_image
from lmrrg.studies import Study
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.calibration import Calibration
from lmrrg.vision.encoder import PACKAGED, copy_weights, encoder_info, image_encoder
from lmrrg.vision.eye import Eye, load_eye, save_eye
from lmrrg.vision.files import load_features, load_features_from_images

PIXELS = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(1))
CALIBRATION = Calibration(0.5, -1.0, tuple(0.1 * number for number in range(14)))


def trained_eye(steps: int = 3) -> Eye:
    """Return an eye after some steps on random pictures and targets."""
    torch.manual_seed(0)
    eye = Eye.new("efficientnet_lite0", 64)
    eye.calibration = CALIBRATION
    optimizer = torch.optim.AdamW(eye.parameters(), 1e-3)
    targets = (torch.rand(3, 14) > 0.5).float()
    for _ in range(steps):
        logits = eye(PIXELS).logits
        torch.nn.functional.binary_cross_entropy_with_logits(logits, targets).backward()
        optimizer.step()
        optimizer.zero_grad()
    return eye.eval()


@pytest.fixture(scope="module")
def eye_folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("eye") / "best"
    save_eye(trained_eye(), folder, {"stage": "test"})
    return folder


def settings(folder: Path) -> ImageEncoderConfig:
    return ImageEncoderConfig(weights=str(folder))


def test_a_new_eye_sees_what_the_packaged_encoder_sees() -> None:
    packaged = image_encoder(64).encode(PIXELS)
    seen = Eye.new("efficientnet_lite0", 64).eval()(PIXELS)
    torch.testing.assert_close(seen.patches, packaged.patches, atol=1e-4, rtol=1e-4)
    assert packaged.logits is None
    assert seen.logits.tolist() == [[0.0] * 14] * 3


def test_every_weight_of_an_eye_learns() -> None:
    before = Eye.new("efficientnet_lite0", 64).state_dict()
    after = trained_eye(4).state_dict()
    assert [name for name in before if torch.equal(before[name], after[name])] == []


def test_a_trained_eye_comes_back_as_it_was(eye_folder: Path) -> None:
    eye, read = trained_eye(), load_eye(eye_folder, 64)
    assert read.calibration == CALIBRATION
    with torch.no_grad():
        for expected, given in zip(eye(PIXELS), read(PIXELS), strict=True):
            assert torch.equal(given, expected)
    assert json.loads((eye_folder / "config.json").read_text())["provenance"] == {"stage": "test"}


def test_the_version_follows_weights_and_calibration(eye_folder: Path, tmp_path: Path) -> None:
    version = encoder_info(64, settings(eye_folder)).version
    assert version.startswith("efficientnet_lite0-eye-")
    eye = trained_eye()
    save_eye(eye, tmp_path / "same", {"stage": "test"})
    assert encoder_info(64, settings(tmp_path / "same")).version == version
    eye.calibration = Calibration()
    save_eye(eye, tmp_path / "same", {"stage": "test"})  # the folder is written anew
    other = encoder_info(64, settings(tmp_path / "same")).version
    with torch.no_grad():
        eye.head.evidence.bias += 1
    save_eye(eye, tmp_path / "same", {"stage": "test"})
    third = encoder_info(64, settings(tmp_path / "same"))
    assert len({version, other, third.version}) == 3
    changed = image_encoder(64, settings(tmp_path / "same")).encode(PIXELS).logits
    torch.testing.assert_close(changed, trained_eye()(PIXELS).logits + 1, atol=1e-4, rtol=1e-4)


def test_evidence_survives_the_cache(
    eye_folder: Path, tiny_studies: list[Study], tiny_config: Config, tmp_path: Path
) -> None:
    data = tiny_config.data.model_copy(update={"cache_dir": tmp_path, "image_size": 64})
    encoder = settings(eye_folder)
    load = {"progress": False, "encoder": encoder}
    new = load_features(tiny_studies[:3], data, **load)
    cached = load_features(tiny_studies[:3], data, **load)
    films = [[read_image(image.path) for image in study.images] for study in tiny_studies[:3]]
    memory = load_features_from_images(films, data, encoder)
    assert new.evidence.shape == (3, 14)
    assert torch.equal(cached.evidence, new.evidence)
    torch.testing.assert_close(memory.evidence, new.evidence, atol=1e-5, rtol=1e-4)
    assert torch.equal(cached.patches, new.patches)
    plain = load_features(tiny_studies[:3], data, progress=False, encoder=PACKAGED)
    assert plain.evidence.isnan().all()


def test_evidence_is_the_calibrated_mean_over_the_films(
    eye_folder: Path, tiny_studies: list[Study], tiny_config: Config, tmp_path: Path
) -> None:
    from lmrrg.imaging.reading import to_square

    data = tiny_config.data.model_copy(update={"cache_dir": tmp_path, "image_size": 64})
    study = tiny_studies[0]
    assert len(study.images) == 2
    squares = [to_square(read_image(image.path).pixels, 64) for image in study.images]
    with torch.no_grad():
        logits = load_eye(eye_folder, 64)(torch.stack(list(map(torch.from_numpy, squares)))).logits
    expected = CALIBRATION.probabilities(logits.mean(0, keepdim=True))
    features = load_features([study], data, progress=False, encoder=settings(eye_folder))
    torch.testing.assert_close(features.evidence, expected, atol=1e-5, rtol=1e-4)


def test_an_eye_copies_without_what_lies_beside_it(eye_folder: Path, tmp_path: Path) -> None:
    (eye_folder / "notes.txt").write_text("not part of an eye")
    copy_weights(settings(eye_folder), tmp_path / "copy")
    assert sorted(path.name for path in (tmp_path / "copy").iterdir()) == [
        "config.json",
        "model.safetensors",
    ]
    (eye_folder / "notes.txt").unlink()
    copied, original = (encoder_info(64, settings(f)) for f in (tmp_path / "copy", eye_folder))
    assert copied == original


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (lambda d: (d / "config.json").unlink(), "there is no .*config.json"),
        (lambda d: (d / "model.safetensors").unlink(), "there is no .*model.safetensors"),
        (lambda d: (d / "config.json").write_text("{"), "is not JSON"),
        (lambda d: (d / "config.json").write_text("{}"), "not of an LMRRG-eye of format 1"),
        (lambda d: edit(d, calibration={}), "no calibration that can be read"),
        (lambda d: edit(d, name="efficientnet_lite1"), "eye of efficientnet_lite1, but"),
        (lambda d: (d / "model.safetensors").write_bytes(b"no weights"), "model.safetensors: "),
    ],
)
def test_a_damaged_eye_is_refused(
    eye_folder: Path, tmp_path: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    copy_weights(settings(eye_folder), tmp_path / "eye")
    damage(tmp_path / "eye")
    with pytest.raises(FeatureError, match=rf"^encoder_weights: .*{sentence}"):
        image_encoder(64, settings(tmp_path / "eye"))


def edit(folder: Path, **changes: object) -> None:
    path = folder / "config.json"
    path.write_text(json.dumps({**json.loads(path.read_text()), **changes}))
