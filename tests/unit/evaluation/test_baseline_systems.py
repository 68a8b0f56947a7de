"""The systems without a language model on a few studies, with and without the encoder's labels."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from lmrrg.config.tree import Config
from lmrrg.evaluation.baseline_systems import NO_EVIDENCE, TITLES, Baselines, baseline_systems
from lmrrg.evaluation.errors import EvaluationError
from lmrrg.evaluation.study_set import EvaluationSet, evaluation_set
from lmrrg.evaluation.systems import SystemReports
from lmrrg.metrics.clinical import positives
from lmrrg.metrics.embedded.backend import EmbeddedBackend, RuleLabeler
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import LABELS, Study

BACKEND = EmbeddedBackend()


@pytest.fixture(scope="module")
def training(tiny_studies: list[Study]) -> list[Study]:
    """The evaluated studies, and one that is normal."""
    normal = "The heart is normal in size. The lungs are clear. No pneumothorax is seen."
    return [*tiny_studies, replace(tiny_studies[0], id="normal", findings=normal)]


@pytest.fixture(scope="module")
def unseen(tiny_config: Config, tiny_studies: list[Study]) -> EvaluationSet:
    studies = [replace(study, labels=None) for study in tiny_studies]
    return evaluation_set(studies, tiny_config.data, RuleLabeler())


@pytest.fixture(scope="module")
def seen(unseen: EvaluationSet) -> EvaluationSet:
    """The same studies with an image encoder that is nearly sure of the true labels."""
    truth = torch.from_numpy(positives(unseen.labels, "positive"))
    evidence = torch.where(truth, 0.9, 0.01).float()
    return replace(unseen, features=replace(unseen.features, evidence=evidence))


def _written(
    evaluated: EvaluationSet, training: list[Study], config: Config, threshold: float = 0.2
) -> dict[str, SystemReports]:
    made = _baselines(evaluated, training, config, threshold)
    return {one.name: one for one in made.systems}


def _baselines(
    evaluated: EvaluationSet, training: list[Study], config: Config, threshold: float = 0.2
) -> Baselines:
    return baseline_systems(
        evaluated, training, config.data, "positive", threshold, BACKEND, config.seed
    )


def test_the_nearest_baseline_finds_the_same_image_and_all_copy_training_reports(
    tiny_config: Config, tiny_studies: list[Study], unseen: EvaluationSet
) -> None:
    systems = _written(unseen, list(reversed(tiny_studies)), tiny_config)
    assert systems["nearest"].reports == unseen.references
    for name in ("constant", "best_constant"):
        assert len(set(systems[name].reports)) == 1
    for name in ("constant", "best_constant", "nearest", "random"):
        assert set(systems[name].reports) <= set(unseen.references)
    assert all(one.finished == [True] * len(tiny_studies) for one in systems.values())
    with pytest.raises(EvaluationError, match="no_training"):
        _written(unseen, [], tiny_config)


def test_without_a_class_head_what_needs_one_is_left_out_with_the_reason(
    tiny_config: Config, training: list[Study], unseen: EvaluationSet
) -> None:
    systems, left_out = _baselines(unseen, training, tiny_config)
    names = [one.name for one in systems]
    assert names == ["constant", "best_constant", "nearest", "random", "oracle_template"]
    assert [one.name for one in systems if one.is_oracle] == ["oracle_template"]
    assert left_out == {
        TITLES["template"]: NO_EVIDENCE,
        TITLES["label_matched"]: NO_EVIDENCE,
    }


def test_reports_from_right_labels_name_the_right_findings(
    tiny_config: Config, training: list[Study], seen: EvaluationSet
) -> None:
    systems = _written(seen, training, tiny_config)
    truth = [_findings(report) for report in seen.references]
    assert any(truth)
    for name in ("template", "label_matched", "oracle_template"):
        assert [_findings(report) for report in systems[name].reports] == truth
    assert systems["template"].reports == systems["oracle_template"].reports


def test_a_threshold_above_every_probability_leaves_normal_reports(
    tiny_config: Config, training: list[Study], seen: EvaluationSet
) -> None:
    systems = _written(seen, training, tiny_config, threshold=0.95)
    for name in ("template", "label_matched"):
        assert not any(_findings(report) for report in systems[name].reports)


def test_training_reports_without_a_normal_one_leave_the_templates_out(
    tiny_config: Config, tiny_studies: list[Study], seen: EvaluationSet
) -> None:
    abnormal = [study for study in tiny_studies if _findings(study.findings)]
    made = _baselines(seen, abnormal, tiny_config)
    assert [one.name for one in made.systems][-1] == "label_matched"
    assert set(made.left_out) == {TITLES["template"], TITLES["oracle_template"]}
    assert all("abnormal finding" in reason for reason in made.left_out.values())


def _findings(report: str) -> frozenset[str]:
    labels = label_report(report)
    return frozenset(label for label in LABELS if labels.get(label) == 1 and label != "No Finding")
