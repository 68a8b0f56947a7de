"""The manifest: what is written is what is read, and nothing half-written gets through."""

import json
import os
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.errors import CodedError
from lmrrg.files import atomic_writer, check_outputs
from lmrrg.manifest import read_studies, write_studies
from lmrrg.studies import LABELS, Study, StudyError, StudyImage, is_abnormal

STUDY = Study(
    id="s1",
    patient="p1",
    images=(StudyImage(Path("/somewhere/a.png"), "PA"),),
    findings="The lungs are clear.",
    impression="Normal.",
    labels={"No Finding": 1, "Edema": 0},
    split="train",
)


def test_round_trip(tmp_path):
    inside = replace(
        STUDY, id="s2", patient="p2", split="val", images=(StudyImage(tmp_path / "images/b.png"),)
    )
    assert write_studies(tmp_path / "m.jsonl", [STUDY, inside]) == 2
    assert read_studies(tmp_path / "m.jsonl") == [STUDY, inside]
    assert read_studies(tmp_path / "m.jsonl", split="val") == [inside]


def test_paths_inside_the_folder_move_with_it(tmp_path):
    here, there = tmp_path / "here", tmp_path / "there"
    write_studies(here / "m.jsonl", [replace(STUDY, images=(StudyImage(here / "images/b.png"),))])
    here.rename(there)
    assert read_studies(there / "m.jsonl")[0].images[0].path == there / "images/b.png"


@settings(deadline=None)  # it writes a file, which may wait for the disk
@given(text=st.text(st.characters(exclude_categories=["Cs"]), max_size=200))
def test_any_text_survives(tmp_path_factory, text):
    path = tmp_path_factory.mktemp("m") / "m.jsonl"
    write_studies(path, [replace(STUDY, findings=text)])
    assert read_studies(path)[0].findings == text


@pytest.mark.parametrize("labels", [None, {}, {"Edema": 1}])
def test_labelled_without_a_mention_is_not_the_same_as_not_labelled(tmp_path, labels):
    path = tmp_path / "m.jsonl"
    write_studies(path, [replace(STUDY, labels=labels)])
    assert read_studies(path)[0].labels == labels


def test_a_link_is_written_by_its_own_name(tmp_path):
    (tmp_path / "archive").mkdir()
    (tmp_path / "archive" / "NUMBER.png").touch()
    (tmp_path / "a.png").symlink_to(tmp_path / "archive" / "NUMBER.png")
    write_studies(tmp_path / "m.jsonl", [replace(STUDY, images=(StudyImage(tmp_path / "a.png"),))])
    assert "NUMBER" not in (tmp_path / "m.jsonl").read_text()


def test_who_may_read_is_for_the_umask_to_say(tmp_path):
    before = os.umask(0o077)
    try:
        write_studies(tmp_path / "m.jsonl", [STUDY])
    finally:
        os.umask(before)
    assert (tmp_path / "m.jsonl").stat().st_mode & 0o777 == 0o600


@pytest.mark.parametrize(
    ("change", "code"),
    [
        ({"labels": {"Flu": 1}}, "manifest_line"),
        ({"labels": {"Edema": 2}}, "manifest_line"),
        ({"labels": {"Edema": True}}, "manifest_line"),
        ({"id": " "}, "manifest_line"),
        ({"split": "training"}, "manifest_line"),
        ({"images": []}, "manifest_line"),
        ({"images": [{"path": "a.png", "view": "sideways"}]}, "manifest_line"),
        ({"images": [{"view": "PA"}]}, "manifest_line"),
        ({"colour": "grey"}, "manifest_line"),
        *(
            ({name: value}, "manifest_line")
            for name in ("id", "patient")
            for value in (None, 7, ["a"], {})
        ),
        *(
            ({name: value}, "manifest_line")
            for name in ("findings", "impression", "source")
            for value in (None, 5, [])
        ),
        ({"prior": [1]}, "manifest_line"),
        ({"labels": ["Edema"]}, "manifest_line"),
        ({"labels": 5}, "manifest_line"),
        ({"truth": 5}, "manifest_line"),
        ({"truth": None}, "manifest_line"),
    ],
)
def test_bad_records_name_the_line(tmp_path, change, code):
    record = {"id": "x", "patient": "y", "images": [{"path": "a.png"}], **change}
    good = {"id": "x0", "patient": "y0", "images": [{"path": "a.png"}]}
    (tmp_path / "m.jsonl").write_text(json.dumps(good) + "\n" + json.dumps(record) + "\n")
    with pytest.raises(StudyError, match=r"m\.jsonl:2") as refusal:
        read_studies(tmp_path / "m.jsonl")
    assert refusal.value.code == code


def test_what_may_be_null(tmp_path):
    record = {
        "id": "x",
        "patient": "y",
        "images": [{"path": "a.png"}],
        "labels": None,
        "prior": None,
        "split": None,
    }
    (tmp_path / "m.jsonl").write_text(json.dumps(record) + "\n")
    assert read_studies(tmp_path / "m.jsonl") == [
        Study("x", "y", (StudyImage(tmp_path / "a.png"),))
    ]


def test_leaks_and_duplicates_are_refused(tmp_path):
    write_studies(tmp_path / "leak.jsonl", [STUDY, replace(STUDY, id="s2", split="test")])
    with pytest.raises(StudyError, match="split_leak"):
        read_studies(tmp_path / "leak.jsonl")
    write_studies(tmp_path / "twice.jsonl", [STUDY, STUDY])
    with pytest.raises(StudyError, match="duplicate_id"):
        read_studies(tmp_path / "twice.jsonl")
    with pytest.raises(StudyError, match="manifest_missing"):
        read_studies(tmp_path / "none.jsonl")


def test_a_failed_write_leaves_the_old_file(tmp_path):
    path = tmp_path / "m.jsonl"
    write_studies(path, [STUDY])

    def failing():
        yield STUDY
        raise RuntimeError("source broke")

    with pytest.raises(RuntimeError):
        write_studies(path, failing())
    assert read_studies(path) == [STUDY]
    assert [p.name for p in tmp_path.iterdir()] == ["m.jsonl"]


def test_atomic_writer_shows_nothing_before_the_end(tmp_path):
    with atomic_writer(tmp_path / "x") as out:
        out.write("half")
        assert not (tmp_path / "x").exists()
    assert (tmp_path / "x").read_text() == "half"


def test_a_rename_that_fails_leaves_no_temporary_file(tmp_path):
    (tmp_path / "x").mkdir()
    with pytest.raises(IsADirectoryError), atomic_writer(tmp_path / "x") as out:
        out.write("whole")
    assert [p.name for p in tmp_path.iterdir()] == ["x"]


def test_outputs_that_cannot_be_written_are_refused_before_the_work(tmp_path, monkeypatch):
    (tmp_path / "file").write_text("")
    check_outputs([tmp_path / "file", tmp_path / "new" / "deep" / "x.json"], [tmp_path / "other"])
    for outputs, inputs, reason in (
        ([tmp_path], [], "a directory"),
        ([Path("/dev/null")], [], "no regular file"),
        ([tmp_path / "file"], [tmp_path / "new" / ".." / "file"], "another file"),
        ([tmp_path / "x", tmp_path / "x"], [], "another file"),
        ([tmp_path / "file" / "x"], [], "file is no directory"),
    ):
        with pytest.raises(CodedError, match=reason) as refusal:
            check_outputs(outputs, inputs)
        assert refusal.value.code == "bad_output"
    monkeypatch.setattr("os.access", lambda *_: False)  # root may write everywhere
    with pytest.raises(CodedError, match="not writable"):
        check_outputs([tmp_path / "x"])


def test_sections_and_abnormality():
    assert STUDY.report("findings+impression") == "The lungs are clear. Normal."
    assert replace(STUDY, impression="").report("findings+impression") == "The lungs are clear."
    assert not STUDY.is_abnormal
    assert replace(STUDY, labels={"Edema": 1}).is_abnormal
    assert not replace(STUDY, labels={"Edema": -1}).is_abnormal
    assert is_abnormal({"Edema": -1}, count_uncertain=True)
    assert not is_abnormal({"Edema": 0, "No Finding": 1}, count_uncertain=True)
    assert len(set(LABELS)) == 14


@pytest.mark.parametrize("line", [b'{"id": "h\xe9"}', b"[" * 100_000])
def test_a_line_that_is_no_text_or_too_deep_is_named(tmp_path, line):
    path = tmp_path / "m.jsonl"
    path.write_bytes(line + b"\n")
    with pytest.raises(StudyError, match=r"manifest_line: .*m\.jsonl:1"):
        read_studies(path)


@pytest.mark.parametrize(
    ("change", "reason"),
    [
        ({"findings": ["SECRET"]}, "findings: "),
        ({"prior": {"SECRET": 1}}, "prior: "),
        ({"labels": {"Edema": "SECRET"}}, "labels.Edema: "),
        ({"images": [{"path": "a.png", "view": "SECRET"}]}, "images.0.view: "),
        (
            {"images": [{"path": "a.png", "note": "SECRET"}]},
            "images.0.an unknown field; known are path, view",
        ),
        ({"id": "  "}, "id: must not be blank"),
        ({"images": [{"path": ""}]}, "images.0.path: "),
        ({"x" * 41: "SECRET"}, "1: an unknown field; known are id, patient, "),
        ({"The heart is SECRET": "x"}, "1: an unknown field; "),
        ({"labels": {"Edema": 0.5}}, "labels.Edema: "),
        ({"colour": "SECRET", "split": "SECRET"}, "split: "),
        ({"colour": "SECRET", "split": "SECRET"}, "an unknown field; "),
    ],
)
def test_a_refusal_names_the_field_and_quotes_no_value(tmp_path, change, reason):
    record = {"id": "x", "patient": "y", "images": [{"path": "a.png"}], **change}
    (tmp_path / "m.jsonl").write_text(json.dumps(record) + "\n")
    with pytest.raises(StudyError) as refusal:
        read_studies(tmp_path / "m.jsonl")
    assert reason in str(refusal.value)
    assert "SECRET" not in str(refusal.value)
    assert refusal.value.__cause__ is None
    assert refusal.value.__suppress_context__, "a traceback would show pydantic's message"


def test_a_line_that_is_no_json_is_not_quoted(tmp_path):
    (tmp_path / "m.jsonl").write_text('{"findings": "SECRET", SECRET}\n')
    with pytest.raises(StudyError, match=r"m\.jsonl:1: .*JSON") as refusal:
        read_studies(tmp_path / "m.jsonl")
    assert "SECRET" not in str(refusal.value)


def test_a_label_that_a_table_made_a_float_is_the_whole_number(tmp_path):
    line = {"id": "a", "patient": "p", "images": [{"path": "a.png"}], "labels": {"Edema": 1.0}}
    path = tmp_path / "m.jsonl"
    path.write_text(json.dumps(line) + "\n")
    value = read_studies(path)[0].labels["Edema"]
    assert value == 1
    assert isinstance(value, int)
