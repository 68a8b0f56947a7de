"""An exported model and ``lmrrg generate`` write the same report, with the real engine."""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
from pathlib import Path

from lmrrg.cli.main import main
from tests.support.dicom_files import dicom, ramp
from tests.support.paths import ROOT


def python(folder: Path, *arguments: str) -> str:
    """Run Python in a folder and return what it prints."""
    done = subprocess.run(
        [sys.executable, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": str(ROOT), "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=True,
    )
    return done.stdout


def test_the_example_of_the_card_runs_as_written(tiny_checkpoint: Path, tmp_path: Path) -> None:
    model = tmp_path / "model"
    assert main(["export", "--checkpoint", str(tiny_checkpoint), "--out", str(model)]) == 0
    card = (model / "README.md").read_text(encoding="utf-8")
    (example,) = re.findall(r"```python\n(.*?)```", card, flags=re.DOTALL)
    films = tmp_path / "films"
    films.mkdir()
    for name in (model / "frontal.dcm", films / "frontal.dcm"):
        name.write_bytes(dicom(ramp(), StudyInstanceUID="1.2.3", ViewPosition="PA"))
    (films / "damaged.dcm").write_bytes(b"damaged")
    (model / "example.py").write_text(example, encoding="utf-8")
    # Not splitlines: the random weights write any character.
    printed, _, notice = python(model, "example.py").rstrip("\n").rpartition("\n")
    assert "For research only" in notice
    (model / "example.py").unlink()
    (model / "frontal.dcm").unlink()
    out = tmp_path / "reports.jsonl"
    command = ["generate", "--checkpoint", str(model), "--images", str(films), "--out", str(out)]
    told = python(tmp_path, "-m", "lmrrg.cli.main", *command)
    assert "1 of 2 studies have a report" in told
    record = json.loads(out.read_text(encoding="utf-8"))
    assert record["study_id"] == "1.2.3"
    assert record["images"][0]["view"] == "PA"
    assert record["notice"] == notice
    # vLLM's own lines may stand before the report.
    assert printed.endswith(record["report"])
