"""``lmrrg score`` and the files it reads."""

from __future__ import annotations

import errno
import json
from pathlib import Path

import pytest

from lmrrg.cli.main import main
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.report_files import pair_reports, read_reports

REPORTS = {
    "s1": "Heart size is normal, lungs clear.",
    "s2": "Small left effusion.",
    "s3": "No acute disease.",
}
QUICK = ("--metrics", "radcliq,clinical,rouge_l", "--bootstrap", "50")


def write(path: Path, rows: dict[str, object]) -> Path:
    if path.suffix == ".csv":
        quoted = (str(text).replace('"', '""') for text in rows.values())
        path.write_text(
            "study_id,report\n" + "".join(f'{k},"{v}"\n' for k, v in zip(rows, quoted, strict=True))
        )
    elif path.suffix in (".jsonl", ".ndjson"):
        path.write_text(
            "".join(json.dumps({"study_id": k, "report": v}) + "\n" for k, v in rows.items())
        )
    else:
        path.write_text("".join(f"{text}\n" for text in rows.values()))
    return path


@pytest.mark.parametrize("first", ["a.csv", "a.jsonl", "a.txt"])
@pytest.mark.parametrize("second", ["b.csv", "b.jsonl", "b.ndjson", "b.txt", "b"])
def test_every_form_pairs_with_every_form(tmp_path: Path, first: str, second: str) -> None:
    references, hypotheses = (
        read_reports(write(tmp_path / name, REPORTS)) for name in (first, second)
    )
    pairs = pair_reports(references, hypotheses)
    assert pairs.references == pairs.hypotheses == tuple(REPORTS.values())
    named = first != "a.txt" or second not in ("b.txt", "b")
    assert pairs.study_ids == (tuple(REPORTS) if named else ("1", "2", "3"))


def test_rows_are_joined_by_id(tmp_path: Path) -> None:
    shuffled = dict(reversed(REPORTS.items()))
    pairs = pair_reports(
        read_reports(write(tmp_path / "a.csv", REPORTS)),
        read_reports(write(tmp_path / "b.jsonl", shuffled)),
    )
    assert pairs.hypotheses == pairs.references


def test_an_empty_hypothesis_is_kept_in_every_form(tmp_path: Path) -> None:
    for name in ("a.csv", "a.jsonl", "a.txt"):
        assert read_reports(write(tmp_path / name, {"s1": "", "s2": "Clear."})).reports == (
            "",
            "Clear.",
        )


def test_a_line_file_is_split_at_line_ends_only(tmp_path: Path) -> None:
    (tmp_path / "a.txt").write_bytes(b"lungs\x0bclear\r\nheart normal\n")
    assert read_reports(tmp_path / "a.txt").reports == ("lungs\x0bclear", "heart normal")


@pytest.mark.parametrize(
    ("name", "content", "code"),
    [
        ("a.csv", "study_id,text\ns1,x\n", "missing_column"),
        ("a.csv", "study_id,report\n", "no_rows"),
        ("a.csv", "study_id,report\ns1\n", "missing_text"),
        ("a.csv", "study_id,report\ns1,NaN\n", "missing_text"),
        ("a.csv", "study_id,report\n,clear\n", "missing_id"),
        ("a.csv", "study_id,report\ns1,a\ns1,b\n", "duplicate_id"),
        ("a.csv", "study_id,report\ns1,clear, no effusion\n", "bad_row"),
        ("a.csv", "study_id,report,age\ns1,60\n", "bad_row"),
        ("a.csv", 'study_id,report\ns1,"a\x00b"\n', None),
        ("a.jsonl", "{not json}\n", "bad_row"),
        ("a.jsonl", '{"study_id": "s1"}\n', "missing_column"),
        ("a.jsonl", '{"study_id": "s1", "report": NaN}\n', "missing_text"),
        ("a.jsonl", '{"study_id": "s1", "report": null}\n', "missing_text"),
        ("a.jsonl", '{"study_id": null, "report": "x"}\n', "missing_id"),
        ("a.ndjson", "Lungs clear.\n", "bad_row"),
        ("a.txt", "", "no_rows"),
        ("a.xlsx", "PK", "unknown_format"),
        ("a.jsonl.gz", "", "unknown_format"),
    ],
)
def test_unusable_files_have_a_named_error(
    tmp_path: Path, name: str, content: str, code: str | None
) -> None:
    (tmp_path / name).write_text(content)
    if code is None:
        assert read_reports(tmp_path / name).reports == ("a\x00b",)
        return
    with pytest.raises(MetricError) as error:
        read_reports(tmp_path / name)
    assert error.value.code == code


def test_unquoted_commas_name_the_row_and_the_way_out(tmp_path: Path) -> None:
    path = tmp_path / "a.csv"
    path.write_text('study_id,report\ns1,"Clear, no effusion."\ns2,Heart large, effusion, edema.\n')
    with pytest.raises(
        MetricError, match=r"a\.csv, row 2 .*quote texts that contain commas"
    ) as error:
        read_reports(path)
    assert error.value.code == "bad_row"


def test_an_unknown_format_says_what_is_read(tmp_path: Path) -> None:
    (tmp_path / "a.xlsx").write_bytes(b"PK")
    with pytest.raises(MetricError, match=r"\.csv.*\.jsonl.*\.ndjson.*\.txt"):
        read_reports(tmp_path / "a.xlsx")


def test_binary_and_absent_files_have_a_named_error(tmp_path: Path) -> None:
    (tmp_path / "a.csv").write_bytes(b"study_id,report\ns1,\xff\xfe\n")
    with pytest.raises(MetricError, match="not_text"):
        read_reports(tmp_path / "a.csv")
    with pytest.raises(MetricError, match="file_missing"):
        read_reports(tmp_path / "b.csv")
    with pytest.raises(MetricError, match="is a directory"):
        read_reports(tmp_path)


@pytest.mark.parametrize(
    ("references", "hypotheses", "code"),
    [
        (REPORTS, {"s1": "x", "s2": "y"}, "unmatched_id"),
        ({"s1": "x"}, {"s1": "x", "s9": "y"}, "unmatched_id"),
        ({"s1": ""}, {"s1": "x"}, "empty_reference"),
    ],
)
def test_files_that_do_not_match(
    tmp_path: Path, references: dict[str, object], hypotheses: dict[str, object], code: str
) -> None:
    files = (
        read_reports(write(tmp_path / "a.csv", references)),
        read_reports(write(tmp_path / "b.csv", hypotheses)),
    )
    with pytest.raises(MetricError) as error:
        pair_reports(*files)
    assert error.value.code == code


def test_line_files_must_be_equally_long(tmp_path: Path) -> None:
    files = (
        read_reports(write(tmp_path / "a.txt", REPORTS)),
        read_reports(write(tmp_path / "b.txt", {"s1": "x"})),
    )
    with pytest.raises(MetricError, match="length_mismatch"):
        pair_reports(*files)


def test_command_writes_table_results_and_per_report(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    references = write(tmp_path / "references.csv", REPORTS)
    hypotheses = write(tmp_path / "hypotheses.csv", REPORTS | {"s2": ""})
    out, per_report = tmp_path / "results.json", tmp_path / "per_report.jsonl"
    arguments = ["--references", str(references), "--hypotheses", str(hypotheses), *QUICK]
    assert main(["score", *arguments, "--out", str(out), "--per-report", str(per_report)]) == 0
    table = capsys.readouterr().out
    assert "radcliq-embedded" in table
    records = {
        record["study_id"]: record
        for record in map(json.loads, per_report.read_text().splitlines())
    }
    assert records["s2"]["radcliq_v1"] == pytest.approx(2.4501, abs=1e-4)
    summary = json.loads(out.read_text())
    assert summary["stamp"]["n"] == 3
    assert summary["metrics"]["rouge_l"]["value"] == pytest.approx(2 / 3)


def test_command_with_the_r2gen_convention(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    reports = write(tmp_path / "a.csv", REPORTS)
    files = [
        "--references",
        str(reports),
        "--hypotheses",
        str(reports),
        "--training-reports",
        str(reports),
    ]
    assert (
        main(["score", *files, "--convention", "r2gen", "--metrics", "bleu_1", "--bootstrap", "20"])
        == 0
    )
    assert "vocabulary_threshold 3" in capsys.readouterr().out


@pytest.mark.parametrize("missing", ["references", "hypotheses"])
def test_command_refuses_bad_input_in_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], missing: str
) -> None:
    files = {
        name: str(write(tmp_path / f"{name}.csv", REPORTS)) for name in ("references", "hypotheses")
    }
    files[missing] = str(tmp_path / "absent.csv")
    arguments = [part for name, path in files.items() for part in (f"--{name}", path)]
    assert main(["score", *arguments, *QUICK]) == 2
    error = capsys.readouterr().err
    assert "file_missing" in error
    assert len(error.splitlines()) == 1


@pytest.mark.parametrize("output", ["--out", "--per-report"])
@pytest.mark.parametrize("name", ["folder", "reports.csv", "reports.csv/results.json"])
def test_outputs_are_checked_before_scoring(
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    monkeypatch: pytest.MonkeyPatch,
    output: str,
    name: str,
) -> None:
    monkeypatch.setattr("lmrrg.cli.score.score_reports", lambda *_, **__: pytest.fail("scored"))
    reports = write(tmp_path / "reports.csv", REPORTS)
    (tmp_path / "folder").mkdir()
    before = reports.read_text()
    files = ["--references", str(reports), "--hypotheses", str(reports)]
    assert main(["score", *files, output, str(tmp_path / name)]) == 2
    error = capsys.readouterr().err
    assert "bad_output" in error
    assert len(error.splitlines()) == 1
    assert reports.read_text() == before
    assert {path.name for path in tmp_path.iterdir()} == {"reports.csv", "folder"}


def test_a_write_that_fails_ends_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "No space left on device", "part", None, "results.json")

    monkeypatch.setattr("os.replace", full)
    reports = write(tmp_path / "a.csv", REPORTS)
    files = ["--references", str(reports), "--hypotheses", str(reports)]
    assert (
        main(
            [
                "score",
                *files,
                "--metrics",
                "rouge_l",
                "--bootstrap",
                "5",
                "--out",
                str(tmp_path / "r.json"),
            ]
        )
        == 2
    )
    assert capsys.readouterr().err == "lmrrg score: results.json: No space left on device\n"
    assert [path.name for path in tmp_path.iterdir()] == ["a.csv"]


@pytest.mark.parametrize(
    ("option", "value", "least"),
    [
        ("--bootstrap", "0", 1),
        ("--bootstrap", "-3", 1),
        ("--bootstrap", "many", 1),
        ("--seed", "-1", 0),
    ],
)
def test_numbers_out_of_range_are_refused(
    capsys: pytest.CaptureFixture[str], option: str, value: str, least: int
) -> None:
    with pytest.raises(SystemExit) as end:
        main(["score", "--references", "a.csv", "--hypotheses", "b.csv", option, value])
    assert end.value.code == 2
    assert (
        f"argument {option}: '{value}' is no whole number of {least} or more"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("names", ["", " , "])
def test_a_selection_of_no_metrics_is_refused(
    capsys: pytest.CaptureFixture[str], names: str
) -> None:
    assert (
        main(["score", "--references", "a.csv", "--hypotheses", "b.csv", "--metrics", names]) == 2
    )
    assert "no_metrics" in capsys.readouterr().err


def scored(tmp_path: Path, *arguments: str) -> int:
    return main(["score", *arguments, "--bootstrap", "20", "--out", str(tmp_path / "r.json")])


def test_one_file_with_both_sides_is_scored_alone(tmp_path: Path) -> None:
    path = tmp_path / "a.jsonl"
    path.write_text('{"id": "1", "report": "Small effusion.", "reference": "Large effusion."}\n')
    for option in ("--reports", "--hypotheses"):
        assert scored(tmp_path, option, str(path), "--metrics", "rouge_l") == 0
        summary = json.loads((tmp_path / "r.json").read_text())
        assert summary["metrics"]["rouge_l"]["value"] == pytest.approx(0.5)


@pytest.mark.parametrize("given", [[], ["--reports", "a.csv", "--hypotheses", "b.csv"]])
def test_sides_that_do_not_fit_together(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], given: list[str]
) -> None:
    assert scored(tmp_path, *given) == 2
    assert "bad_arguments" in capsys.readouterr().err


def test_a_lab_names_its_text_and_id_columns(tmp_path: Path) -> None:
    truth = tmp_path / "truth.csv"
    truth.write_text("Accession,Report Text\ns1,Clear lungs.\ns2,Edema.\n")
    mine = tmp_path / "mine.csv"
    mine.write_text("Accession,Generated\ns2,Edema.\ns1,Clear lungs.\n")
    files = ["--references", str(truth), "--hypotheses", str(mine), "--id-column", "Accession"]
    columns = ["--text-column", "Report Text", "Generated"]
    out = tmp_path / "results.json"
    metrics = ["--metrics", "bleu_1", "--bootstrap", "20", "--out", str(out)]
    assert main(["score", *files, *columns, *metrics]) == 0
    assert json.loads(out.read_text())["metrics"]["bleu_1"]["value"] == pytest.approx(1.0)
    assert main(["score", *files, *columns, "third", *metrics]) == 2


def test_failed_checks_are_loud_and_strict_makes_them_fail(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write(tmp_path / "a.csv", REPORTS)
    constant = write(tmp_path / "b.csv", dict.fromkeys(REPORTS, "Clear."))
    files = ["--references", str(truth), "--hypotheses", str(constant), "--metrics", "rouge_l"]
    assert scored(tmp_path, *files) == 0
    assert "SANITY CHECK FAILED: few_distinct_reports" in capsys.readouterr().err
    summary = json.loads((tmp_path / "r.json").read_text())
    assert [finding["code"] for finding in summary["sanity"]] == ["few_distinct_reports"]
    assert scored(tmp_path, *files, "--strict") == 1


def test_a_lower_case_side_is_warned_of_and_coco_ignores_it(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    truth = write(tmp_path / "a.csv", REPORTS)
    lower = write(
        tmp_path / "b.csv",
        {study: text.lower().replace(".", " .") for study, text in REPORTS.items()},
    )
    files = ["--references", str(truth), "--hypotheses", str(lower), "--metrics", "bleu_1"]
    assert scored(tmp_path, *files) == 0
    assert "reports are all in lower case" in capsys.readouterr().err
    assert scored(tmp_path, *files, "--convention", "coco") == 0
    assert capsys.readouterr().err == ""
    summary = json.loads((tmp_path / "r.json").read_text())
    assert summary["metrics"]["bleu_1"]["value"] == pytest.approx(1)


def test_reports_in_another_language_are_not_scored(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    texts = {"s1": "Opacité basale gauche.", "s2": "Small left effusion."}
    path = write(tmp_path / "a.csv", texts)
    files = ["--references", str(path), "--hypotheses", str(path)]
    per_report = tmp_path / "p.jsonl"
    names = ["--metrics", "radcliq,clinical,rouge_l", "--per-report", str(per_report)]
    assert scored(tmp_path, *files, *names) == 0
    assert "unreadable" in capsys.readouterr().err
    rows = [json.loads(line) for line in per_report.read_text().splitlines()]
    assert rows[0]["radcliq_v1"] is None
    assert rows[0]["rouge_l"] == pytest.approx(1)
    assert rows[1]["radcliq_v1"] < 0
    path = write(tmp_path / "a.csv", {"s1": texts["s1"]})
    assert scored(tmp_path, *files, *names) == 0
    metrics = json.loads((tmp_path / "r.json").read_text())["metrics"]
    assert metrics["radcliq_v1"]["value"] is None
    assert metrics["micro_f1_14_uncertain_positive"]["value"] is None
