"""A headless Chromium, driven through the DevTools protocol."""

from __future__ import annotations

import asyncio
import base64
import itertools
import json
import shutil
import subprocess
import time
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import requests
import websockets

CHROMIUM = (
    shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
)
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

    async def screenshot(self, path: Path, selector: str | None = None) -> None:
        """Write a picture of the view, or of the first element that the selector finds."""
        clip = {}
        if selector is not None:
            box = await self.script(
                f"(b => [b.x + scrollX, b.y + scrollY, b.width, b.height])"
                f"(document.querySelector({selector!r}).getBoundingClientRect())"
            )
            names = ("x", "y", "width", "height")
            clip = {"clip": {**dict(zip(names, box, strict=True)), "scale": 1}}
        shot = await self.send(
            "Page.captureScreenshot", format="png", captureBeyondViewport=bool(clip), **clip
        )
        path.write_bytes(base64.b64decode(shot["data"]))


@contextmanager
def browser(profile: Path) -> Iterator[str]:
    """Run a headless browser with a profile of its own; yield its DevTools address."""
    assert CHROMIUM is not None
    command = [CHROMIUM, *FLAGS.split(), f"--user-data-dir={profile}", "about:blank"]
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen(command, **quiet) as process:
        port_file = profile / "DevToolsActivePort"
        deadline = time.monotonic() + 60
        while not (port_file.is_file() and port_file.read_text().strip()):
            assert process.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        yield f"http://127.0.0.1:{port_file.read_text().split()[0]}"
        process.terminate()


def drive(
    devtools: str,
    address: str,
    steps: Callable[[Page], Awaitable[None]],
    width: int = 1200,
    height: int = 900,
) -> Page:
    """Open ``address`` in a new tab and run ``steps(page)`` once it has loaded."""

    async def run() -> Page:
        tab = requests.put(f"{devtools}/json/new?about:blank", timeout=10).json()
        async with websockets.connect(tab["webSocketDebuggerUrl"], max_size=None) as socket:
            page = Page(socket)
            for domain in ("Page", "Runtime", "Network", "Log", "DOM"):
                await page.send(f"{domain}.enable")
            size = {"width": width, "height": height, "deviceScaleFactor": 1}
            is_phone = width < 600
            await page.send("Emulation.setDeviceMetricsOverride", **size, mobile=is_phone)
            await page.send("Page.navigate", url=address)
            await page.until(
                f"document.readyState === 'complete' && location.href.startsWith({address!r})"
            )
            await steps(page)
            return page

    return asyncio.run(run())
