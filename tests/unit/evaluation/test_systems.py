"""The systems of an evaluation: their input, their reports and their likelihoods."""

from __future__ import annotations

from collections import Counter
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from lmrrg.config.tree import Config
from lmrrg.evaluation.errors import EvaluationError
from lmrrg.evaluation.study_set import blank_features, evaluation_set, other_patient_rows
from lmrrg.evaluation.systems import checkpoint_record, reference_nll
from lmrrg.imaging.radiograph import Radiograph
from lmrrg.metrics.embedded.backend import RuleLabeler
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.model.prompts import prompt_ids, report_ids
from lmrrg.studies import Study
from lmrrg.vision.encoder import image_encoder
from lmrrg.vision.files import load_features


@given(
    patients=st.lists(st.sampled_from("abcdefgh"), min_size=1, max_size=30), seed=st.integers(0, 5)
)
def test_every_study_gets_another_patient_or_an_error_names_the_reason(
    patients: list[str], seed: int
) -> None:
    if 2 * max(Counter(patients).values()) > len(patients):
        with pytest.raises(EvaluationError, match="one_patient"):
            other_patient_rows(patients, seed)
        return
    rows = other_patient_rows(patients, seed)
    assert sorted(rows) == list(range(len(patients)))
    assert all(patients[row] != patient for row, patient in zip(rows, patients, strict=True))
    assert rows == other_patient_rows(patients, seed)


def test_the_other_patients_depend_on_the_seed() -> None:
    patients = [str(number) for number in range(30)]
    assert other_patient_rows(patients, 1) != other_patient_rows(patients, 2)


def test_blank_features_are_those_of_black_images_and_keep_the_views(
    tiny_config: Config, tiny_studies: list[Study]
) -> None:
    features = load_features(tiny_studies, tiny_config.data, progress=False)
    blank = blank_features(features, tiny_config.data)
    size = tiny_config.data.image_size
    black = Radiograph(np.zeros((size, size), np.float32), "PA", "png")
    encoded = image_encoder(size).encode(torch.from_numpy(black.pixels)[None]).patches.half()[0]
    assert blank.patches.shape == features.patches.shape
    assert all(torch.equal(view, encoded) for study in blank.patches for view in study)
    assert torch.equal(blank.views, features.views)
    assert torch.equal(blank.view_mask, features.view_mask)


def test_reference_nll_is_the_mean_over_the_tokens_of_each_reference_alone(
    tiny_config: Config, tiny_studies: list[Study], tiny_checkpoint: Path
) -> None:
    model = load_checkpoint(tiny_checkpoint)
    features = load_features(tiny_studies, tiny_config.data, progress=False)
    prompts = [prompt_ids(model.tokenizer, model.config, "") for _ in tiny_studies]
    # References of very different lengths, so that padding would show.
    targets = [
        report_ids(model.tokenizer, study.findings * (1 + row % 3), 3 + 6 * row)
        for row, study in enumerate(tiny_studies)
    ]
    values = reference_nll(model, features, prompts, targets)
    for row, target in enumerate(targets):
        ids = torch.tensor([target])
        with torch.no_grad():
            out = model.report_logits(
                features.select([row]), [prompts[row]], ids, torch.ones_like(ids, dtype=torch.bool)
            )
        chosen = out.logits[0].log_softmax(dim=-1)[torch.arange(len(target)), ids[0]]
        assert values[row] == pytest.approx(-float(chosen.mean()), abs=2e-5)


def test_a_checkpoint_record_changes_with_any_file(tmp_path: Path) -> None:
    with pytest.raises(EvaluationError, match="checkpoint_missing"):
        checkpoint_record(tmp_path)
    (tmp_path / "decoder").mkdir()
    (tmp_path / "config.json").write_text("{}")
    (tmp_path / "decoder" / "model.safetensors").write_bytes(b"abc")
    first = checkpoint_record(tmp_path)["sha256"]
    assert first == checkpoint_record(tmp_path)["sha256"]
    (tmp_path / "decoder" / "model.safetensors").write_bytes(b"abd")
    assert checkpoint_record(tmp_path)["sha256"] != first


def test_a_set_needs_reports_and_takes_labels_from_the_studies_or_the_labeler(
    tiny_config: Config, tiny_studies: list[Study]
) -> None:
    from dataclasses import replace

    labelled = [replace(study, labels={"Edema": 1}) for study in tiny_studies]
    given_set = evaluation_set(labelled, tiny_config.data, RuleLabeler())
    assert given_set.labels_from == "studies"
    assert given_set.labels == [{"Edema": 1}] * len(labelled)
    partly = [replace(labelled[0], labels=None), *labelled[1:]]
    read = evaluation_set(partly, tiny_config.data, RuleLabeler())
    assert read.labels_from == "labeler"
    assert read.labels == [label_report(study.findings) for study in tiny_studies]
    without_findings = [replace(study, findings=" ") for study in tiny_studies]
    with pytest.raises(EvaluationError, match="no_studies"):
        evaluation_set(without_findings, tiny_config.data, RuleLabeler())
