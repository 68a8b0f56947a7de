#!/usr/bin/env python3
"""Take the README's pictures: the run report's top, one example study, and the serving page.

    python scripts/readme_images.py --run runs/demo [--out docs/images]

Needs a finished run on phantoms (`make demo`) and Chromium. The service is started on port 8000
with the run's best PPO model, and stopped again.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import requests

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT))

from lmrrg.run.layout import RunLayout  # noqa: E402
from tests.support.browser import CHROMIUM, Page, browser, drive  # noqa: E402

SERVICE = "http://127.0.0.1:8000"
START_S = 180


@contextmanager
def service(checkpoint: Path) -> Iterator[str]:
    """Serve a checkpoint while the block runs; yield the address."""
    command = [str(Path(sys.executable).with_name("serve")), "run", "serve_app.app:app"]
    environment = os.environ | {"LMRRG_CHECKPOINT": str(checkpoint.resolve())}
    with subprocess.Popen(command, cwd=ROOT, env=environment) as process:
        try:
            _wait_until_ready(process)
            yield SERVICE
        finally:
            process.terminate()


def _wait_until_ready(process: subprocess.Popen[bytes]) -> None:
    deadline = time.monotonic() + START_S
    while process.poll() is None and time.monotonic() < deadline:
        try:
            if requests.get(f"{SERVICE}/readyz", timeout=5).ok:
                return
        except requests.ConnectionError:
            pass  # not listening yet
        time.sleep(1)
    raise SystemExit("the service did not start")


def picture_report(devtools: str, report: Path, out: Path) -> None:
    """Take the top of the run report, and its first example study."""

    async def steps(page: Page) -> None:
        await page.screenshot(out / "run_report.png")
        await page.screenshot(out / "example_study.png", "article.example")

    drive(devtools, report.resolve().as_uri(), steps, width=1200, height=1000)


def picture_service(devtools: str, address: str, film: Path, out: Path) -> None:
    """Take the serving page with the report of one film."""

    async def steps(page: Page) -> None:
        await page.choose("#files", [film.resolve()])
        await page.script("document.getElementById('send').click()")
        await page.until("!document.getElementById('result').hidden")
        await page.until("[...document.images].every(image => image.complete)")
        await page.screenshot(out / "serving_page.png")

    drive(devtools, f"{address}/", steps, width=1200, height=1000)


def main() -> None:
    """Take all pictures."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--run", type=Path, required=True, help="folder of a finished run")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "images")
    args = parser.parse_args()
    if CHROMIUM is None:
        raise SystemExit("Chromium is not installed")
    layout = RunLayout(args.run)
    film = sorted((args.run / "phantoms").glob("*.dcm"))[-1]
    args.out.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory() as profile, browser(Path(profile)) as devtools:
        picture_report(devtools, layout.report, args.out)
        with service(layout.best("ppo")) as address:
            picture_service(devtools, address, film, args.out)


if __name__ == "__main__":
    main()
