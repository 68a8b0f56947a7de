"""A thread that writes reports: a study joins those that are being written as soon as it comes."""

from __future__ import annotations

import logging
import threading
import time
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from serve_app.errors import ServiceError
from serve_app.reporter import UploadedStudy
from serve_app.schemas import ReportResponse

logger = logging.getLogger("ray.serve")


class StepReporter(Protocol):
    """What the loop drives, in its own thread only: :class:`serve_app.reporter.Reporter`."""

    most_at_once: int

    def begin(self, studies: Sequence[UploadedStudy]) -> list[str]: ...
    def step(self) -> dict[str, ReportResponse]: ...
    def abort(self) -> None: ...
    def write(self, studies: Sequence[UploadedStudy]) -> list[ReportResponse]: ...
    def check(self) -> None: ...
    def load(self, checkpoint: Path) -> None: ...


@dataclass
class _Job:
    study: UploadedStudy
    report: Future[ReportResponse] = field(default_factory=Future)


@dataclass
class _Swap:
    checkpoint: Path
    done: Future[None] = field(default_factory=Future)


class ReportLoop:
    """Writes the reports of all studies that wait, together; thread-safe.

    A study that fails costs only its own report. When the engine itself has failed, which
    :meth:`StepReporter.check` finds out, every study fails and so does :meth:`check_alive`.

    Args:
        start: loads the reporter, in the loop's thread.
        patience_s: seconds without progress after which the engine counts as stuck.

    Attributes:
        started: done once the reporter is loaded; holds its error when that failed.
    """

    def __init__(self, start: Callable[[], StepReporter], patience_s: float):
        self.started: Future[None] = Future()
        self._patience_s = patience_s
        self._changed = threading.Condition()
        self._waiting: deque[_Job] = deque()
        self._swaps: deque[_Swap] = deque()
        self._running: dict[str, _Job] = {}
        self._is_closed = False
        self._is_broken = False
        self._beat = time.monotonic()
        # A daemon: a stuck engine must not keep the process from ending.
        self._thread = threading.Thread(target=self._run, args=(start,), daemon=True)
        self._thread.start()

    def submit(self, study: UploadedStudy) -> Future[ReportResponse]:
        """Have a report written; cancelling the future before it is begun takes the study back."""
        job = _Job(study)
        with self._woken():
            self._waiting.append(job)
        return job.report

    def swap(self, checkpoint: Path) -> Future[None]:
        """Change to other weights once the reports that are being written are finished.

        Studies that come meanwhile wait, and their reports are the new model's.
        """
        swap = _Swap(checkpoint)
        with self._woken():
            self._swaps.append(swap)
        return swap.done

    def close(self) -> None:
        """End the loop when the reports that are being written are finished."""
        with self._woken():
            self._is_closed = True
        self._thread.join()

    def check_alive(self) -> None:
        """Check that the engine works.

        Raises:
            ServiceError: ``engine_broken`` or ``engine_stuck``.
        """
        if self._is_broken:
            raise ServiceError("engine_broken", "the engine has failed and is being replaced")
        if self._has_work and time.monotonic() - self._beat > self._patience_s:
            raise ServiceError("engine_stuck", "the engine makes no progress and is being replaced")

    @property
    def _has_work(self) -> bool:
        return bool(self._waiting or self._running or self._swaps)

    @contextmanager
    def _woken(self) -> Iterator[None]:
        """Hold the lock for a change that the thread is told of."""
        with self._changed:
            if not self._has_work:
                self._beat = time.monotonic()  # the time without work is not the engine's
            yield
            self._changed.notify()

    def _run(self, start: Callable[[], StepReporter]) -> None:
        try:
            reporter = start()
        except BaseException as error:  # noqa: BLE001 - raised where `started` is awaited
            self.started.set_exception(error)
            return
        self.started.set_result(None)
        while not self._is_done():
            jobs, swap = self._next(reporter.most_at_once)
            if swap is not None:
                self._load(reporter, swap)
            if jobs:
                self._begin(reporter, jobs)
            if self._running:
                self._step(reporter)

    def _is_done(self) -> bool:
        return self._is_closed and not (self._running or self._waiting)

    def _next(self, most: int) -> tuple[list[_Job], _Swap | None]:
        """Wait for work; return the studies to begin, and a checkpoint to load before them."""
        with self._changed:
            if not (self._has_work or self._is_closed):
                self._changed.wait()
            self._beat = time.monotonic()
            if self._swaps and self._running:
                return [], None
            swap = self._swaps.popleft() if self._swaps else None
            count = min(len(self._waiting), most - len(self._running))
            jobs = [self._waiting.popleft() for _ in range(count)]
        return [job for job in jobs if job.report.set_running_or_notify_cancel()], swap

    def _load(self, reporter: StepReporter, swap: _Swap) -> None:
        try:
            reporter.load(swap.checkpoint)
            swap.done.set_result(None)
        except Exception as error:  # noqa: BLE001 - raised where the swap is awaited
            swap.done.set_exception(error)
            self._judge(reporter)

    def _begin(self, reporter: StepReporter, jobs: list[_Job]) -> None:
        try:
            names = reporter.begin([job.study for job in jobs])
        except Exception as error:  # noqa: BLE001 - raised where the report is awaited
            if len(jobs) == 1:
                self._fail(reporter, jobs[0], error)
                return
            for job in jobs:
                self._begin(reporter, [job])
            return
        self._running |= dict(zip(names, jobs, strict=True))

    def _step(self, reporter: StepReporter) -> None:
        try:
            finished = reporter.step()
        except Exception:
            # Whichever study broke the batch, the others must not go down with it.
            logger.exception("the engine failed; each of its studies is tried alone")
            jobs = list(self._running.values())
            self._running.clear()
            reporter.abort()
            for job in jobs:
                self._write_alone(reporter, job)
            return
        for name, report in finished.items():
            self._running.pop(name).report.set_result(report)

    def _write_alone(self, reporter: StepReporter, job: _Job) -> None:
        self._beat = time.monotonic()
        try:
            job.report.set_result(reporter.write([job.study])[0])
        except Exception as error:  # noqa: BLE001 - raised where the report is awaited
            self._fail(reporter, job, error)

    def _fail(self, reporter: StepReporter, job: _Job, error: Exception) -> None:
        self._judge(reporter)
        if self._is_broken:
            error = ServiceError("engine_broken", "the engine has failed and is being replaced")
        job.report.set_exception(error)

    def _judge(self, reporter: StepReporter) -> None:
        """Find out whether the engine has failed, or only the study."""
        if self._is_broken or self._running:
            return  # other reports go on, and would fail too
        try:
            reporter.check()
        except Exception:
            # Any error here means that no report can be written: health fails from now on.
            logger.exception("the engine has failed")
            self._is_broken = True
