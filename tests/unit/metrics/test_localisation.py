"""Region localisation against counts by hand, and its invariances."""

from __future__ import annotations

import numpy as np
import pytest

from lmrrg.metrics.localisation import (
    RegionTruth,
    localise,
    localise_all,
    region_means,
    study_means,
)


def truth(coverage: np.ndarray, views: int = 1) -> RegionTruth:
    seen = np.zeros(coverage.shape[1:], bool)
    seen[:views] = True
    return RegionTruth(coverage.astype(np.float32), seen)


def test_scores_by_hand():
    coverage = np.array([[[1, 0.5, 0, 0]], [[0, 0, 0, 0.25]]])
    attention = np.array([[[0.1, 0.6, 0.2, 0.1]], [[0.7, 0.1, 0.1, 0.1]]])
    scores = localise(attention, truth(coverage))
    np.testing.assert_allclose(scores["mass"], [0.1 + 0.3, 0.025], rtol=1e-6)
    np.testing.assert_allclose(scores["mass_chance"], [1.5 / 4, 0.25 / 4])
    np.testing.assert_allclose(scores["pointing"], [1, 0])
    np.testing.assert_allclose(scores["pointing_chance"], [0.5, 0.25])


def test_a_uniform_map_has_the_mass_of_chance_and_random_maps_point_by_chance():
    rng = np.random.default_rng(0)
    coverage = rng.random((5, 2, 16)) * (rng.random((5, 2, 16)) < 0.3)
    where = truth(coverage, views=2)
    uniform = localise(np.full(coverage.shape, 1 / 32), where)
    np.testing.assert_allclose(uniform["mass"], uniform["mass_chance"])
    hits = np.mean(
        [localise(rng.random(coverage.shape), where)["pointing"] for _ in range(3000)], axis=0
    )
    np.testing.assert_allclose(hits, uniform["pointing_chance"], atol=0.04)


def test_views_that_a_study_lacks_have_no_influence():
    rng = np.random.default_rng(1)
    coverage, attention = rng.random((3, 2, 4)), rng.random((3, 2, 4))
    one = localise(attention, truth(coverage))
    poisoned, elsewhere = attention.copy(), coverage.copy()
    poisoned[:, 1], elsewhere[:, 1] = np.nan, 1.0
    other = localise(poisoned, truth(elsewhere))
    for name, values in one.items():
        np.testing.assert_array_equal(values, other[name])


def test_unknown_regions_and_studies_are_left_out_of_every_mean():
    coverage = np.zeros((2, 1, 4))
    coverage[0, 0, 0] = 1
    attention = np.full((3, 2, 1, 4), 0.25)
    nowhere = truth(np.zeros((2, 1, 4)))
    scores = localise_all(attention, [truth(coverage), None, nowhere])
    assert scores["mass"].shape == (1, 2)
    table = region_means(scores, ("here", "nowhere"))
    assert set(table) == {"here", "mean"}
    assert table["here"] == pytest.approx(
        {"studies": 1, "mass": 0.25, "mass_chance": 0.25, "pointing": 1.0, "pointing_chance": 0.25}
    )
    np.testing.assert_allclose(study_means(scores)["mass"], [0.25])
    assert localise_all(attention, [None, None, None]) == {}
