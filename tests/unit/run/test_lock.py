"""A run's folder has one owner at a time; a dead one does not block it."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from lmrrg.run import lock as lock_module
from lmrrg.run.errors import TrackingError
from lmrrg.run.lock import run_lock


def write_lock(folder: Path, host: str, pid: int, age: float = 0.0) -> Path:
    lock = folder / "lock.json"
    lock.write_text(json.dumps({"host": host, "pid": pid}))
    then = lock.stat().st_mtime - age
    os.utime(lock, (then, then))
    return lock


def dead_process() -> int:
    with subprocess.Popen([sys.executable, "-c", "pass"]) as process:
        process.wait()
    return process.pid


def test_a_second_process_is_refused_and_the_folder_is_free_afterwards(tmp_path):
    script = (
        "import sys; from pathlib import Path; from lmrrg.run.lock import run_lock\n"
        "with run_lock(Path(sys.argv[1])): print('mine')"
    )
    command = [sys.executable, "-c", script, str(tmp_path)]
    with run_lock(tmp_path):
        second = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
        assert f"run_in_use: {tmp_path} is in use by process {os.getpid()}" in second.stderr
    third = subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)
    assert third.stdout == "mine\n"
    assert not (tmp_path / "lock.json").exists()


def test_stages_of_one_process_share_the_lock(tmp_path):
    with run_lock(tmp_path):
        with run_lock(tmp_path):
            pass
        assert (tmp_path / "lock.json").exists()


@pytest.mark.parametrize(
    ("host", "pid", "age"),
    [(socket.gethostname(), None, 0), ("elsewhere", 1, 1000.0), ("", -1, 1000.0)],
)
def test_the_lock_of_a_dead_owner_is_taken_over(tmp_path, host, pid, age):
    write_lock(tmp_path, host, dead_process() if pid is None else pid, age)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["pid"] == os.getpid()


@pytest.mark.parametrize("content", ["", "{", "[]", '{"host": 3}'])
def test_a_damaged_lock_that_is_old_is_taken_over(tmp_path, content):
    lock = write_lock(tmp_path, "x", 1)
    lock.write_text(content)
    os.utime(lock, (1, 1))
    with run_lock(tmp_path):
        pass


@pytest.fixture
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    """Signs of life every 0.1 s instead of every 15 s."""
    for name, seconds in {"_BEAT_S": 0.1, "_DEAD_S": 0.6, "_POLL_S": 0.05}.items():
        monkeypatch.setattr(lock_module, name, seconds)


def test_a_living_owner_on_another_machine_keeps_the_folder(tmp_path, quick):
    lock = write_lock(tmp_path, "elsewhere", 1)
    alive = threading.Event()

    def give_signs() -> None:
        while not alive.wait(0.1):
            os.utime(lock)

    with ThreadPoolExecutor(1) as pool:
        pool.submit(give_signs)
        with pytest.raises(TrackingError, match="process 1 on elsewhere"), run_lock(tmp_path):
            pytest.fail("taken")
        alive.set()
    assert sorted(path.name for path in tmp_path.iterdir()) == ["lock.json"]


def test_an_owner_on_another_machine_that_fell_silent_is_waited_for(tmp_path, quick):
    write_lock(tmp_path, "elsewhere", 1)
    with run_lock(tmp_path):
        assert json.loads((tmp_path / "lock.json").read_text())["host"] == socket.gethostname()
    assert list(tmp_path.iterdir()) == []
