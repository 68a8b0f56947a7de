"""SVG that can stand inside an HTML page: drawn by matplotlib, freed of what would touch the page.

An SVG file and an SVG element of a page differ. Inside a page its style rules apply to the whole
page, its ids must differ from those of every other chart, and its colours should be the page's.
"""

from __future__ import annotations

import io
import re
import xml.etree.ElementTree as ET
from collections.abc import Mapping, Sequence, Set
from contextlib import AbstractContextManager

import matplotlib.style
from markupsafe import Markup
from matplotlib.backends.backend_svg import FigureCanvasSVG
from matplotlib.figure import Figure

UNITS_PER_INCH = 72
"""Resolution of matplotlib's SVG; one unit is one CSS pixel where the chart is not scaled."""

SERIES_COLOURS = ("#0b7a75", "#c8641b", "#4f6d8f", "#8e4a9e", "#8a8d2b")
TEXT_COLOUR = "#5a6876"
GRID_COLOUR = "#e8edf1"
ZERO_COLOUR = "#8795a3"
# Almost white and almost black: matplotlib leaves out pure black, which is the default of SVG.
PAPER_COLOUR = "#fffffe"
CURRENT_COLOUR = "#000001"

_PAGE_COLOURS = {
    **{colour: f"var(--c{number})" for number, colour in enumerate(SERIES_COLOURS)},
    TEXT_COLOUR: "var(--soft)",
    GRID_COLOUR: "var(--grid)",
    ZERO_COLOUR: "var(--zero)",
    PAPER_COLOUR: "var(--paper)",
    CURRENT_COLOUR: "currentColor",
}
"""What stands in the page for each colour that the charts are drawn with."""

_CLASS = "class:"
_XLINK = "http://www.w3.org/1999/xlink"
_NO_METADATA = dict.fromkeys(("Creator", "Date", "Format", "Type"))


def gid(css_class: str) -> str:
    """Return the ``gid`` that gives an artist of matplotlib a CSS class in the page."""
    return _CLASS + css_class


def drawing_settings(chart_id: str) -> AbstractContextManager[None]:
    """Return the matplotlib settings under which a chart is both built and rendered.

    The chart depends on nothing else: not on the user's matplotlibrc, the time or a random salt.

    Args:
        chart_id: names the chart within its page; ids inside the SVG are derived from it.
    """
    return matplotlib.style.context(
        [
            "default",
            {
                "svg.fonttype": "none",  # text as text, so that it can be searched and read aloud
                "svg.hashsalt": chart_id,
                # Simplification drops points from long curves that differ little from a line.
                "path.simplify": False,
                "font.size": 11.5,
                "font.sans-serif": ["DejaVu Sans"],
                "lines.solid_capstyle": "round",
            },
        ]
    )


def render(figure: Figure, label: str, tooltips: Mapping[str, Sequence[str]]) -> Markup:
    """Return a figure as an ``<svg>`` element for an HTML page.

    Call it inside :func:`drawing_settings`.

    Args:
        figure: the finished chart.
        label: what a screen reader reads out instead of the chart.
        tooltips: by the CSS class of a curve, the text of each of its marks.
    """
    file = io.StringIO()
    FigureCanvasSVG(figure).print_svg(file, metadata=_NO_METADATA)
    drawn = ET.fromstring(file.getvalue())
    svg = ET.Element("svg", {"viewBox": drawn.get("viewBox", ""), "role": "img"})
    svg.set("aria-label", label)
    svg.set("stroke-linejoin", "round")
    svg.extend(drawn)
    _drop_style_rules(svg)
    _use_html_names(svg)
    _replace_ids(svg, referenced=set(re.findall(r'["(]#(\w+)', file.getvalue())))
    for group in svg.iter("g"):
        texts = tooltips.get(group.get("class", ""), ())
        for mark, text in zip(group.iter("use"), texts, strict=False):
            ET.SubElement(mark, "title").text = text
    # ElementTree has escaped all texts in it.
    return Markup(_with_page_colours(ET.tostring(svg, encoding="unicode")))


def _drop_style_rules(svg: ET.Element) -> None:
    """Remove matplotlib's ``*{stroke-linejoin: round}``, which would apply to the whole page."""
    for definitions in svg.findall("{*}defs"):
        if definitions.find("{*}style") is not None:
            svg.remove(definitions)


def _use_html_names(svg: ET.Element) -> None:
    """Replace XML namespaces by the prefixes that an HTML parser knows without declarations."""
    for element in svg.iter():
        element.tag = element.tag.rpartition("}")[2]
        reference = element.attrib.pop(f"{{{_XLINK}}}href", None)
        if reference is not None:
            element.set("xlink:href", reference)
        # Line breaks between elements only make the page longer.
        element.text = (element.text or "").strip()
        element.tail = None


def _replace_ids(svg: ET.Element, referenced: Set[str]) -> None:
    """Turn the ids of :func:`gid` into classes, and remove those that repeat in every chart.

    matplotlib numbers its groups anew in each figure ("axes_1", "line2d_1"). The ids that the SVG
    refers to are salted hashes, so they differ from chart to chart and stay.
    """
    for element in svg.iter():
        name = element.attrib.pop("id", "")
        if name.startswith(_CLASS):
            element.set("class", name.removeprefix(_CLASS))
        elif name in referenced:
            element.set("id", name)


def _with_page_colours(text: str) -> str:
    for drawn, shown in _PAGE_COLOURS.items():
        text = text.replace(drawn, shown)
    return text
