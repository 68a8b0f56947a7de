"""Charts draw every finite point where it belongs, and heat maps cover the right patch."""

from __future__ import annotations

import base64
import io
import math
import re
import xml.etree.ElementTree as ET
from importlib import resources

import matplotlib
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from lmrrg.run_report.charts import HEIGHT, MAX_POINTS, WIDTH, Series, interval_chart, line_chart
from lmrrg.run_report.images import SIDE, heat_map_uri, peak_over_uniform, radiograph_uri

NUMBERS = st.one_of(st.floats(-1e6, 1e6), st.just(math.nan), st.just(0.0))


def _parse(svg: str) -> ET.Element:
    """Parse an SVG of a page, whose HTML parser knows the prefix ``xlink`` by itself."""
    return ET.fromstring(
        str(svg).replace("<svg ", '<svg xmlns:xlink="http://www.w3.org/1999/xlink" ', 1)
    )


def _groups(svg: str, css_class: str) -> list[ET.Element]:
    return [
        group for group in _parse(svg).iter("g") if css_class in (group.get("class") or "").split()
    ]


def _points(group: ET.Element) -> list[tuple[str, float, float]]:
    """Return the commands of the line of a group: M moves the pen, L draws."""
    path = group.find("path")
    commands = [] if path is None else re.findall(r"([ML]) (\S+) (\S+)", path.get("d") or "")
    return [(command, float(x), float(y)) for command, x, y in commands]


def _curves(svg: str) -> list[list[tuple[str, float, float]]]:
    return [_points(group) for group in _groups(svg, "series")]


@settings(max_examples=80, deadline=None)
@given(values=st.lists(st.lists(NUMBERS, min_size=1, max_size=20), min_size=1, max_size=3))
def test_every_finite_point_is_inside_the_chart_and_in_order(values: list[list[float]]) -> None:
    svg = line_chart(
        [Series(f"s{i}", range(len(y)), y) for i, y in enumerate(values)], "step", "loss", "chart"
    )
    for y, path in zip(values, _curves(svg), strict=True):
        finite = [value for value in y if math.isfinite(value)]
        assert len(path) == len(finite)
        assert all(0 <= px <= WIDTH and 0 <= py <= HEIGHT for _, px, py in path)
        for (_, _, one), (_, _, two), a, b in zip(path, path[1:], finite, finite[1:], strict=False):
            assert (
                one >= two - 0.11 if b >= a else one <= two + 0.11
            )  # higher values are drawn higher


def test_a_nan_interrupts_the_line() -> None:
    series = Series("a", range(5), [1, 2, math.nan, 3, 4])
    (path,) = _curves(line_chart([series], "step", "loss", "chart"))
    assert [kind for kind, _, _ in path] == ["M", "L", "M", "L"]


def test_long_curves_are_thinned_to_means() -> None:
    series = Series("a", range(5000), [7.0] * 5000)
    (path,) = _curves(line_chart([series], "step", "loss", "chart"))
    assert len(path) == MAX_POINTS
    assert len({y for _, _, y in path}) == 1


def test_names_and_labels_are_escaped() -> None:
    svg = line_chart([Series("<b>&", [0, 1], [0, 1])], "<i>", '"x" in $', "chart")
    assert {'"x" in $', "<i>"} <= {text.text for text in _parse(svg).iter("text")}
    assert "<b>" not in svg
    assert "<i>" not in svg


def test_marks_carry_their_values_and_none_is_at_a_nan() -> None:
    series = Series("loss", range(4), [1, math.nan, -2.5, 3])
    (group,) = _groups(line_chart([series], "step", "loss", "chart"), "s0")
    marks = list(group.iter("use"))
    assert [mark.findtext("title") for mark in marks] == [
        "loss at 0: 1",
        "loss at 2: −2.5",
        "loss at 3: 3",
    ]
    drawn = [(float(mark.get("x") or 0), float(mark.get("y") or 0)) for mark in marks]
    assert drawn == [(x, y) for _, x, y in _points(group)]


def _two_charts(chart_ids: tuple[str, str]) -> list[str]:
    series = [Series("a", [0, 1, 2], [3, 1, 2])]
    return [line_chart(series, "step", "loss", chart_id) for chart_id in chart_ids]


def test_a_chart_is_the_same_every_time_whatever_the_users_own_settings() -> None:
    one, other = _two_charts(("same", "same"))
    with matplotlib.rc_context({"font.size": 30, "axes.grid": True, "svg.fonttype": "path"}):
        assert one == other == _two_charts(("same", "same"))[0]


def test_charts_of_one_page_share_no_id_and_every_reference_has_its_target() -> None:
    ids = []
    for svg in _two_charts(("one", "two")):
        own = [element.get("id") for element in _parse(svg).iter() if element.get("id")]
        assert set(re.findall(r'["(]#(\w+)', svg)) == set(own)
        ids += own
    assert ids
    assert len(ids) == len(set(ids))


def test_a_chart_brings_no_rules_no_metadata_and_no_colours_of_its_own() -> None:
    charts = [*_two_charts(("one", "two")), interval_chart(-0.3, -0.4, 0.1, "difference", "three")]
    for svg in charts:
        assert not {"style", "metadata", "script", "image"} & {e.tag for e in _parse(svg).iter()}
        assert "xmlns" not in svg
        colours = set(re.findall(r"(?:fill|stroke): ([^;\"]+)", svg))
        assert all(c in ("none", "currentColor") or c.startswith("var(--") for c in colours)


def test_every_colour_of_a_chart_is_defined_by_the_page() -> None:
    css = (resources.files("lmrrg.run_report") / "templates" / "report.css").read_text()
    curves = [Series(str(number), [0, 1], [-number, number]) for number in range(1, 6)]
    svg = line_chart(curves, "step", "loss", "a") + interval_chart(0.1, 0.0, 0.2, "x", "b")
    variables = set(re.findall(r"var\((--\w+)\)", svg))
    assert len(variables) == 9
    assert all(f"{variable}:" in css for variable in variables)


@pytest.mark.parametrize("values", [[3e-6, 5e-6], [2e7, 4e7]])
def test_ticks_of_tiny_and_huge_values_are_short_and_the_axis_says_the_power(
    values: list[float],
) -> None:
    svg = line_chart([Series("a", [0, 1], values)], "step", "parity", "chart")
    texts = [text.text or "" for text in _parse(svg).iter("text")]
    ticks = [text for text in texts if not re.search("step|parity", text)]
    assert len(ticks) > 4
    assert max(len(tick) for tick in ticks) <= 5
    assert "×10" in svg


def test_the_interval_lies_on_its_side_of_zero() -> None:
    svg = interval_chart(-0.3, -0.4, -0.2, "difference", "chart")
    (interval,) = _groups(svg, "range")
    (zero,) = _groups(svg, "zero")
    (dot,) = _groups(svg, "dot")
    (mark,) = dot.iter("use")
    (_, low, _), (_, high, _) = _points(interval)
    assert low < float(mark.get("x") or 0) < high < _points(zero)[0][1]


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
