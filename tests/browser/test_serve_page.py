"""The upload page in a real browser, on a real service: a file is chosen, sent, and its report is shown."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import os
import shutil
import subprocess
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import websockets

from lmrrg.studies import LABELS, Study

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
pytestmark = [
    pytest.mark.browser,
    pytest.mark.cluster,
    pytest.mark.skipif(CHROMIUM is None, reason="no Chromium is installed"),
]
FLAGS = (
    "--headless --no-sandbox --disable-gpu --no-first-run --disable-background-networking "
    "--disable-component-update --disable-sync --hide-scrollbars --remote-debugging-port=0"
)


class Page:
    """A tab, driven through the DevTools protocol."""

    def __init__(self, socket: Any):
        self._socket, self._numbers = socket, itertools.count(1)
        self.requested: list[str] = []
        self.problems: list[str] = []

    async def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        number = next(self._numbers)
        await self._socket.send(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(await asyncio.wait_for(self._socket.recv(), 120))
            if message.get("id") == number:
                assert "error" not in message, message
                return message["result"]
            self._note(message)

    def _note(self, message: dict[str, Any]) -> None:
        if message["method"] == "Network.requestWillBeSent":
            self.requested.append(message["params"]["request"]["url"])
        elif message["method"] in ("Runtime.exceptionThrown", "Log.entryAdded"):
            self.problems.append(json.dumps(message["params"]))

    async def script(self, expression: str) -> Any:
        result = await self.send(
            "Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True
        )
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    async def until(self, expression: str) -> Any:
        deadline = time.monotonic() + 60
        while not (value := await self.script(expression)):
            assert time.monotonic() < deadline, expression
            await asyncio.sleep(0.1)
        return value

    async def choose(self, selector: str, files: list[Path]) -> None:
        root = await self.send("DOM.getDocument")
        node = await self.send(
            "DOM.querySelector", nodeId=root["root"]["nodeId"], selector=selector
        )
        await self.send(
            "DOM.setFileInputFiles", nodeId=node["nodeId"], files=[str(file) for file in files]
        )

    async def screenshot(self, path: Path) -> None:
        shot = await self.send("Page.captureScreenshot", format="png", captureBeyondViewport=True)
        path.write_bytes(base64.b64decode(shot["data"]))


@pytest.fixture(scope="module")
def devtools(tmp_path_factory: pytest.TempPathFactory) -> Iterator[str]:
    """The DevTools address of a headless browser with a profile of its own."""
    profile = tmp_path_factory.mktemp("profile")
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", "about:blank"]
    with subprocess.Popen(command, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as browser:
        port_file, deadline = profile / "DevToolsActivePort", time.monotonic() + 60
        while not (port_file.is_file() and port_file.read_text().strip()):
            assert browser.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port_file.read_text().split()[0]}"
        browser.terminate()


@pytest.fixture(scope="module")
def address(served: str) -> str:
    deadline = time.monotonic() + 120
    while not requests.get(f"{served}/readyz", timeout=5).ok:
        assert time.monotonic() < deadline
        time.sleep(0.2)
    return served


def drive(devtools: str, address: str, steps, width: int = 1200) -> Page:
    """Open the page in a new tab and run ``steps(page)``."""

    async def run() -> Page:
        tab = requests.put(f"{devtools}/json/new?about:blank", timeout=10).json()
        async with websockets.connect(tab["webSocketDebuggerUrl"], max_size=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
                await page.send(f"{domain}.enable")
            size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": width < 600}
            await page.send("Emulation.setDeviceMetricsOverride", **size)
            await page.send("Page.navigate", url=address)
            await page.until(
                "document.readyState === 'complete' && !!document.getElementById('form')"
            )
            await steps(page)
            return page

    return asyncio.run(run())


def shots() -> Path | None:
    """Where to keep screenshots for people, if they want them."""
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
            "[...document.querySelectorAll('#probabilities tr')].map(r => [r.cells[0].innerText, r.cells[2].innerText])"
        )
        assert rows == [[name, f"{api['probabilities'][name]:.2f}"] for name in LABELS]
        assert api["model"]["version"] in await page.script(
            "document.getElementById('origin').textContent"
        )
        sizes = await page.until(
            "[...document.images].every(i => i.complete) && [...document.images].map(i => i.naturalWidth)"
        )
        assert sizes == [256, 256]
        assert await page.script("document.getElementById('region').options.length") == 30
        await page.script(
            "(r => { r.value = '24'; r.dispatchEvent(new Event('change')); })(document.getElementById('region'))"
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


def test_a_refusal_is_said_and_the_page_goes_on(
    devtools, address, tiny_studies: list[Study], tmp_path
):
    wrong = tmp_path / "notes.png"
    wrong.write_text("not an image")

    async def steps(page: Page) -> None:
        await page.choose("#files", [wrong])
        await page.script("document.getElementById('send').click()")
        said = await page.until("document.querySelector('#status.error')?.textContent")
        assert "not_an_image" in said
        assert await page.script("document.getElementById('result').hidden")
        assert not await page.script("document.getElementById('send').disabled")
        if folder := shots():
            await page.screenshot(folder / "serve-error.png")
        await page.choose("#files", [tiny_studies[1].images[0].path])
        await page.script("document.getElementById('send').click()")
        await page.until("!document.getElementById('result').hidden")
        assert not await page.script("document.querySelector('#status.error')")

    drive(devtools, address, steps)
