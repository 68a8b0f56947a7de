"""The run report in a real browser: it renders, fits the screen and loads nothing."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

from lmrrg.config.tree import Config
from lmrrg.run_report.page import write_report
from tests.support.browser import CHROMIUM
from tests.support.evaluated_run import finished_run

pytestmark = [
    pytest.mark.browser,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]

PROBE = """<script>
window.addEventListener("load", () => {
  const sticksOut = e => !e.closest(".scroll, pre, svg")
    && e.getBoundingClientRect().right > innerWidth + 1;
  const wide = [...document.querySelectorAll("section *")].filter(sticksOut)
    .map(e => e.className || e.tagName);
  const small = [...document.querySelectorAll("p, td, th, li, figcaption")]
    .filter(e => e.offsetParent && parseFloat(getComputedStyle(e).fontSize) < 11).length;
  parent.postMessage(JSON.stringify({
    overflow: document.documentElement.scrollWidth - innerWidth,
    wide: wide,
    small: small,
    title: document.title,
    images: [...document.images].filter(i => i.complete && i.naturalWidth > 0).length,
    all: document.images.length,
    requests: performance.getEntriesByType("resource").map(e => e.name)
      .filter(n => !n.startsWith("data:")),
    charts: [...document.querySelectorAll("figure svg")]
      .filter(s => s.getBoundingClientRect().height > 60).length,
    ids: [...document.querySelectorAll("[id]")].map(e => e.id),
    markWidths: [...document.querySelectorAll(".series use")]
      .map(e => e.getBoundingClientRect().width),
    curves: [...document.querySelectorAll(".series > path")].map(e => getComputedStyle(e).stroke),
  }), "*");
});
</script>"""


@pytest.fixture(scope="module")
def page(tmp_path_factory: pytest.TempPathFactory) -> Path:
    run: Config = finished_run(tmp_path_factory.getbasetemp())
    return write_report(run.run_dir, run)


def _chromium(profile: Path, *arguments: str) -> str:
    assert CHROMIUM is not None
    flags = (
        "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
        "--hide-scrollbars --disable-component-update --disable-sync --virtual-time-budget=4000"
    )
    command = [CHROMIUM, *flags.split(), f"--user-data-dir={profile}", *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=90, check=True).stdout


def _probe(page: Path, folder: Path, width: int) -> dict[str, Any]:
    """Return what a script inside the page finds when it is ``width`` pixels wide."""
    (folder / "page.html").write_text(page.read_text() + PROBE)
    frame = f'<iframe src="page.html" style="width:{width}px;height:900px;border:0"></iframe>'
    show = "e => { document.body.textContent = e.data; }"
    listen = f"<script>addEventListener('message', {show});</script>"
    (folder / "frame.html").write_text(f"<!doctype html><body>{frame}{listen}</body>")
    dom = _chromium(folder / "profile", "--dump-dom", f"file://{folder / 'frame.html'}")
    found = re.search(r"<body>(\{.*\})</body>", dom, re.DOTALL)
    assert found, "the page did not answer"
    return json.loads(html.unescape(found[1]))


@pytest.mark.parametrize("width", [1280, 390])
def test_the_page_fits_and_everything_in_it_is_drawn(
    page: Path, tmp_path: Path, width: int
) -> None:
    found = _probe(page, tmp_path, width)
    assert found["overflow"] <= 0
    assert found["wide"] == []
    assert found["small"] == 0
    assert found["images"] == found["all"] == 24
    assert found["charts"] >= 10
    assert found["requests"] == []
    assert found["title"] == "toy – LM-RRG run report"
    assert len(found["ids"]) == len(set(found["ids"])), "charts share no id"
    assert len(found["markWidths"]) > 100
    assert min(found["markWidths"]) > 2, "every reference to a mark finds its shape"
    assert "none" not in found["curves"], "every colour of a curve is defined"
    assert len(set(found["curves"])) >= 3


def test_the_screenshot_shows_a_page(page: Path, tmp_path: Path) -> None:
    picture = tmp_path / "page.png"
    _chromium(
        tmp_path / "profile", f"--screenshot={picture}", "--window-size=1280,1600", f"file://{page}"
    )
    pixels = np.asarray(Image.open(picture).convert("RGB"), dtype=int)
    assert pixels.shape == (1600, 1280, 3)
    dark = (pixels.sum(axis=2) < 200).mean()
    assert 0.005 < dark < 0.3  # text on a light page
    green = ((pixels[..., 1] - pixels[..., 0] > 60) & (pixels[..., 1] > 90)).sum()
    assert green > 500  # the verdict and the marks of the guards
