"""Seconds of the phases of an iteration."""

from __future__ import annotations

import pytest

from rl import phase_timer
from rl.phase_timer import PhaseTimer


def test_a_phase_that_runs_twice_is_added_up(monkeypatch):
    clock = iter([0.0, 2.0, 10.0, 11.0, 20.0, 21.0])
    monkeypatch.setattr(phase_timer.time, "perf_counter", lambda: next(clock))
    timer = PhaseTimer()
    assert timer.run("sample", lambda number: number + 1, 4) == 5
    timer.run("score", lambda: None)
    timer.run("score", lambda: None)
    assert timer.metrics(tokens=100) == {
        "sample_s": 2.0,
        "score_s": 2.0,
        "iteration_s": 4.0,
        "sampled_tokens_per_s": 50.0,
        "tokens_per_s": 25.0,
    }


def test_an_error_of_a_phase_is_raised():
    with pytest.raises(ZeroDivisionError):
        PhaseTimer().run("update", lambda: 1 / 0)
