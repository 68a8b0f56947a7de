"""Every kind of Hugging Face vision model as an image encoder: features, training, directories."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from transformers import AutoModel

from lmrrg.config.model import ImageEncoderConfig
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import checkpoint_encoder, load_checkpoint, save_checkpoint
from lmrrg.studies import Study
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.encoder import encoder_info, image_encoder
from lmrrg.vision.eye import Eye, load_eye, save_eye
from lmrrg.vision.files import load_features
from lmrrg.vision.huggingface import HuggingFaceBackbone, Preprocessing
from tests.support.new_model import new_model
from tests.support.vision.models import (
    ARCHITECTURES,
    write_preprocessing,
    write_text_model,
    write_vision_model,
)

SIDE = 96
PIXELS = torch.rand(2, SIDE, SIDE, generator=torch.Generator().manual_seed(1))


def named(folder: Path) -> ImageEncoderConfig:
    return ImageEncoderConfig(name="huggingface", weights=str(folder))


@pytest.fixture(params=ARCHITECTURES, scope="module")
def architecture(request: pytest.FixtureRequest) -> str:
    return request.param


@pytest.fixture(scope="module")
def folder(architecture: str, tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_vision_model(architecture, tmp_path_factory.mktemp("model"))


def test_features_have_a_square_grid_and_are_always_the_same(
    architecture: str, folder: Path
) -> None:
    info = encoder_info(SIDE, named(folder))
    assert (info.patches, info.width) == ARCHITECTURES[architecture][2]
    assert info.calibration is None
    encoder = image_encoder(SIDE, named(folder))
    first, again = encoder.encode(PIXELS), encoder.encode(PIXELS)
    assert first.patches.shape == (2, info.patches, info.width)
    assert first.patches.dtype == torch.float32
    assert first.logits is None
    assert torch.equal(first.patches, again.patches)
    assert (first.patches[0] - first.patches[1]).abs().max() > 1e-3


def test_an_eye_on_it_learns_and_comes_back(folder: Path, tmp_path: Path) -> None:
    torch.manual_seed(0)
    # In evaluation mode: the statistics of two pictures would be no good for ResNet's batch norms.
    eye = Eye.new("huggingface", SIDE, str(folder)).eval()
    before = eye(PIXELS).patches.detach()
    optimizer = torch.optim.AdamW(eye.parameters(), 1e-3)
    for _ in range(3):
        logits = eye(PIXELS).logits
        torch.nn.functional.binary_cross_entropy_with_logits(logits, torch.ones(2, 14)).backward()
        optimizer.step()
        optimizer.zero_grad()
    save_eye(eye, tmp_path / "eye", {})
    with torch.no_grad():
        after = eye(PIXELS)
        assert after.logits.min() > 0
        assert (after.patches - before).abs().max() > 1e-3
        for expected, given in zip(after, load_eye(tmp_path / "eye", SIDE)(PIXELS), strict=True):
            assert torch.equal(given, expected)
    info = encoder_info(SIDE, named(tmp_path / "eye"))
    assert info.version.startswith("huggingface-eye-")
    assert (info.patches, info.width) == (eye.backbone.patches, eye.backbone.width)


@pytest.mark.parametrize("kind", ["folder", "eye"])
def test_a_checkpoint_needs_nothing_but_itself(
    kind: str, folder: Path, tiny_config: Config, tiny_studies: list[Study], tmp_path: Path
) -> None:
    source = tmp_path / "source"
    if kind == "folder":
        shutil.copytree(folder, source)
    else:
        save_eye(Eye.new("huggingface", SIDE, str(folder)), source, {})
    data = tiny_config.data.model_copy(update={"cache_dir": tmp_path / "a", "image_size": SIDE})
    model = tiny_config.model.model_copy(update={"image_encoder": named(source)})
    config = tiny_config.model_copy(update={"data": data, "model": model})
    expected = load_features(tiny_studies[:2], data, progress=False, encoder=named(source))
    save_checkpoint(new_model(config, ["Clear."]), tmp_path / "first", {})
    shutil.rmtree(source)
    # As PPO writes its model, from the one that it started from.
    save_checkpoint(load_checkpoint(tmp_path / "first"), tmp_path / "model", {})
    shutil.rmtree(tmp_path / "first")
    encoder = checkpoint_encoder(tmp_path / "model", ImageEncoderConfig())
    assert encoder.weights == str(tmp_path / "model" / "eye")
    assert str(tmp_path) not in (tmp_path / "model" / "config.json").read_text()
    other = data.model_copy(update={"cache_dir": tmp_path / "b"})
    features = load_features(tiny_studies[:2], other, progress=False, encoder=encoder)
    assert torch.equal(features.patches, expected.patches)
    torch.testing.assert_close(features.evidence, expected.evidence, equal_nan=True)
    assert features.evidence.isnan().all() == (kind == "folder")
    with torch.no_grad():
        assert load_checkpoint(tmp_path / "model").visual(features).disease_logits.isfinite().all()


def test_pixels_are_scaled_as_the_model_wants_them(tmp_path: Path) -> None:
    folder = write_vision_model("vit", tmp_path)
    x = torch.rand(1, 64, 64, generator=torch.Generator().manual_seed(2))
    colours = [(x - mean) / std for mean, std in ((0.4, 0.2), (0.5, 0.25), (0.6, 0.3))]
    with torch.no_grad():
        hidden = AutoModel.from_pretrained(folder)(torch.stack(colours, 1)).last_hidden_state
    given = image_encoder(64, named(folder)).encode(x).patches
    torch.testing.assert_close(given, hidden[:, 1:], atol=1e-5, rtol=1e-4)


@pytest.mark.parametrize(
    ("stored", "side"),
    [
        ({"size": 224}, 224),
        ({"size": {"shortest_edge": 518}}, 518),
        ({"size": {"shortest_edge": 256}, "do_center_crop": True, "crop_size": 224}, 224),
        ({"size": {"height": 384, "width": 384}}, 384),
    ],
)
def test_the_input_side_is_read_in_its_usual_forms(stored: dict, side: int) -> None:
    read = Preprocessing.of({"image_mean": [0.5] * 3, "image_std": [0.5] * 3, **stored})
    assert (read.side, read.factor) == (side, 1 / 255)


def without_weights(folder: Path) -> None:
    (folder / "model.safetensors").unlink()
    torch.save({}, folder / "pytorch_model.bin")


@pytest.mark.parametrize(
    ("damage", "sentence"),
    [
        (without_weights, "encoder_weights: .*holds no model.safetensors"),
        (lambda d: (d / "config.json").write_text("{}"), "encoder_weights: .*cannot be read"),
        (lambda d: (d / "model.safetensors").write_bytes(b""), "encoder_weights: .*be read"),
        (lambda d: (d / "preprocessor_config.json").unlink(), "encoder_weights: .*its pixels"),
        (lambda d: write_preprocessing(d), "encoder_weights: .*'size'"),
        (lambda d: write_preprocessing(d, size={"height": 64, "width": 32}), "is no square"),
        (lambda d: write_preprocessing(d, size=80), "image_size: .*does not take the 80 pixels"),
        (lambda d: write_preprocessing(d, size=64, image_mean=[0.5] * 2), "has 2 colours"),
    ],
)
def test_a_folder_that_cannot_be_used_is_refused(
    tmp_path: Path, damage: Callable[[Path], object], sentence: str
) -> None:
    folder = write_vision_model("vit", tmp_path / "m")
    damage(folder)
    with pytest.raises(FeatureError, match=sentence):
        image_encoder(SIDE, named(folder))


def test_a_model_without_eyes_is_refused(tmp_path: Path) -> None:
    with pytest.raises(FeatureError, match=r"^encoder_weights: .*BertModel, which is no vision"):
        encoder_info(SIDE, named(write_text_model(tmp_path)))


def test_an_eye_needs_a_model_to_start_from() -> None:
    with pytest.raises(FeatureError, match=r"^encoder_weights: .*is not given"):
        Eye.new("huggingface", SIDE)


def test_weights_that_are_missing_are_named(tmp_path: Path) -> None:
    folder = write_vision_model("vit", tmp_path / "m")
    model = AutoModel.from_pretrained(folder)
    state = model.state_dict()
    name = next(name for name in state if "layer" in name and name.endswith("weight"))
    del state[name]
    model.save_pretrained(folder, state_dict=state)
    with pytest.raises(FeatureError, match=rf"encoder_weights: .*lacks weights .*{name}"):
        HuggingFaceBackbone(folder, SIDE)


def test_code_in_a_models_folder_never_runs(tmp_path: Path) -> None:
    folder = write_vision_model("vit", tmp_path / "m")
    (folder / "evil.py").write_text(f"open({str(tmp_path / 'it_ran')!r}, 'w')\n")
    (folder / "config.json").write_text(
        '{"model_type": "evil", "auto_map": {"AutoConfig": "evil.C", "AutoModel": "evil.M"}}'
    )
    with pytest.raises(FeatureError, match="encoder_weights"):
        encoder_info(SIDE, named(folder))
    assert not (tmp_path / "it_ran").exists()
