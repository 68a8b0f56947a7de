"""Test how class logits become probabilities."""

from __future__ import annotations

import json
from dataclasses import asdict

import pytest
import torch

from lmrrg.vision.calibration import Calibration


def test_slope_offset_and_prior_are_applied_in_this_order() -> None:
    prior = tuple(0.1 * number for number in range(14))
    logits = torch.randn(5, 14, generator=torch.Generator().manual_seed(0), dtype=torch.float64)
    expected = 1 / (1 + torch.exp(-(1.5 * (logits - torch.tensor(prior).double()) - 0.25)))
    given = Calibration(1.5, -0.25, prior).probabilities(logits)
    torch.testing.assert_close(given, expected)


def test_the_defaults_take_logits_as_they_are_and_nan_stays() -> None:
    logits = torch.zeros(2, 14)
    logits[1, 3] = torch.nan
    given = Calibration().probabilities(logits)
    assert given[0].tolist() == [0.5] * 14
    assert given[1].isnan().nonzero().flatten().tolist() == [3]


def test_json_keeps_every_digit() -> None:
    calibration = Calibration(1 / 3, 1e-17, tuple(number / 7 for number in range(14)))
    assert Calibration.of(json.loads(json.dumps(asdict(calibration)))) == calibration


@pytest.mark.parametrize(
    "stored",
    [{}, {"slope": 1, "offset": 0, "prior": [0.0]}, {"slope": "x", "offset": 0, "prior": [0] * 14}],
)
def test_what_is_no_calibration_is_refused(stored: dict) -> None:
    with pytest.raises((KeyError, ValueError)):
        Calibration.of(stored)
