"""Submit both training stages with ``ray job submit``, as in the README, to a head with a token."""

from __future__ import annotations

import os
import secrets
import shutil
import socket
import subprocess
import sys
import tempfile
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

from lmrrg.config.loading import save_config
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import read_checkpoint_config
from lmrrg.run.tracking import read_metrics
from tests.support.paths import ROOT
from tests.support.ppo.settings import ppo_config

RAY = str(Path(sys.executable).parent / "ray")


@dataclass(frozen=True)
class Head:
    """Start a head; yield the environment of somebody who has its token."""

    address: str
    environment: dict[str, str]

    def submit(self, *entrypoint: str, token: bool = True) -> subprocess.CompletedProcess[str]:
        """Submit from the root of the repository and wait for the end."""
        known = self.environment.items()
        environment = {
            name: value for name, value in known if token or not name.startswith("RAY_AUTH_")
        }
        command = [
            RAY,
            "job",
            "submit",
            "--address",
            self.address,
            "--working-dir",
            ".",
            "--",
            *entrypoint,
        ]
        return subprocess.run(
            command,
            cwd=ROOT,
            env=environment,
            capture_output=True,
            text=True,
            timeout=440,
            check=False,
        )


@pytest.fixture(scope="module")
def head() -> Iterator[Head]:
    """Run ``ray start --head`` with token authentication and its own ports and folder.

    Only its own processes are stopped.
    """
    folder = Path(tempfile.mkdtemp(prefix="head", dir="/tmp"))  # short: sockets lie in it
    token = folder / "token"
    token.write_text(secrets.token_hex(32))
    token.chmod(0o600)
    kept = {name: value for name, value in os.environ.items() if not name.startswith("RAY_")}
    environment = kept | {
        "HOME": str(folder),
        "PATH": f"{Path(sys.executable).parent}{os.pathsep}{os.environ['PATH']}",
        "RAY_AUTH_MODE": "token",
        "RAY_AUTH_TOKEN_PATH": str(token),
        "RAY_TMPDIR": str(folder),
        "RAY_GRACEFUL_SHUTDOWN_DRAIN_TIMEOUT_S": "0",
    }
    port, dashboard, agent = free_ports(3)
    command = [
        RAY,
        "start",
        "--head",
        "--block",
        "--disable-usage-stats",
        f"--port={port}",
        "--num-cpus=4",
    ]
    command += [
        f"--dashboard-port={dashboard}",
        f"--dashboard-agent-listen-port={agent}",
        f"--temp-dir={folder}",
    ]
    command += ["--include-dashboard=true", f"--object-store-memory={200 << 20}"]
    with (folder / "head.log").open("wb") as log:
        process = subprocess.Popen(
            command, env=environment, stdout=log, stderr=log, start_new_session=True
        )
    address = f"http://127.0.0.1:{dashboard}"
    try:
        wait_until_it_answers(address, token.read_text(), process, folder / "head.log")
        yield Head(address, environment)
    finally:
        process.terminate()  # it ends its own processes
        process.wait(timeout=60)
        shutil.rmtree(folder, ignore_errors=True)


def free_ports(count: int) -> list[int]:
    probes = [socket.socket() for _ in range(count)]
    for probe in probes:
        probe.bind(("127.0.0.1", 0))
    ports = [probe.getsockname()[1] for probe in probes]
    for probe in probes:
        probe.close()
    return ports


def wait_until_it_answers(
    address: str, token: str, process: subprocess.Popen[bytes], log: Path
) -> None:
    request = urllib.request.Request(
        f"{address}/api/version", headers={"Authorization": f"Bearer {token}"}
    )
    deadline = time.monotonic() + 120
    while time.monotonic() < deadline and process.poll() is None:
        try:
            urllib.request.urlopen(request, timeout=5).close()
            return
        except (urllib.error.URLError, ConnectionError, TimeoutError):
            time.sleep(0.5)
    raise AssertionError(f"the head does not answer: {log.read_text()[-2000:]}")


@pytest.fixture(scope="module")
def settings(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> tuple[Config, Path]:
    """Write the settings of the tiny network with one epoch and one iteration.

    With adapters no process has to hold the reference: every process costs ten seconds of imports.
    """
    folder = tmp_path_factory.mktemp("jobs")
    config = ppo_config(tiny_config, folder, iterations=1, value_warmup_iterations=0, workers=1)
    tree = config.model_dump()
    tree["sft"] |= {"epochs": 1, "minibatch": 4, "microbatch": 4}
    tree["model"]["decoder"]["lora_rank"] = 4
    config = Config.model_validate(tree)
    save_config(config, folder / "tiny.yaml")
    return config, folder / "tiny.yaml"


@pytest.mark.timeout(900)  # a minute on two idle cores; the rest is patience
def test_both_stages_run_as_jobs(head, settings):
    config, file = settings
    for script, result in (("sft/train.py", "sft/best"), ("rl/ppo.py", "ppo/best")):
        job = head.submit("python", script, "--config", str(file))
        assert job.returncode == 0, (job.stdout + job.stderr)[-3000:]
        assert f"best checkpoint: {config.run_dir / result}" in job.stdout
        assert (
            read_checkpoint_config(config.run_dir / result)["provenance"]["stage"]
            == result.split("/")[0]
        )
    assert [line["step"] for line in read_metrics(config.run_dir, "ppo")] == [0, 1]


def test_nobody_submits_without_the_token(head):
    job = head.submit("python", "-c", "print('ran')", token=False)
    assert job.returncode != 0
    assert "Missing authentication token" in job.stdout + job.stderr
