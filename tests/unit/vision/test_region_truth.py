"""Test the region masks of drawn phantoms on the model's patches."""

from __future__ import annotations

import numpy as np
import pytest
from PIL import Image

from lmrrg.anatomy import REGIONS
from lmrrg.studies import Study, StudyImage
from lmrrg.vision.region_truth import region_truth


def study(tmp_path, findings: list[dict], shape: tuple[int, int] = (256, 256)) -> Study:
    path = tmp_path / "film.png"
    Image.fromarray(np.random.default_rng(0).integers(0, 255, shape, dtype=np.uint8)).save(path)
    return Study("a", "p", (StudyImage(path, "PA"),), truth={"findings": findings})


def test_a_box_covers_a_fraction_of_every_patch(tmp_path):
    box = {"type": "nodule", "side": "left", "zone": "mid", "box": [128, 32, 144, 64]}
    truth = region_truth(study(tmp_path, [box]), 2, 64)
    assert truth is not None
    row = REGIONS.index("left mid lung zone")
    assert np.flatnonzero(truth.known).tolist() == [row]
    expected = np.zeros((8, 8))
    expected[1, 4] = 0.5
    np.testing.assert_allclose(truth.coverage[row, 0].reshape(8, 8), expected, atol=1e-6)
    assert truth.seen.tolist() == [[True] * 64, [False] * 64]


def test_a_film_that_is_not_square_is_fitted_as_the_model_fits_it(tmp_path):
    box = {"type": "cardiomegaly", "box": [0, 0, 128, 256]}
    truth = region_truth(study(tmp_path, [box], (256, 128)), 1, 64)
    assert truth is not None
    shares = truth.coverage[REGIONS.index("cardiac silhouette"), 0].reshape(8, 8)
    np.testing.assert_allclose(shares, np.tile([0, 0, 1, 1, 1, 1, 0, 0], (8, 1)), atol=1e-6)


@pytest.mark.parametrize(
    "findings", [[], [{"type": "edema", "side": "bilateral", "box": [1, 1, 9, 9]}]]
)
def test_no_truth_without_a_box_of_one_region(tmp_path, findings):
    assert region_truth(study(tmp_path, findings), 1, 64) is None
