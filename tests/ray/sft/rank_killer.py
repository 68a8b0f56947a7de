"""Kill a rank of a training stage while it trains."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import ray

_WAIT_S = 120


@contextmanager
def rank_killed_after(epoch: int, storage: Path) -> Iterator[None]:
    """Kill one rank of this cluster once an epoch's checkpoint is in Ray Train's ``storage``.

    Raises:
        AssertionError: none was killed until the block's end, so the test proved nothing.
    """
    node = ray._private.worker.global_worker.node
    raylet = psutil.Process(node.all_processes["raylet"][0].process.pid)
    killed: list[int] = []
    killer = threading.Thread(target=_kill, args=(epoch, storage, raylet, killed))
    killer.start()
    yield
    killer.join()
    assert killed, "no rank was killed: the test proved nothing"


def _kill(epoch: int, storage: Path, raylet: psutil.Process, killed: list[int]) -> None:
    deadline = time.monotonic() + _WAIT_S
    while time.monotonic() < deadline and not killed:
        if len(list(storage.glob("checkpoint_*/progress.json"))) >= epoch:
            ranks = [
                p
                for p in raylet.children(recursive=True)
                if "RayTrainWorker" in " ".join(p.cmdline())
            ]
            if ranks:
                ranks[0].kill()
                killed.append(ranks[0].pid)
        time.sleep(0.01)
