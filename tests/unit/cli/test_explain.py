"""`lmrrg explain`: verdicts on the terminal and on a page, and foreign text stays text."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmrrg.cli.main import main


def files(tmp_path: Path, report: str) -> list[str]:
    references = tmp_path / "references.csv"
    references.write_text(
        "study_id,report\na,Small left effusion. No pneumothorax.\nb,The lungs are clear.\n"
    )
    hypotheses = tmp_path / "hypotheses.csv"
    hypotheses.write_text(f'study_id,report\na,"{report}"\nb,The lungs are clear.\n')
    return ["--references", str(references), "--hypotheses", str(hypotheses)]


def test_every_finding_gets_a_verdict(tmp_path, capsys):
    assert main(["explain", *files(tmp_path, "Large left effusion. Pneumothorax.")]) == 0
    printed = capsys.readouterr().out
    assert "different  severe left effusion (reference: mild left effusion)" in printed
    assert "invented   pneumothorax" in printed
    assert "\033" not in printed, "no colours where nobody sees them"
    assert "Research use only" in printed


def test_the_worst_come_first_and_alone(tmp_path, capsys):
    arguments = files(tmp_path, "Pneumothorax.")
    assert main(["explain", *arguments, "--worst", "1"]) == 0
    printed = capsys.readouterr().out
    assert "study a" in printed
    assert "study b" not in printed
    assert "missed     mild left effusion" in printed


def test_a_lab_names_its_columns(tmp_path, capsys):
    arguments = files(tmp_path, "Pneumothorax.")
    for name in ("references.csv", "hypotheses.csv"):
        path = tmp_path / name
        path.write_text(path.read_text().replace("study_id,report", "Accession,Report Text"))
    names = ["--text-column", "Report Text", "--id-column", "Accession"]
    assert main(["explain", *arguments, *names]) == 0
    assert "invented   pneumothorax" in capsys.readouterr().out


def test_an_unknown_study_is_refused(tmp_path, capsys):
    assert main(["explain", *files(tmp_path, "x"), "--study", "zz"]) == 2
    assert "zz" in capsys.readouterr().err


@pytest.mark.parametrize("report", ["<script>alert(1)</script> & large effusion"])
def test_the_page_escapes_reports(tmp_path, report):
    out = tmp_path / "page.html"
    assert main(["explain", *files(tmp_path, report), "--out", str(out)]) == 0
    page = out.read_text()
    assert "<script>" not in page
    # Of the other marks the reader of sentences makes words.
    assert "&amp; large effusion" in page
    assert 'class="verdict different"' in page
