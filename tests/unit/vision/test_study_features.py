from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from lmrrg.config.tree import Config
from lmrrg.imaging import batch
from lmrrg.imaging.radiograph import ImageError, Radiograph
from lmrrg.imaging.reading import read_image
from lmrrg.studies import Study, StudyImage
from lmrrg.views import VIEWS, choose_views
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.files import FeatureFiles, load_features, load_features_from_images


@pytest.fixture
def config(tiny_config: Config, tmp_path: Path) -> Config:
    return tiny_config.model_copy(
        update={"data": tiny_config.data.model_copy(update={"cache_dir": tmp_path})}
    )


def test_the_first_views_are_frontal():
    images = [
        StudyImage(Path(str(i)), v)
        for i, v in enumerate(("lateral", "unknown", "AP", "lateral", "PA"))
    ]
    assert [str(image.path) for image in choose_views(images, 3)] == ["2", "4", "1"]
    assert len(choose_views(images, 9)) == 5


def test_features_of_a_study_do_not_depend_on_the_others(tiny_studies: list[Study], config: Config):
    together = load_features(tiny_studies[:4], config.data, progress=False)
    alone = load_features(tiny_studies[3:4], replace_cache(config, "other").data, progress=False)
    assert together.patches.dtype == torch.float16
    torch.testing.assert_close(together.select([3]).patches, alone.patches, atol=2e-2, rtol=1e-2)
    assert together.view_mask.tolist() == [[True, True], [True, False], [True, False], [True, True]]
    assert together.views[0].tolist() == [VIEWS.index("PA"), VIEWS.index("lateral")]


def replace_cache(config: Config, name: str) -> Config:
    data = config.data.model_copy(update={"cache_dir": config.data.cache_dir / name})
    return config.model_copy(update={"data": data})


def test_the_cache_is_keyed_by_content(
    tiny_studies: list[Study], config: Config, tmp_path: Path, monkeypatch
):
    first = load_features(tiny_studies[:3], config.data, progress=False)
    entries = sorted(config.data.cache_dir.rglob("*.npy"))
    assert len(entries) == 4  # the first study has two views
    assert not list(config.data.cache_dir.rglob("*.part"))

    moved = tmp_path / "moved.png"
    moved.write_bytes(tiny_studies[1].images[0].path.read_bytes())
    study = replace(tiny_studies[1], images=(StudyImage(moved, "PA"),))
    monkeypatch.setattr(batch, "read_image", lambda *_, **__: pytest.fail("encoded again"))
    again = load_features([study], config.data, progress=False)
    assert torch.equal(again.patches, first.select([1]).patches)


def test_a_changed_image_is_encoded_anew(tiny_studies: list[Study], config: Config, tmp_path: Path):
    before = load_features(tiny_studies[1:2], config.data, progress=False)
    pixels = np.asarray(Image.open(tiny_studies[1].images[0].path))
    changed = tmp_path / "changed.png"
    Image.fromarray(pixels[:, ::-1]).save(changed)
    after = load_features(
        [replace(tiny_studies[1], images=(StudyImage(changed, "PA"),))], config.data, progress=False
    )
    assert (after.patches - before.patches).abs().max() > 0.1


@pytest.mark.parametrize("damage", [b"", b"\x93NUMPY garbage", None])
def test_a_damaged_entry_is_named(tiny_studies: list[Study], config: Config, damage: bytes | None):
    files = FeatureFiles(tiny_studies[1:2], config.data, progress=False)
    (entry,) = config.data.cache_dir.rglob("*.npy")
    if damage is None:
        np.save(entry, np.zeros((3, 3), np.float16))
    else:
        entry.write_bytes(damage)
    with pytest.raises(FeatureError, match=rf"cache_corrupt: .*{entry.name}"):
        files.select([0])


def test_an_unreadable_image_stops_and_leaves_no_entry(
    tiny_studies: list[Study], config: Config, tmp_path: Path
):
    broken = tmp_path / "broken.png"
    broken.write_bytes(tiny_studies[0].images[0].path.read_bytes()[:200])
    with pytest.raises(ImageError):
        load_features(
            [replace(tiny_studies[0], images=(StudyImage(broken, "PA"),))],
            config.data,
            progress=False,
        )
    assert not list(config.data.cache_dir.rglob("*.npy"))


def test_bad_images_are_named_after_all_others_are_encoded(
    tiny_studies: list[Study], config: Config, tmp_path: Path
):
    broken = tmp_path / "broken.png"
    broken.write_bytes(b"no image")
    bad = replace(tiny_studies[0], images=(StudyImage(broken, "PA"),))
    with pytest.raises(
        ImageError, match=r"refused_images: 1 of 3 images .*: broken\.png \(not_an_image\);"
    ):
        load_features([bad, *tiny_studies[1:3]], config.data, progress=False)
    assert len(list(config.data.cache_dir.rglob("*.npy"))) == 2


def test_inverted_images_are_counted_in_the_log(
    tiny_studies: list[Study], config: Config, monkeypatch, caplog
):
    def lying(path: Path, *_, **__) -> Radiograph:
        warnings = ("looks_inverted",) if "0-" in Path(path).name else ()
        return replace(read_image(path), warnings=warnings)

    monkeypatch.setattr(batch, "read_image", lying)
    load_features(tiny_studies[:3], config.data, progress=False)
    (message,) = [record.getMessage() for record in caplog.records]
    assert message == "2 of 4 images look inverted; data.polarity=pixels turns them"


def test_decoder_processes_give_the_same_features(
    tiny_studies: list[Study], config: Config, monkeypatch
):
    here = load_features(tiny_studies[:4], config.data, progress=False)
    monkeypatch.setattr(batch, "_WORTH_PROCESSES", 1)
    monkeypatch.setattr(batch, "_READ_AHEAD", 3)
    monkeypatch.setattr(batch, "read_image", lambda *_, **__: pytest.fail("read in this process"))
    there = load_features(tiny_studies[:4], replace_cache(config, "processes").data, progress=False)
    assert torch.equal(here.patches, there.patches)


def test_radiographs_in_memory_give_the_features_of_their_files(
    tiny_studies: list[Study], config: Config
):
    def radiograph(image: StudyImage) -> Radiograph:
        read = read_image(image.path)
        return Radiograph(read.pixels, image.view, read.source)

    stored = load_features(tiny_studies[:2], config.data, progress=False)
    images = [[radiograph(image) for image in reversed(study.images)] for study in tiny_studies[:2]]
    served = load_features_from_images(images, config.data)
    assert torch.equal(stored.views, served.views)
    assert torch.equal(stored.view_mask, served.view_mask)
    torch.testing.assert_close(stored.patches, served.patches, atol=2e-2, rtol=1e-2)


def test_a_study_without_images_is_refused(config: Config):
    with pytest.raises(FeatureError, match="no_images"):
        load_features_from_images([[]], config.data)
