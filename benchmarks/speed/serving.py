"""Measure the HTTP service beside its own engine.

    python benchmarks/speed/serving.py --checkpoint DIR --film FILE [--film FILE ...]
                                       [--clients 1 8 32] [--seconds 20] [--out FILE.json]

For each film and each number of clients: reports per second and the median and 95th percentile of
their time, with clients that ask again at once, in a process of their own. Beside it, in a process
with the same settings: `Reporter.write` with batches of that size. `overhead_ms` is a report's time
beyond what the engine took for it, at one client. `ready_s` runs from the start of `serve run` to
the first 200 of /readyz. The load of the machine stands beside all of it: on a busy one only the
ratios of one run mean something.
"""

from __future__ import annotations

import argparse
import http.client
import json
import os
import statistics
import subprocess
import sys
import threading
import time
from pathlib import Path
from typing import Any

PORT = 18555
READY_S = 300
_BOUNDARY = b"lmrrg-benchmark"


def form_of(film: bytes) -> bytes:
    """Return a form with one file."""
    head = b'Content-Disposition: form-data; name="files"; filename="film"\r\n\r\n'
    return b"--%b\r\n%b%b\r\n--%b--\r\n" % (_BOUNDARY, head, film, _BOUNDARY)


def load(film: Path, clients: int, seconds: float) -> dict[str, Any]:
    """Ask for reports of one film, each client again as soon as it has its answer."""
    body = form_of(film.read_bytes())
    headers = {"Content-Type": f"multipart/form-data; boundary={_BOUNDARY.decode()}"}
    took: list[float] = []
    beyond: list[float] = []
    failed: list[int] = []
    end = time.monotonic() + seconds

    def client() -> None:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=120)
        while time.monotonic() < end:
            started = time.perf_counter()
            connection.request("POST", "/v1/reports", body, headers)
            answer = connection.getresponse()
            content = answer.read()
            passed = time.perf_counter() - started
            if answer.status != 200:
                failed.append(answer.status)
                continue
            took.append(passed)
            beyond.append(passed - json.loads(content)["seconds"])

    started = time.monotonic()
    threads = [threading.Thread(target=client) for _ in range(clients)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    passed = time.monotonic() - started
    return {
        "reports_per_s": len(took) / passed,
        "p50_ms": 1000 * statistics.median(took),
        "p95_ms": 1000 * statistics.quantiles(took, n=20)[-1],
        "overhead_ms": 1000 * statistics.median(beyond),
        "reports": len(took),
        "failed": len(failed),
    }


def engine_alone(checkpoint: Path, film: Path, batch: int, seconds: float) -> dict[str, Any]:
    """Write reports of one film with the service's reporter and no service."""
    from lmrrg.config.loading import load_config
    from lmrrg.imaging.radiograph import Radiograph
    from lmrrg.imaging.reading import read_image, to_square
    from lmrrg.model.checkpoint import checkpoint_settings
    from serve_app.reporter import Reporter, UploadedStudy
    from serve_app.settings import ServiceSettings

    reporter = Reporter(checkpoint, ServiceSettings.of(load_config()))
    side = checkpoint_settings(checkpoint)[1].image_size
    image = read_image(film.read_bytes())
    square = Radiograph(to_square(image.pixels, side), image.view, image.source)
    studies = [UploadedStudy([square])] * batch
    reporter.write(studies)
    started = time.monotonic()
    written = 0
    while time.monotonic() - started < seconds:
        written += len(reporter.write(studies))
    return {"reports_per_s": written / (time.monotonic() - started)}


def in_child(*arguments: str) -> dict[str, Any]:
    """Run a part of this script in a process of its own and return what it prints last."""
    done = subprocess.run(
        [sys.executable, __file__, *arguments], capture_output=True, text=True, check=True
    )
    return json.loads(done.stdout.strip().splitlines()[-1])


def wait_ready(started: float) -> float:
    """Return the seconds from ``started`` to the first 200 of /readyz."""
    while time.monotonic() - started < READY_S:
        connection = http.client.HTTPConnection("127.0.0.1", PORT, timeout=5)
        try:
            connection.request("GET", "/readyz")
            if connection.getresponse().status == 200:
                return time.monotonic() - started
        except OSError:
            pass
        finally:
            connection.close()
        time.sleep(0.1)
    raise TimeoutError(f"the service was not ready within {READY_S} s")


def measure(checkpoint: Path, films: list[Path], clients: list[int], seconds: float) -> Any:
    """Measure the service, then the engine alone."""
    results: dict[str, Any] = {"load_average": os.getloadavg(), "films": {}}
    started = time.monotonic()
    service = subprocess.Popen(
        [
            str(Path(sys.executable).with_name("serve")),
            "run",
            "serve_app.app:app",
            f"checkpoint={checkpoint}",
            f"port={PORT}",
        ],
        stdout=subprocess.DEVNULL,
    )
    try:
        results["ready_s"] = wait_ready(started)
        for film in films:
            rows = {}
            for count in clients:
                rows[count] = in_child("--load", str(film), str(count), str(seconds))
                print(film.name, count, rows[count], flush=True)
            results["films"][film.name] = {"service": rows}
    finally:
        service.terminate()
        service.wait(60)
    for film in films:
        rows = {}
        for count in clients:
            rows[count] = in_child("--engine", str(checkpoint), str(film), str(count), str(seconds))
            served = results["films"][film.name]["service"][count]["reports_per_s"]
            rows[count]["service_per_engine"] = served / rows[count]["reports_per_s"]
            print(film.name, "engine alone", count, rows[count], flush=True)
        results["films"][film.name]["engine"] = rows
    return results


def main() -> None:
    """Run the benchmark, or one of its parts."""
    if sys.argv[1:2] == ["--load"]:
        film, clients, seconds = sys.argv[2:]
        print(json.dumps(load(Path(film), int(clients), float(seconds))))
        return
    if sys.argv[1:2] == ["--engine"]:
        checkpoint, film, batch, seconds = sys.argv[2:]
        print(json.dumps(engine_alone(Path(checkpoint), Path(film), int(batch), float(seconds))))
        return
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--checkpoint", type=Path, required=True)
    parser.add_argument("--film", type=Path, action="append", required=True)
    parser.add_argument("--clients", type=int, nargs="+", default=[1, 8, 32])
    parser.add_argument("--seconds", type=float, default=20)
    parser.add_argument("--out", type=Path)
    given = parser.parse_args()
    results = measure(given.checkpoint.resolve(), given.film, given.clients, given.seconds)
    text = json.dumps(results, indent=2)
    print(text)
    if given.out is not None:
        given.out.write_text(text + "\n", encoding="utf-8")


if __name__ == "__main__":
    main()
