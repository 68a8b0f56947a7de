"""Many image files: in order, the same from child processes, and refused ones named together."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmrrg.config.data import DataConfig
from lmrrg.imaging import batch
from lmrrg.imaging.batch import RefusedImage, read_by_settings, read_squares, refusal
from lmrrg.imaging.radiograph import ImageError, Radiograph
from tests.support.trees import picture


@pytest.fixture
def paths(tmp_path: Path) -> list[Path]:
    """Return five files, of which the second is damaged and the fourth is missing."""
    made = [picture(tmp_path / f"{number}.png", seed=number) for number in range(5)]
    made[1].write_bytes(made[1].read_bytes()[:300])
    made[3].unlink()
    return made


def described(images: list[Radiograph | ImageError]) -> list[object]:
    return [
        image.code if isinstance(image, ImageError) else image.pixels.tobytes() for image in images
    ]


def test_images_come_in_order_and_the_same_from_child_processes(paths, monkeypatch):
    data = DataConfig()
    here = list(read_squares(paths, data, 32))
    assert isinstance(here[0], Radiograph)
    assert here[0].pixels.shape == (32, 32)
    assert described(here)[1::2] == ["truncated", "file_missing"]
    monkeypatch.setattr(batch, "_WORTH_PROCESSES", 1)
    monkeypatch.setattr(batch, "_READ_AHEAD", 2)
    monkeypatch.setattr(batch, "read_image", lambda *_, **__: pytest.fail("read in this process"))
    assert described(list(read_squares(paths, data, 32))) == described(here)


def test_the_settings_of_the_reader_count(paths, monkeypatch):
    small = DataConfig(max_image_megapixels=0.004)
    assert described(list(read_squares(paths[:1], small, 32))) == ["too_large"]
    monkeypatch.setattr("lmrrg.imaging.polarity.looks_inverted", lambda _: True)
    (turned,) = read_squares(paths[:1], DataConfig(polarity="pixels"), 32)
    assert isinstance(turned, Radiograph)
    assert "polarity_corrected" in turned.warnings


def test_one_image_is_read_as_the_settings_say(paths, monkeypatch):
    assert "looks_inverted" not in read_by_settings(paths[0], DataConfig()).warnings
    monkeypatch.setattr("lmrrg.imaging.polarity.looks_inverted", lambda _: True)
    assert read_by_settings(paths[0], DataConfig()).warnings == ("looks_inverted",)
    with pytest.raises(ImageError, match="too_large"):
        read_by_settings(paths[0], DataConfig(max_image_megapixels=0.004))


def test_all_refused_images_are_named_with_their_codes():
    refused = [
        RefusedImage(Path("/films/a/0.png"), "truncated"),
        RefusedImage(Path("/films/b/0.png"), "not_an_image"),
    ]
    told = str(refusal(refused, 7))
    assert told.startswith("refused_images: 2 of 7 images are refused, in /films: ")
    assert "a/0.png (truncated), b/0.png (not_an_image); data.skip_refused_images" in told


def test_a_long_list_of_refused_images_is_cut():
    refused = [RefusedImage(Path(f"/films/{number}.png"), "truncated") for number in range(500)]
    told = str(refusal(refused, 1000))
    assert "500 of 1000 images" in told
    assert "19.png (truncated) and 480 more" in told
    assert "20.png" not in told
