"""The bar of training follows the metrics that rank 0 writes, and ends with the block."""

from __future__ import annotations

import io
import json
import threading
from pathlib import Path

import pytest

from lmrrg.progress import bars_on
from sft import progress
from sft.progress import training_bar


class Terminal(io.StringIO):
    """A stream that claims to be a terminal."""

    def isatty(self) -> bool:
        return True


def write_steps(run_dir: Path, *steps: int) -> None:
    path = run_dir / "metrics" / "sft.jsonl"
    path.parent.mkdir(exist_ok=True)
    lines = [{"step": step, "time": "", "train/nll_per_token": 1.5} for step in steps]
    path.write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_the_bar_shows_the_last_step_and_its_loss(tmp_path, monkeypatch):
    monkeypatch.setattr(progress, "_POLL_S", 0.01)
    terminal = Terminal()
    with bars_on(terminal), training_bar(tmp_path, 20):
        write_steps(tmp_path, 5, 10)
    drawn = terminal.getvalue()
    assert "10/20" in drawn
    assert "nll_per_token=1.500" in drawn


def test_nothing_is_left_running_when_training_fails(tmp_path):
    before = threading.active_count()
    with pytest.raises(ValueError, match="refused"), training_bar(tmp_path, 20):
        raise ValueError("refused")
    assert threading.active_count() == before
