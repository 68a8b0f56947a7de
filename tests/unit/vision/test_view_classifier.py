"""Test views by pixels: missing tags are filled in, wrong ones counted and never changed."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
from safetensors.numpy import save_file

from lmrrg.config.data import DataConfig
from lmrrg.data.audit import audit_table
from lmrrg.data.importing import complete_source
from lmrrg.data.source import Source
from lmrrg.studies import Study, StudyImage
from lmrrg.vision import view_classifier as views
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.view_classifier import ViewClassifier, checked_views, packaged_classifier


def test_a_classifier_learns_a_separable_view_and_is_read_from_disk(tmp_path):
    rng = np.random.default_rng(0)
    lateral = rng.random(200) < 0.4
    seen = rng.normal(size=(200, 12)).astype(np.float32)
    seen[:, 3] += 8 * lateral
    classifier = ViewClassifier.fit(seen, lateral)
    assert ((classifier.lateral_probability(seen) > 0.5) == lateral).mean() > 0.97
    classifier.save(tmp_path / "views.safetensors", "a test")
    again = ViewClassifier.load(tmp_path / "views.safetensors")
    np.testing.assert_allclose(
        again.lateral_probability(seen), classifier.lateral_probability(seen), rtol=1e-5
    )


def test_weights_of_another_encoder_are_refused(tmp_path):
    save_file(
        {"weight": np.zeros(3, np.float32)},
        tmp_path / "w.safetensors",
        metadata={"encoder": "another"},
    )
    with pytest.raises(FeatureError, match="views_encoder"):
        ViewClassifier.load(tmp_path / "w.safetensors")


def test_the_packaged_weights_fit_the_encoder_and_are_small():
    assert packaged_classifier().weight.shape == (4 * 624,)
    assert Path(views.__file__).with_name("views.safetensors").stat().st_size < 100_000


@pytest.fixture
def seen(monkeypatch):
    """Replace the classifier: frontal, lateral, unknown, lateral, frontal."""
    sides = iter([["frontal", "lateral", "unknown"], ["lateral", "frontal"]])
    monkeypatch.setattr(views, "views_by_pixels", lambda studies, config, progress: list(sides))


def films(*tags) -> tuple[StudyImage, ...]:
    return tuple(StudyImage(Path(f"{number}.png"), tag) for number, tag in enumerate(tags))


def test_missing_views_are_filled_in_and_wrong_tags_are_counted(seen):
    one = Study("1", "1", films("unknown", "unknown", "unknown"), findings="clear")
    two = Study("2", "2", films("PA", "lateral"), findings="clear")
    checked, counts = checked_views([one, two], DataConfig(), progress=False)
    assert [image.view for image in checked[0].images] == [
        "frontal",
        "unknown",
        "lateral",
    ]  # frontal first
    assert checked[1].images == two.images, "a tag is never changed"
    assert counts == {
        "images": 5,
        "filled": 2,
        "not_clear": 1,
        "tag_frontal_pixels_lateral": 1,
        "tag_lateral_pixels_frontal": 1,
    }
    imported = complete_source(Source("csv", [one, two]), section="findings", seed=0)
    assert "disagree with the pixels" not in imported.table()
    table = audit_table(replace(imported, views=counts).audit())
    assert (
        "tags that disagree with the pixels: 2 of 5 (1 tagged frontal, 1 tagged lateral)" in table
    )
