"""The page of settings is generated: it names every setting, and a stale page is noticed."""

from __future__ import annotations

import sys
from importlib.util import module_from_spec, spec_from_file_location

import pytest

from lmrrg.config.description import describe_config


@pytest.fixture
def script(repo_root, tmp_path, monkeypatch):
    spec = spec_from_file_location("docs_script", repo_root / "scripts" / "configuration_docs.py")
    module = module_from_spec(spec)
    spec.loader.exec_module(module)
    monkeypatch.setattr(module, "TARGET", tmp_path / "configuration.md")
    return module


def run(script, monkeypatch, *arguments: str) -> int:
    monkeypatch.setattr(sys, "argv", ["configuration_docs.py", *arguments])
    return script.main()


def test_a_page_that_is_missing_or_stale_is_noticed(script, monkeypatch, capsys):
    assert run(script, monkeypatch, "--check") == 1
    assert not script.TARGET.exists()
    assert run(script, monkeypatch) == 0
    assert run(script, monkeypatch, "--check") == 0
    script.TARGET.write_text(script.TARGET.read_text() + "more\n")
    assert run(script, monkeypatch, "--check") == 1
    assert "outdated" in capsys.readouterr().err


def test_every_setting_has_a_row_of_five_cells(script):
    rows = [line for line in script.configuration_page().splitlines() if line.startswith("| `")]
    keys = [row.split("`")[1] for row in rows]
    assert len(keys) == len(set(keys))
    assert set(keys) == {setting.key for setting in describe_config()}
    assert {row.replace(r"\|", "").count("|") for row in rows} == {6}


def test_a_row_says_for_whom_a_setting_is_fixed(script):
    page = script.configuration_page()
    assert "| `seed` | int >= 0 | `7` |" in page
    assert "| `sft.epochs` | int > 0 | `10` | passes over the training studies | SFT |" in page
    assert "| `threads` | int > 0 | `1` | torch threads of each process on CPU | – |" in page
