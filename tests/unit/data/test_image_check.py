"""The check of all images at an import: what is counted, and what goes with a refused image."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest

from lmrrg.config.data import DataConfig
from lmrrg.data.image_check import check_images
from lmrrg.data.importing import Import, complete_source
from lmrrg.data.source import Source
from lmrrg.studies import Study, StudyError, StudyImage
from tests.support.trees import LARGE, picture

SKIP = DataConfig(skip_refused_images=True)


@pytest.fixture
def imported(tmp_path: Path) -> Import:
    """Return four studies: sound, without its frontal film, without any, and one after that."""

    def film(name: str, view: str) -> StudyImage:
        path = picture(tmp_path / f"{name}.png", seed=len(name))
        if name.startswith("bad"):
            path.write_bytes(b"nothing")
        return StudyImage(path, view)

    studies = [
        Study("1", "1", (film("a", "PA"), film("bad-b", "lateral")), findings=LARGE),
        Study("2", "2", (film("bad-c", "PA"), film("d", "lateral")), findings=LARGE),
        Study("3", "3", (film("bad-e", "unknown"),), findings=LARGE),
        Study("4", "3", (film("f", "AP"),), findings=LARGE, prior="3"),
    ]
    return complete_source(Source("csv", studies), section="findings", seed=0)


def test_refused_images_are_found_and_stay(imported, capsys):
    checked = check_images(imported, DataConfig(), progress=True)
    assert [(image.path.stem, image.code) for image in checked.refused] == [
        ("bad-b", "not_an_image"),
        ("bad-c", "not_an_image"),
        ("bad-e", "not_an_image"),
    ]
    assert checked.studies == imported.studies
    assert "6/6" in capsys.readouterr().err, "a progress bar"
    assert "images read: 6; refused: not_an_image 3; flagged: not_a_chest_film 3" in checked.table()
    assert str(checked.refused[0].path.parent) not in str(checked.audit())


def test_refused_images_and_the_studies_that_need_them_are_left_out(imported):
    checked = check_images(imported, SKIP, progress=False)
    kept = {study.id: study for study in checked.studies}
    assert list(kept) == ["1", "4"]
    assert [image.path.stem for image in kept["1"].images] == ["a"]
    assert kept["4"].prior is None, "its prior went"
    assert checked.dropped["no frontal image that can be read"] == 1
    assert checked.dropped["no image that can be read"] == 1
    assert "not_an_image 3, 3 left out" in checked.table()


def test_nothing_left_is_told(imported):
    hopeless = replace(imported, studies=[study for study in imported.studies if study.id in "23"])
    with pytest.raises(StudyError, match="no_studies"):
        check_images(hopeless, SKIP, progress=False)


def test_flags_are_counted_and_a_shared_file_is_read_once(imported, monkeypatch):
    monkeypatch.setattr("lmrrg.imaging.polarity.looks_inverted", lambda _: True)
    twice = replace(imported, studies=[*imported.studies, replace(imported.studies[0], id="9")])
    checked = check_images(twice, DataConfig(), progress=False)
    assert checked.image_check["images"] == 6
    assert checked.image_check["flagged"] == {"looks_inverted": 3}
    assert "flagged: looks_inverted 3" in checked.table()
