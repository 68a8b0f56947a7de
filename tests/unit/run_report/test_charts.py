"""Charts draw every finite point in its place, and images keep their heat where it belongs."""

from __future__ import annotations

import base64
import io
import math
import re
import xml.etree.ElementTree as ET

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lmrrg.run_report.charts import HEIGHT, MOST_POINTS, WIDTH, Series, interval_chart, line_chart
from lmrrg.run_report.images import SIDE, heat_map_uri, peak_over_uniform, radiograph_uri

NUMBERS = st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.just(0.0))
SVG = "{http://www.w3.org/2000/svg}"


def _parse(svg: str) -> ET.Element:
    return ET.fromstring(str(svg).replace("<svg ", '<svg xmlns="http://www.w3.org/2000/svg" ', 1))


def _paths(svg: str) -> list[list[tuple[str, float, float]]]:
    return [
        [
            (k, float(x), float(y))
            for k, x, y in re.findall(r"([ML])(\S+) ([-\d.]+)", path.get("d") or "")
        ]
        for path in _parse(svg).iter(f"{SVG}path")
    ]


@settings(max_examples=80, deadline=None)
@given(values=st.lists(st.lists(NUMBERS, min_size=1, max_size=20), min_size=1, max_size=3))
def test_every_finite_point_is_inside_the_chart_and_in_order(values: list[list[float]]) -> None:
    svg = line_chart(
        [Series(f"s{i}", range(len(y)), y) for i, y in enumerate(values)], "step", "loss"
    )
    for y, path in zip(values, _paths(svg), strict=True):
        finite = [value for value in y if math.isfinite(value)]
        assert len(path) == len(finite)
        assert all(0 <= px <= WIDTH and 0 <= py <= HEIGHT for _, px, py in path)
        for (_, _, one), (_, _, two), a, b in zip(path, path[1:], finite, finite[1:], strict=False):
            assert (
                one >= two - 0.11 if b >= a else one <= two + 0.11
            )  # higher values are drawn higher


def test_a_nan_interrupts_the_line() -> None:
    (path,) = _paths(line_chart([Series("a", range(5), [1, 2, math.nan, 3, 4])], "step", "loss"))
    assert [kind for kind, _, _ in path] == ["M", "L", "M", "L"]


def test_long_curves_are_thinned_to_means() -> None:
    (path,) = _paths(line_chart([Series("a", range(5000), [7.0] * 5000)], "step", "loss"))
    assert len(path) == MOST_POINTS
    assert len({y for _, _, y in path}) == 1


def test_names_and_labels_are_escaped() -> None:
    svg = line_chart([Series("<b>&", [0, 1], [0, 1])], "<i>", '"x"')
    _parse(svg)
    assert "<b>" not in svg
    assert "<i>" not in svg


@pytest.mark.parametrize("values", [[3e-6, 5e-6], [2e7, 4e7]])
def test_ticks_of_tiny_and_huge_values_are_short_and_the_axis_says_the_power(
    values: list[float],
) -> None:
    svg = line_chart([Series("a", [0, 1], values)], "step", "parity")
    ticks = [
        text.text or "" for text in _parse(svg).iter(f"{SVG}text") if text.get("class") == "tick"
    ]
    assert max(len(tick) for tick in ticks) <= 5
    assert "×10" in svg


def test_the_interval_lies_on_its_side_of_zero() -> None:
    svg = _parse(interval_chart(-0.3, -0.4, -0.2, "difference"))
    x = {line.get("class"): float(line.get("x2") or 0) for line in svg.iter(f"{SVG}line")}
    (dot,) = svg.iter(f"{SVG}circle")
    assert float(dot.get("cx") or 0) < x["range"] < x["zero"]


def _pixels(uri: str) -> np.ndarray:
    data = base64.b64decode(uri.removeprefix("data:image/jpeg;base64,"))
    return np.asarray(Image.open(io.BytesIO(data)), dtype=float)


@pytest.mark.parametrize("patch", [0, 7, 27, 56, 63])
def test_heat_is_drawn_over_its_own_patch(patch: int) -> None:
    pixels = np.full((256, 256), 0.5, np.float32)
    attention = np.zeros(64)
    attention[patch] = 1
    changed = np.abs(
        _pixels(heat_map_uri(pixels, attention)) - _pixels(radiograph_uri(pixels))
    ).sum(axis=2)
    row, column = np.unravel_index(changed.argmax(), changed.shape)
    cell = SIDE / 8
    assert abs(row - (patch // 8 + 0.5) * cell) <= cell
    assert abs(column - (patch % 8 + 0.5) * cell) <= cell


def test_heat_follows_the_padding_of_an_image_that_is_not_square() -> None:
    pixels = np.linspace(0, 1, 200 * 100, dtype=np.float32).reshape(200, 100)
    shown = _pixels(radiograph_uri(pixels))
    assert shown.shape == (SIDE, SIDE, 3)
    assert shown[:, : SIDE // 8].max() < 8  # black at the sides, as the model sees it


def test_a_flat_map_is_drawn_without_heat_and_has_peak_one() -> None:
    pixels = np.random.default_rng(0).random((64, 64)).astype(np.float32)
    flat = np.full(64, 1 / 64)
    assert heat_map_uri(pixels, flat) == radiograph_uri(pixels)
    assert peak_over_uniform(flat) == pytest.approx(1.0)
    with pytest.raises(ValueError, match="no square grid"):
        heat_map_uri(pixels, np.ones(60))
