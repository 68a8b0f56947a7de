"""RadCliQ's closed forms against published rows and against the values of its corners."""

from __future__ import annotations

import numpy as np
import pytest

from lmrrg.metrics.radcliq import WORST_V1, radcliq_v0, radcliq_v1
from tests.support.published.rexrank_rows import ROWS, Row

PUBLISHED_ROUNDING = 0.0025  # the rows print three decimals of each part


@pytest.mark.parametrize("row", ROWS, ids=lambda row: f"{row.data}-{row.system}")
def test_published_rows_reproduce(row: Row) -> None:
    v1 = radcliq_v1(row.radgraph, row.bertscore, row.semb)
    v0 = radcliq_v0(row.radgraph, row.bertscore, row.semb, row.bleu2)
    assert v1 == pytest.approx(row.radcliq_v1, abs=PUBLISHED_ROUNDING)
    assert v0 == pytest.approx(row.radcliq_v0, abs=PUBLISHED_ROUNDING)


def test_all_fifty_rows_are_there() -> None:
    assert len(ROWS) == 50


@pytest.mark.parametrize(
    ("radgraph", "others", "v0", "v1"),
    [(1.0, 1.0, -0.24213, -1.44069), (0.5, 1.0, None, -0.818082), (0.0, 0.0, 5.51616, 2.45014)],
    ids=["identical", "identical without relations", "nothing in common"],
)
def test_corners(radgraph: float, others: float, v0: float | None, v1: float) -> None:
    assert radcliq_v1(radgraph, others, others) == pytest.approx(v1, abs=1e-5)
    if v0 is not None:
        assert radcliq_v0(radgraph, others, others, others) == pytest.approx(v0, abs=1e-5)


def test_slopes_are_the_known_ones() -> None:
    slopes = [WORST_V1 - radcliq_v1(*corner) for corner in np.eye(3)]
    assert slopes == pytest.approx([1.245216, 1.650845, 0.994772], abs=1e-6)


def test_arrays_and_missing_values() -> None:
    scores = radcliq_v1(np.array([0.2, np.nan]), np.array([0.1, 0.5]), np.array([0.3, 0.5]))
    assert scores[0] == radcliq_v1(0.2, 0.1, 0.3)
    assert np.isnan(scores[1])


def test_v0_rewards_a_low_bleu2() -> None:
    assert radcliq_v0(0.5, 0.5, 0.5, 0.0) < radcliq_v0(0.5, 0.5, 0.5, 1.0)
