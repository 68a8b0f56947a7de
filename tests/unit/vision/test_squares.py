"""Test the squares of films that the eye is trained on."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch

from lmrrg.config.data import DataConfig
from lmrrg.config.tree import Config
from lmrrg.imaging.radiograph import ImageError
from lmrrg.imaging.reading import read_image, to_square
from lmrrg.studies import Study, StudyImage
from lmrrg.vision import squares
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.files import image_hashes
from lmrrg.vision.squares import Squares
from tests.support.trees import picture


@pytest.fixture
def data(tiny_config: Config, tmp_path: Path) -> DataConfig:
    return tiny_config.data.model_copy(update={"cache_dir": tmp_path / "cache", "max_views": 2})


@pytest.fixture
def studies(tmp_path: Path) -> list[Study]:
    """One study of two films, one of one, and one of three, of which two are seen."""
    films = [StudyImage(picture(tmp_path / f"{n}.png", n), "PA") for n in range(6)]
    lateral = replace(films[3], view="lateral")
    return [
        Study("a", "p1", (films[0], films[1])),
        Study("b", "p2", (films[2],)),
        Study("c", "p3", (lateral, films[4], films[5])),
    ]


def made(studies: list[Study], data: DataConfig) -> Squares:
    return Squares(studies, data, image_hashes(studies, data, progress=False), progress=False)


def expected(study: Study, number: int, data: DataConfig) -> np.ndarray:
    square = to_square(read_image(study.images[number].path).pixels, data.image_size)
    return np.rint(square * 255).astype(np.uint8)


def test_films_and_whose_they_are(studies: list[Study], data: DataConfig):
    films, owners = made(studies, data).select([2, 0])
    assert owners.tolist() == [0, 0, 1, 1]
    assert films.dtype == torch.uint8
    wanted = [(studies[2], 1), (studies[2], 2), (studies[0], 0), (studies[0], 1)]
    for film, (study, number) in zip(films.numpy(), wanted, strict=True):
        assert np.array_equal(film, expected(study, number, data))


def test_they_are_decoded_once(
    studies: list[Study], data: DataConfig, monkeypatch: pytest.MonkeyPatch
):
    first = made(studies, data).select([0, 1, 2])[0]
    monkeypatch.setattr(squares, "read_squares", lambda *_: pytest.fail("decoded again"))
    assert torch.equal(made(studies, data).select([0, 1, 2])[0], first)


def test_films_of_several_files(
    studies: list[Study], data: DataConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(squares, "SHARD", 2)
    films, _ = made(studies, data).select([1, 2])
    assert np.array_equal(films[0].numpy(), expected(studies[1], 0, data))
    assert np.array_equal(films[2].numpy(), expected(studies[2], 2, data))
    assert len(list(data.cache_dir.rglob("*.npy"))) == 3


def test_a_file_that_another_run_deletes_stays_readable(studies: list[Study], data: DataConfig):
    own = made(studies, data)
    first = own.select([0])[0]
    for file in data.cache_dir.rglob("*.npy"):
        file.unlink()
    assert torch.equal(own.select([0])[0], first)


def test_an_image_that_cannot_be_read_is_named_after_the_others_are_made(
    studies: list[Study], data: DataConfig, monkeypatch: pytest.MonkeyPatch
):
    monkeypatch.setattr(squares, "SHARD", 2)
    studies[0].images[1].path.write_bytes(b"no image")
    with pytest.raises(ImageError, match="not_an_image"):
        made(studies, data)
    assert len(list(data.cache_dir.rglob("*.npy"))) == 2


def test_squares_keep_to_the_size_of_the_cache(studies: list[Study], data: DataConfig):
    with pytest.raises(FeatureError, match="cache_too_small"):
        made(studies, data.model_copy(update={"cache_gb": 1e-6}))
