"""The loop that writes reports, with a reporter of plain Python."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterator, Sequence
from pathlib import Path
from typing import Any, cast

import pytest

from serve_app.errors import ServiceError
from serve_app.report_loop import ReportLoop
from serve_app.reporter import UploadedStudy
from serve_app.schemas import ReportResponse


class FakeReporter:
    """Writes reports of three tokens; `indication` decides what goes wrong."""

    most_at_once = 16

    def __init__(self) -> None:
        self.model = "old"
        self.batches: list[int] = []
        self.together: list[int] = []
        self.left: dict[str, tuple[UploadedStudy, int]] = {}
        self.gate = threading.Event()
        self.gate.set()
        self.is_broken = False
        self._count = 0

    def begin(self, studies: Sequence[UploadedStudy]) -> list[str]:
        if any(study.indication == "bad film" for study in studies):
            raise ValueError("bad film")
        self.batches.append(len(studies))
        names = []
        for study in studies:
            self._count += 1
            names.append(str(self._count))
            self.left[names[-1]] = (study, 3)
        return names

    def step(self) -> dict[str, ReportResponse]:
        self.gate.wait(10)
        if self.is_broken or any(
            study.indication == "bad prompt" for study, _ in self.left.values()
        ):
            raise RuntimeError("the engine fails")
        self.together.append(len(self.left))
        self.left = {name: (study, left - 1) for name, (study, left) in self.left.items()}
        finished = [name for name, (_, left) in self.left.items() if not left]
        return {name: self._report(self.left.pop(name)[0]) for name in finished}

    def _report(self, study: UploadedStudy) -> ReportResponse:
        return cast(Any, f"{study.indication} by {self.model}")

    def abort(self) -> None:
        self.left.clear()

    def write(self, studies: Sequence[UploadedStudy]) -> list[ReportResponse]:
        names = self.begin(studies)
        written: dict[str, ReportResponse] = {}
        try:
            while len(written) < len(names):
                written |= self.step()
        finally:
            self.abort()
        return [written[name] for name in names]

    def check(self) -> None:
        self.write([UploadedStudy([], "check")])

    def load(self, checkpoint: Path) -> None:
        assert not self.left, "weights change only between reports"
        if checkpoint.name == "damaged":
            raise ValueError("damaged")
        self.model = checkpoint.name


@pytest.fixture
def reporter() -> FakeReporter:
    return FakeReporter()


@pytest.fixture
def loop(reporter: FakeReporter) -> Iterator[ReportLoop]:
    loop = ReportLoop(lambda: reporter, 60)
    loop.started.result(10)
    yield loop
    reporter.gate.set()
    loop.close()


def until(condition: Callable[[], Any]) -> None:
    deadline = time.monotonic() + 10
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def write(loop: ReportLoop, *indications: str) -> list[Any]:
    """Hand in studies together; return their reports, or the errors."""
    futures = [loop.submit(UploadedStudy([], text)) for text in indications]
    return [future.exception(10) or future.result() for future in futures]


def test_what_comes_while_reports_are_written_joins_them(loop, reporter):
    reporter.gate.clear()
    first = loop.submit(UploadedStudy([], "first"))
    until(lambda: reporter.left)
    later = [loop.submit(UploadedStudy([], str(number))) for number in range(9)]
    reporter.gate.set()
    assert first.result(10) == "first by old"
    assert [future.result(10) for future in later] == [f"{n} by old" for n in range(9)]
    assert reporter.batches == [1, 9]
    assert max(reporter.together) == 10, "the first was still being written"


def test_no_more_than_the_engine_takes(loop, reporter):
    reporter.gate.clear()
    futures = [loop.submit(UploadedStudy([], str(number))) for number in range(40)]
    reporter.gate.set()
    assert [future.result(10) for future in futures] == [f"{n} by old" for n in range(40)]
    assert max(reporter.together) <= 16


@pytest.mark.parametrize("fault", ["bad film", "bad prompt"])
def test_one_bad_study_costs_only_its_own_report(loop, fault):
    written = write(loop, "a", fault, "b")
    assert (written[0], written[2]) == ("a by old", "b by old")
    assert isinstance(written[1], (ValueError, RuntimeError))
    loop.check_alive()
    assert write(loop, "c") == ["c by old"]


def test_a_broken_engine_is_told_from_a_bad_study(loop, reporter):
    reporter.is_broken = True
    assert [error.code for error in write(loop, "a", "b")] == ["engine_broken"] * 2
    with pytest.raises(ServiceError, match="engine_broken"):
        loop.check_alive()


def test_a_stuck_engine_is_noticed_and_an_idle_one_is_not(reporter):
    loop = ReportLoop(lambda: reporter, 0.2)
    loop.started.result(10)
    time.sleep(0.3)
    loop.check_alive()
    reporter.gate.clear()
    report = loop.submit(UploadedStudy([], "a"))
    loop.check_alive()
    time.sleep(0.3)
    with pytest.raises(ServiceError, match="engine_stuck"):
        loop.check_alive()
    reporter.gate.set()
    assert report.result(10) == "a by old"
    loop.close()


def test_new_weights_wait_for_reports_and_drop_none(loop, reporter):
    reporter.gate.clear()
    before = loop.submit(UploadedStudy([], "before"))
    until(lambda: reporter.left)
    swapped = loop.swap(Path("new"))
    after = [loop.submit(UploadedStudy([], str(number))) for number in range(3)]
    reporter.gate.set()
    assert before.result(10) == "before by old"
    assert [future.result(10) for future in after] == [f"{n} by new" for n in range(3)]
    swapped.result(10)


def test_weights_that_cannot_be_loaded_leave_the_old_ones(loop):
    with pytest.raises(ValueError, match="damaged"):
        loop.swap(Path("damaged")).result(10)
    assert write(loop, "a") == ["a by old"]


def test_a_study_that_nobody_waits_for_is_not_begun(loop, reporter):
    reporter.gate.clear()
    loop.submit(UploadedStudy([], "first"))
    until(lambda: reporter.left)
    assert loop.submit(UploadedStudy([], "gone")).cancel()
    reporter.gate.set()
    assert write(loop, "last") == ["last by old"]
    assert sum(reporter.batches) == 2


def test_an_engine_that_does_not_start_says_why():
    def start() -> Any:
        raise ValueError("no such model")

    with pytest.raises(ValueError, match="no such model"):
        ReportLoop(start, 60).started.result(10)
