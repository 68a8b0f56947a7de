"""Films that look inverted: which ones are found, and what the reader does with them."""

from __future__ import annotations

import importlib.util
import io
import json
from pathlib import Path
from types import ModuleType

import numpy as np
import pytest
from PIL import Image

from lmrrg.config.data import PhantomConfig
from lmrrg.data.phantom.drawn.dataset import import_phantoms
from lmrrg.imaging.decoder_pool import DecoderPool
from lmrrg.imaging.polarity import describe, looks_inverted
from lmrrg.imaging.radiograph import Pixels
from lmrrg.imaging.reading import read_image
from tests.support.dicom_files import dicom
from tests.support.paths import REAL_DATA, ROOT


@pytest.fixture(scope="module")
def films(tmp_path_factory: pytest.TempPathFactory) -> list[Pixels]:
    """Return twenty phantoms as they are shown, bone bright."""
    folder = tmp_path_factory.mktemp("phantoms")
    counts = PhantomConfig(train=18, val=1, test=1, image_size=96)
    studies = import_phantoms(folder, counts, seed=3, progress=False).studies
    return [read_image(study.images[0].path).pixels for study in studies]


@pytest.fixture(scope="module")
def benchmark() -> ModuleType:
    spec = importlib.util.spec_from_file_location("polarity", ROOT / "benchmarks" / "polarity.py")
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def stored(film: Pixels) -> np.ndarray:
    """Return a film as 12-bit values with a border of 0 on the left, which is no part of it."""
    values = np.rint(film * 3000).astype(np.uint16) + 500
    values[:, :6] = 0
    return values


def test_inverting_negates_the_features_and_a_mirror_changes_nothing(films):
    described = describe(films[0])
    assert described.shape == (32,)
    np.testing.assert_allclose(describe(1 - films[0]), -described, atol=1e-4)
    np.testing.assert_allclose(describe(films[0][:, ::-1]), described, atol=1e-4)


def test_phantoms_are_told_from_their_inversions(films):
    assert not any(looks_inverted(film) for film in films)
    assert all(looks_inverted(1 - film) for film in films)


def test_a_film_in_doubt_is_believed():
    rng = np.random.default_rng(0)
    for _ in range(20):
        noise = rng.random((256, 256), np.float32)
        assert not looks_inverted(noise)
        assert not looks_inverted(1 - noise)


def test_real_films_turned_at_random():
    reports = REAL_DATA / "iu_xray" / "reports.jsonl"
    if not reports.is_file():
        pytest.skip("no IU X-ray in ../shared/data")
    records = [json.loads(line) for line in reports.read_text(encoding="utf-8").splitlines()]
    names = [name for record in records if record["split"] == "val" for name in record["images"]]
    paths = [reports.parent / name for name in names[:200]]
    films = [read_image(path).pixels for path in paths if path.is_file()]
    assert len(films) > 150
    wrongly = sum(looks_inverted(film) for film in films)
    found = sum(looks_inverted(1 - film) for film in films)
    assert wrongly <= 0.01 * len(films)
    assert found >= 0.97 * len(films)


@pytest.mark.parametrize(
    ("truth", "lie"),
    [
        (
            {"PhotometricInterpretation": "MONOCHROME2"},
            {"PhotometricInterpretation": "MONOCHROME1"},
        ),
        ({"PresentationLUTShape": "IDENTITY"}, {"PresentationLUTShape": "INVERSE"}),
    ],
)
def test_a_header_that_lies_is_flagged_or_overruled(films, truth, lie):
    values = stored(films[0])
    right = read_image(dicom(values, PixelPaddingValue=0, **truth))
    wrong = dicom(values, PixelPaddingValue=0, **lie)
    assert right.warnings == ()

    believed = read_image(wrong)
    assert believed.warnings == ("looks_inverted",)
    np.testing.assert_allclose(believed.pixels[:, 6:], 1 - right.pixels[:, 6:], atol=1e-6)

    turned = read_image(wrong, polarity="pixels")
    assert turned.warnings == ("polarity_corrected",)
    np.testing.assert_allclose(turned.pixels, right.pixels, atol=1e-6)
    assert not turned.pixels[:, :6].any(), "padding stays black"
    untouched = read_image(dicom(values, PixelPaddingValue=0, **truth), polarity="pixels")
    assert untouched.warnings == ()
    np.testing.assert_array_equal(untouched.pixels, right.pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_pictures_are_checked_too_also_by_a_child(films, kind):
    out = io.BytesIO()
    Image.fromarray(np.uint8((1 - films[0]) * 255)).save(out, kind)
    shown = read_image(out.getvalue())
    turned = read_image(out.getvalue(), polarity="pixels")
    assert shown.warnings == ("looks_inverted",)
    np.testing.assert_allclose(turned.pixels, 1 - shown.pixels, atol=1e-6)
    with DecoderPool(polarity="pixels") as pool:
        there = pool.decode(out.getvalue())
    assert there.warnings == turned.warnings == ("polarity_corrected",)
    np.testing.assert_array_equal(there.pixels, turned.pixels)


def test_the_benchmark_trains_a_classifier(films, benchmark):
    described = np.stack([describe(film) for film in films])
    weight = benchmark.fit(described[:12])
    assert (weight.shape, weight.dtype) == ((32,), np.float32)
    told = benchmark.figures(described[12:], weight, np.random.default_rng(0))
    assert told.startswith("8 films, ")
    assert "right 100.00%" in told


def test_the_packaged_weights_are_small():
    path = Path(ROOT) / "lmrrg" / "imaging" / "polarity.safetensors"
    assert path.stat().st_size < 1000
