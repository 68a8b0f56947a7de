"""The command that trains the view classifier: what it refuses, and that its weights load."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from lmrrg.cli import train_views
from lmrrg.cli.train_views import main
from lmrrg.manifest import write_studies
from lmrrg.studies import Study
from lmrrg.vision.view_classifier import ViewClassifier


def test_bad_input_is_told_in_one_sentence(tmp_path: Path, capsys):
    assert (
        main(["--studies", str(tmp_path / "nope"), "--out", str(tmp_path / "v.safetensors")]) == 2
    )
    assert "train_views: manifest_missing" in capsys.readouterr().err
    (tmp_path / "file").write_text("")
    assert main(["--studies", "nope", "--out", str(tmp_path / "file" / "v.safetensors")]) == 2
    assert "train_views: bad_output" in capsys.readouterr().err


def test_a_split_without_views_is_told(tiny_studies: list[Study], tmp_path: Path, capsys):
    unknown = [
        replace(s, images=tuple(replace(i, view="unknown") for i in s.images)) for s in tiny_studies
    ]
    write_studies(tmp_path / "m.jsonl", unknown)
    assert (
        main(["--studies", str(tmp_path / "m.jsonl"), "--out", str(tmp_path / "v.safetensors")])
        == 2
    )
    assert "no_views" in capsys.readouterr().err


def test_trained_weights_are_read_again(
    tiny_studies: list[Study], tmp_path: Path, monkeypatch, capsys
):
    def seen(studies, _config):
        lateral = np.array([image.view == "lateral" for study in studies for image in study.images])
        return np.outer(np.where(lateral, 1.0, -1.0), np.ones(600)).astype(np.float32)

    monkeypatch.setattr(train_views, "describe_views", seen)
    split = [
        replace(s, patient=s.id, split=("train", "val")[i % 2]) for i, s in enumerate(tiny_studies)
    ]
    write_studies(tmp_path / "m.jsonl", split)
    out = tmp_path / "new" / "v.safetensors"
    assert main(["--studies", str(tmp_path / "m.jsonl"), "--out", str(out)]) == 0
    assert "val: " in capsys.readouterr().out
    low, high = ViewClassifier.load(out).lateral_probability(np.outer([-1.0, 1.0], np.ones(600)))
    assert low < 0.1 < 0.9 < high
    assert out.stat().st_mode & 0o777 == 0o644
