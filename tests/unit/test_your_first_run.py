"""The page for a first run: its config loads, its settings, metrics and scripts exist."""

from __future__ import annotations

import csv
import json
import re
import subprocess
import sys

import yaml

from lmrrg.config.description import describe_config
from lmrrg.config.loading import load_config
from tests.support.paths import ROOT

PAGE = (ROOT / "docs" / "your_first_run.md").read_text(encoding="utf-8")
METRICS = (ROOT / "docs" / "metrics_rl.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """Return the page's only block in a language."""
    (found,) = re.findall(rf"```{language}\n(.*?)```", PAGE, re.DOTALL)
    return found


def test_the_config_loads(tmp_path):
    path = tmp_path / "mine.yaml"
    path.write_text(block("yaml"))
    config = load_config(path)
    assert config.data.source == "csv"
    assert config.ppo.value_warmup_iterations < config.ppo.iterations


def test_the_table_has_the_columns_that_the_config_names(tmp_path):
    (tmp_path / "practice").mkdir()
    study = {
        "id": "a",
        "patient": "b",
        "images": [{"path": "c.dcm"}],
        "findings": "Clear.",
        "impression": "Normal.",
    }
    (tmp_path / "practice" / "studies.jsonl").write_text(json.dumps(study) + "\n")
    subprocess.run([sys.executable, "-c", block("python")], cwd=tmp_path, check=True)
    with (tmp_path / "practice" / "export.csv").open() as table:
        (row,) = csv.DictReader(table)
    named = yaml.safe_load(block("yaml"))["data"]["columns"].values()
    assert set(named) == set(row)


def test_every_setting_that_it_names_exists():
    known = {setting.key for setting in describe_config()}
    branches = {key.split(".")[0] for key in known if "." in key}
    words = re.findall(r"(?<![/\w(\[])[a-z_]+(?:\.[a-z_]+)+", PAGE)  # no path, no link
    named = {word for word in words if word.split(".")[0] in branches}
    assert len(named) > 10
    assert named <= known


def test_every_curve_that_it_names_is_logged():
    rows = re.findall(r"^\| (`[^|]*)\|", PAGE, re.MULTILINE)
    metrics = {name for row in rows for name in re.findall(r"`([a-z_]+)`", row)}
    assert len(metrics) > 8
    assert metrics <= set(re.findall(r"`([a-z_0-9]+)`", METRICS))
