"""The progress bar of training, drawn by the driver while the ranks train elsewhere."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import Event, Thread

from lmrrg.config.base import Stage
from lmrrg.progress import progress_bar
from lmrrg.run.tracking import read_metrics

_POLL_S = 1.0


@contextmanager
def training_bar(
    run_dir: Path, steps: int, *, stage: Stage = "sft", loss: str = "nll_per_token"
) -> Iterator[None]:
    """Show a bar of the optimizer steps while the block runs.

    The driver does not see the ranks' steps, but it does see the metrics that rank 0 writes into
    the run's folder every few steps. A training that continues starts where its metrics end.

    Args:
        run_dir: the run's folder.
        steps: optimizer steps of the whole training.
        stage: whose metrics they are.
        loss: name of the training metric that is shown beside the bar.
    """
    finished = Event()
    watcher = Thread(target=_watch, args=(run_dir, steps, stage, loss, finished), daemon=True)
    watcher.start()
    try:
        yield
    finally:
        finished.set()
        watcher.join()


def _watch(run_dir: Path, steps: int, stage: Stage, loss: str, finished: Event) -> None:
    with progress_bar(total=steps, desc=stage.upper(), unit="step") as bar:
        while True:
            # Asked before reading, so that the last lines are shown too.
            is_last_look = finished.wait(_POLL_S)
            lines = read_metrics(run_dir, stage)
            if lines:
                bar.n = int(lines[-1]["step"])
            losses = [line for line in lines if f"train/{loss}" in line]
            if losses:
                bar.set_postfix({loss: f"{losses[-1][f'train/{loss}']:.3f}"})
            if is_last_look:
                return
