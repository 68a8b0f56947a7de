"""The upload page in a real browser, on a real service: choose a file, send it, see its report."""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
import requests

from lmrrg.studies import LABELS, Study
from tests.support.browser import CHROMIUM, Page, browser, drive

pytestmark = [
    pytest.mark.browser,
    pytest.mark.cluster,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DevTools address of a headless browser."""
    with browser(tmp_path_factory.mktemp("profile")) as address:
        yield address


@pytest.fixture(scope="module")
def address(served: str) -> str:
    deadline = time.monotonic() + 120
    while not requests.get(f"{served}/readyz", timeout=5).ok:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return served


def shots() -> Path | None:
    """Return the folder for screenshots, if the environment names one."""
    folder = os.environ.get("LMRRG_SCREENSHOTS")
    return Path(folder) if folder else None


@pytest.mark.parametrize("width", [1200, 400])
def test_an_upload_shows_image_report_and_probabilities(
    devtools, address, tiny_studies: list[Study], width
):
    files = [image.path for image in tiny_studies[0].images]

    async def steps(page: Page) -> None:
        assert "For research only" in await page.script("document.body.innerText")
        assert await page.script("document.getElementById('result').hidden")
        await page.choose("#files", files)
        await page.script("document.getElementById('send').click()")
        await page.until("!document.getElementById('result').hidden")
        api = requests.post(
            f"{address}/v1/reports",
            files=[("files", ("x", file.read_bytes())) for file in files],
            timeout=60,
        ).json()
        shown = await page.script("document.getElementById('findings').textContent")
        assert shown.startswith(api["findings"])
        rows = await page.script(
            "[...document.querySelectorAll('#probabilities tr')]"
            ".map(r => [r.cells[0].innerText, r.cells[2].innerText])"
        )
        assert rows == [[name, f"{api['probabilities'][name]:.2f}"] for name in LABELS]
        assert api["model"]["version"] in await page.script(
            "document.getElementById('origin').textContent"
        )
        sizes = await page.until(
            "[...document.images].every(i => i.complete)"
            " && [...document.images].map(i => i.naturalWidth)"
        )
        assert sizes == [256, 256]
        assert await page.script("document.getElementById('region').options.length") == 30
        await page.script(
            "(r => { r.value = '24'; r.dispatchEvent(new Event('change')); })"
            "(document.getElementById('region'))"
        )
        painted = (
            "[...document.querySelectorAll('canvas')].map(c => [c.width, "
            "[...c.getContext('2d').getImageData(0, 0, c.width, c.height).data].some(v => v > 0)])"
        )
        assert await page.script(painted) == [[8, True], [8, True]]
        assert await page.script("document.documentElement.scrollWidth") <= width, (
            "nothing sticks out"
        )
        if folder := shots():
            await page.screenshot(folder / f"serve-{width}.png")

    page = drive(devtools, address, steps, width)
    assert not page.problems
    assert all(url.startswith((address, "data:", "blob:")) for url in page.requested), (
        page.requested
    )


def test_a_refused_file_shows_its_error_and_the_next_upload_works(
    devtools, address, tiny_studies: list[Study], tmp_path
):
    wrong = tmp_path / "notes.png"
    wrong.write_text("not an image")

    async def steps(page: Page) -> None:
        await page.choose("#files", [wrong])
        await page.script("document.getElementById('send').click()")
        message = await page.until("document.querySelector('#status.error')?.textContent")
        assert "not_an_image" in message
        assert await page.script("document.getElementById('result').hidden")
        assert not await page.script("document.getElementById('send').disabled")
        if folder := shots():
            await page.screenshot(folder / "serve-error.png")
        await page.choose("#files", [tiny_studies[1].images[0].path])
        await page.script("document.getElementById('send').click()")
        await page.until("!document.getElementById('result').hidden")
        assert not await page.script("document.querySelector('#status.error')")

    drive(devtools, address, steps)
