"""``lmrrg compare``: paired tests between files."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from lmrrg.cli.main import main
from lmrrg.metrics.bootstrap import compare
from lmrrg.metrics.text.rouge import rouge_l

TRUTH = ["Small left effusion.", "Clear lungs.", "Moderate cardiomegaly.", "No pneumothorax."]
SYSTEMS = {
    "a": ["Clear lungs.", "Clear lungs.", "Clear heart.", "No effusion."],
    "b": ["Small left effusion.", "Clear lungs.", "Mild cardiomegaly.", "No pneumothorax."],
    "c": TRUTH,
}
QUICK = ["--metrics", "rouge_l", "--bootstrap", "50", "--seed", "3"]


@pytest.fixture
def files(tmp_path: Path) -> Path:
    for name, reports in {"truth": TRUTH, **SYSTEMS}.items():
        (tmp_path / f"{name}.txt").write_text("".join(f"{text}\n" for text in reports))
    return tmp_path


def arguments(files: Path, *systems: str) -> list[str]:
    chosen = [part for name in systems for part in ("--hypotheses", str(files / f"{name}.txt"))]
    return ["compare", "--references", str(files / "truth.txt"), *chosen, *QUICK]


def test_every_system_is_compared_with_the_first(
    files: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = files / "out.json"
    assert main([*arguments(files, "a", "b", "c"), "--out", str(out)]) == 0
    results = json.loads(out.read_text())
    first = rouge_l(SYSTEMS["a"], TRUTH)
    for name, comparison in zip("bc", results["comparisons"], strict=True):
        expected = compare(rouge_l(SYSTEMS[name], TRUTH), first, resamples=50, seed=3)
        assert comparison["a"].endswith(f"{name}.txt")
        assert comparison["metrics"]["rouge_l"] == pytest.approx(vars(expected))
    assert [len(system["metrics"]) for system in results["systems"]] == [1, 1, 1]
    assert capsys.readouterr().out.count("minus") == 2


def test_files_with_both_sides_need_no_references(tmp_path: Path) -> None:
    for name, reports in SYSTEMS.items():
        rows = [
            json.dumps({"id": str(row), "report": report, "reference": truth})
            for row, (report, truth) in enumerate(zip(reports, TRUTH, strict=True))
        ]
        (tmp_path / f"{name}.jsonl").write_text("\n".join(rows))
    chosen = [part for name in "ab" for part in ("--hypotheses", str(tmp_path / f"{name}.jsonl"))]
    assert main(["compare", *chosen, *QUICK]) == 0


def test_one_system_is_refused(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(arguments(files, "a")) == 2
    assert "one_system" in capsys.readouterr().err


def test_a_failed_check_names_the_system(files: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (files / "a.txt").write_text("Clear.\n" * 4)
    assert main([*arguments(files, "a", "b"), "--strict"]) == 1
    assert f"{files / 'a.txt'}: few_distinct_reports" in capsys.readouterr().err


def test_a_lab_names_its_columns(tmp_path: Path) -> None:
    for name, reports in SYSTEMS.items():
        lines = [
            f'{row},"{text}","{truth}"'
            for row, (text, truth) in enumerate(zip(reports, TRUTH, strict=True))
        ]
        (tmp_path / f"{name}.csv").write_text("\n".join(["Accession,Written,Truth", *lines]))
    chosen = [part for name in "ab" for part in ("--hypotheses", str(tmp_path / f"{name}.csv"))]
    names = ["--text-column", "Truth", "Written", "--id-column", "accession"]
    assert main(["compare", *chosen, *names, *QUICK]) == 0
    assert main(["compare", *chosen, *QUICK]) == 2
