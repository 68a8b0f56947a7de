"""Everything that a stage prints ends in its log, by whatever way it prints; bars stay outside."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SCRIPT = """
import os, subprocess, sys
from pathlib import Path
from lmrrg.progress import progress_bar
from lmrrg.run.stage_log import stage_log

print("before", flush=True)
with stage_log(Path(sys.argv[1])):
    print("printed")
    os.write(1, b"written to the descriptor\\n")
    os.write(2, b"a warning of a C library\\n")
    subprocess.run(["echo", "of a child"], check=True)
    list(progress_bar(range(2), desc="a bar"))
    if sys.argv[2:] == ["fail"]:
        raise SystemExit("refused")
print("after", flush=True)
"""


def run_stage(log: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-c", SCRIPT, str(log), *arguments]
    return subprocess.run(command, capture_output=True, text=True, timeout=60, check=False)


def test_output_goes_to_the_log_and_bars_to_the_terminal(tmp_path):
    log = tmp_path / "log" / "stage.log"
    done = run_stage(log)
    assert done.stdout == "before\nafter\n"
    assert "a bar" in done.stderr
    assert "warning" not in done.stderr
    logged = log.read_text()
    for text in ("printed", "written to the descriptor", "a warning of a C library", "of a child"):
        assert text in logged
    assert "a bar" not in logged


@pytest.mark.parametrize("times", [2])
def test_a_second_run_appends_to_the_log(tmp_path, times):
    log = tmp_path / "stage.log"
    for _ in range(times):
        run_stage(log)
    assert log.read_text().count("printed") == times


def test_the_terminal_is_given_back_after_an_error(tmp_path):
    done = run_stage(tmp_path / "stage.log", "fail")
    assert done.returncode == 1
    assert done.stderr.endswith("refused\n")
