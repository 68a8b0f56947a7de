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
def test_a_study_is_read_beside_its_films(devtools, address, tiny_studies: list[Study], width):
    files = [image.path for image in tiny_studies[0].images]
    api = requests.post(
        f"{address}/v1/reports",
        files=[("files", ("x", file.read_bytes())) for file in files],
        timeout=60,
    ).json()

    async def steps(page: Page) -> None:
        assert "For research only" in await page.script("document.body.innerText")
        assert await page.script("document.getElementById('result').hidden")
        await page.choose("#files", files)
        await page.script("document.getElementById('send').click()")
        await page.until("!document.getElementById('result').hidden")
        sentences = "[...document.querySelectorAll('#findings .text')].map(s => s.textContent)"
        assert await page.script(sentences) == [each["text"] for each in api["sentences"]]
        rows = await page.script(
            "[...document.querySelectorAll('#probabilities tr')]"
            ".map(r => [r.cells[0].innerText, r.cells[2].innerText])"
        )
        assert dict(rows) == {name: f"{api['probabilities'][name]:.2f}" for name in LABELS}
        assert [value for _, value in rows] == sorted((v for _, v in rows), reverse=True)
        assert api["model"]["version"] in await page.script(
            "document.getElementById('origin').textContent"
        )
        sizes = "[...document.querySelectorAll('canvas.pixels')].map(c => [c.height, c.width])"
        assert await page.script(sizes) == [[96, 80], [96, 80]]
        assert await page.script("document.getElementById('region').options.length") == 30
        await page.script(
            "(r => { r.value = '24'; r.dispatchEvent(new Event('change')); })"
            "(document.getElementById('region'))"
        )
        painted = (
            "[...document.querySelectorAll('canvas.heat')].map(c => [c.width, "
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


def test_window_and_zoom_follow_mouse_and_keys(devtools, address, tiny_studies: list[Study]):
    film = "document.querySelector('.film')"
    grey = (
        "(c => c.getContext('2d').getImageData(0, 0, c.width, c.height).data"
        ".reduce((a, v) => a + v))"
        "(document.querySelector('canvas.pixels'))"
    )
    level = "document.querySelector('.level').textContent"

    async def key(page: Page, name: str) -> None:
        await page.script(
            f"{film}.dispatchEvent(new KeyboardEvent('keydown', {{ key: '{name}' }}))"
        )

    async def steps(page: Page) -> None:
        await page.choose("#files", [tiny_studies[1].images[0].path])
        await page.script("document.getElementById('send').click()")
        await page.until("document.querySelector('.level')?.textContent")
        plain = await page.script(grey)
        await page.script(
            f"{film}.dispatchEvent(new PointerEvent('pointermove', "
            "{ buttons: 1, movementX: -80, movementY: 0 }))"
        )
        await page.until(f"!{level}.startsWith('W 1.00')")
        assert await page.script(grey) != plain
        await key(page, "0")
        await page.until(f"{level} === 'W 1.00 L 0.50'")
        assert await page.script(grey) == plain
        await key(page, "i")
        await page.until(f"{level}.endsWith('inverted')")
        assert await page.script(grey) != plain
        await key(page, "+")
        assert "scale(1.25)" in await page.script(
            "document.querySelector('.stage').style.transform"
        )

    # Its problems are not looked at: Chromium warns of how often this test reads the pixels back.
    drive(devtools, address, steps)


def test_sentences_of_an_example_are_edited_rejected_and_compared(devtools, address):
    async def steps(page: Page) -> None:
        await page.script("document.querySelector('#examples button').click()")
        await page.until("document.querySelectorAll('#findings li').length > 0")
        await page.script(
            "document.querySelector('#findings .text').textContent = 'Small left pleural effusion.'"
        )
        await page.script(
            "for (const item of [...document.querySelectorAll('#findings li')].slice(1))"
            " item.querySelectorAll('button')[1].click()"
        )
        await page.script(
            "document.getElementById('reference').value = 'Large right pleural effusion.'"
        )
        await page.script("document.getElementById('compare').click()")
        verdict = await page.until("document.querySelector('#comparison td')?.textContent")
        assert verdict == "different"
        text = await page.script("import('/page/report.js').then(report => report.editedText())")
        assert text == "Small left pleural effusion."
        for kind in ("txt", "json", "fhir", "sr"):
            await page.script(f"document.querySelector('[data-export={kind}]').click()")
        assert not await page.script("document.querySelector('#status.error')?.textContent")

    assert not drive(devtools, address, steps).problems


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
