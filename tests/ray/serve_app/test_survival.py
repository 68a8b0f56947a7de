"""A service with two replicas: one is killed under load, and its weights are changed under load."""

from __future__ import annotations

import os
import signal
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import psutil
import pytest
import requests

from lmrrg.config.loading import save_config
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import save_checkpoint
from serve_app.reporter import model_info
from tests.conftest import free_port
from tests.support.engine_oracle import other_weights

pytestmark = pytest.mark.cluster
CLIENTS = 8


@pytest.fixture(scope="module")
def settings(tiny_config: Config) -> Path:
    path = tiny_config.run_dir / "survival.yaml"
    serve = tiny_config.serve.model_copy(update={"replicas": 2, "port": free_port()})
    save_config(tiny_config.model_copy(update={"serve": serve}), path)
    return path


@pytest.fixture(scope="module")
def address(ray_cluster: Path, tiny_checkpoint: Path, settings: Path) -> Iterator[str]:
    from ray import serve

    from serve_app.app import app

    application = app({"checkpoint": str(tiny_checkpoint), "config": str(settings)})
    serve.run(application, name="reports")
    port = serve.context._get_global_client().http_config.port
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def replicas() -> list[int]:
    """Return the process ids of the living replicas, which this process's Ray has started."""
    started = psutil.Process().children(recursive=True)
    return [each.pid for each in started if "ray::ServeReplica" in " ".join(each.cmdline())]


def under_load(address: str, film: bytes, disturb: Callable[[], None]) -> list[requests.Response]:
    """Disturb the service while eight clients ask for reports; return all answers."""
    stop = threading.Event()
    answers: list[requests.Response] = []

    def client() -> None:
        with requests.Session() as session:
            while not stop.is_set():
                files = [("files", ("film", film))]
                answers.append(session.post(f"{address}/v1/reports", files=files, timeout=120))

    with ThreadPoolExecutor(CLIENTS) as pool:
        clients = [pool.submit(client) for _ in range(CLIENTS)]
        while len(answers) < 2 * CLIENTS:
            time.sleep(0.05)
        disturb()
        before = len(answers)
        while len(answers) < before + 6 * CLIENTS:
            time.sleep(0.05)
        stop.set()
    for one in clients:
        one.result()
    return answers


@pytest.fixture(scope="module")
def film(tiny_studies) -> bytes:
    return tiny_studies[1].images[0].path.read_bytes()


def test_new_weights_come_without_a_dropped_request(
    address, film, settings, tiny_checkpoint, tmp_path
):
    from ray import serve

    from serve_app.app import app

    later = tmp_path / "later"
    save_checkpoint(other_weights(tiny_checkpoint, seed=3), later, {"stage": "later"})
    running = sorted(replicas())
    versions = {model_info(path).version for path in (tiny_checkpoint, later)}

    def change() -> None:
        serve.run(app({"checkpoint": str(later), "config": str(settings)}), name="reports")

    answers = under_load(address, film, change)
    assert Counter(answer.status_code for answer in answers) == {200: len(answers)}
    assert {answer.json()["model"]["version"] for answer in answers} == versions
    assert answers[-1].json()["model"]["version"] == model_info(later).version
    assert sorted(replicas()) == running, "no replica was started anew"


def test_a_killed_replica_costs_no_request(address, film):
    victim = replicas()[0]
    answers = under_load(address, film, lambda: os.kill(victim, signal.SIGKILL))
    assert Counter(answer.status_code for answer in answers) == {200: len(answers)}


def test_with_no_replica_left_errors_have_a_code_and_health_answers_soon(address, film):
    for pid in replicas():
        os.kill(pid, signal.SIGKILL)
    started = time.monotonic()
    health = requests.get(f"{address}/healthz", timeout=30)
    assert time.monotonic() - started < 2
    assert health.status_code in (200, 503)
    assert health.headers["content-type"] == "application/json"
    answer = requests.post(f"{address}/v1/reports", files=[("files", ("film", film))], timeout=120)
    if answer.status_code != 200:
        assert answer.status_code == 503
        assert answer.json()["error"]["code"] in ("replica_lost", "not_ready", "busy")
        assert answer.headers["retry-after"]
