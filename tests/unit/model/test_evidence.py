"""Evidence: operating points, noise for training, imitation, words and tokens in the model."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from lmrrg.config.model import EvidenceConfig, ModelConfig
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import load_checkpoint, save_checkpoint
from lmrrg.model.decoder import DecoderError, build_tokenizer
from lmrrg.model.evidence import (
    FEWEST_POSITIVES,
    FINDINGS,
    NEVER,
    PRECISIONS,
    EvidenceError,
    at_thresholds,
    checkpoint_thresholds,
    imitated_evidence,
    noisy_evidence,
    precision_table,
    stated_findings,
    thresholds_of,
)
from lmrrg.model.generator import VISUAL_TOKENS, ReportGenerator
from lmrrg.model.prompts import check_prompt_length, prompt_ids
from lmrrg.studies import LABELS, Study
from lmrrg.vision.study_features import StudyFeatures
from tests.conftest import SENTENCES
from tests.support.new_model import new_model

WORDS = ModelConfig(evidence_words=True)
EDEMA = LABELS.index("Edema")
NO_FINDING = LABELS.index("No Finding")


def features_with(evidence: torch.Tensor) -> StudyFeatures:
    rows = len(evidence)
    return StudyFeatures(
        torch.zeros(rows, 1, 1, 1),
        torch.zeros(rows, 1, dtype=torch.long),
        torch.ones(rows, 1, dtype=torch.bool),
        evidence,
    )


def probabilities(rows: int, seed: int = 0) -> torch.Tensor:
    return torch.rand(rows, len(LABELS), generator=torch.Generator().manual_seed(seed))


def with_evidence(config: Config, **changes: bool) -> Config:
    return config.model_copy(update={"model": config.model.model_copy(update=changes)})


def test_an_operating_point_keeps_what_is_probable_enough_and_never_no_finding():
    evidence = probabilities(20)
    found = at_thresholds(features_with(evidence), WORDS, torch.full((14,), 0.4)).evidence
    kept = evidence >= 0.4
    kept[:, NO_FINDING] = False
    assert torch.equal(found, torch.where(kept, evidence, 0.0))


def test_every_study_may_have_an_operating_point_of_its_own():
    evidence = probabilities(2)
    thresholds = torch.stack([torch.full((14,), 0.1), torch.full((14,), 0.9)])
    found = at_thresholds(features_with(evidence), WORDS, thresholds).evidence
    for row in range(2):
        alone = at_thresholds(features_with(evidence[[row]]), WORDS, thresholds[row]).evidence
        assert torch.equal(found[row], alone[0])


def test_without_a_class_head_there_is_no_evidence_and_nobody_is_told_a_lie():
    blind = features_with(torch.full((2, 14), torch.nan))
    point = torch.full((14,), 0.5)
    for model in (WORDS, ModelConfig(evidence_tokens=True)):
        with pytest.raises(EvidenceError, match="no_evidence"):
            at_thresholds(blind, model, point)
    assert at_thresholds(blind, ModelConfig(), point) is blind


@pytest.mark.parametrize("seed", range(3))
def test_the_thresholds_reach_the_precision_and_no_lower_one_does(seed: int):
    evidence = (probabilities(120, seed) * 40).round() / 40  # with ties
    truth = torch.rand(120, 14, generator=torch.Generator().manual_seed(seed + 9)) < evidence**2
    table = precision_table(evidence, truth)
    assert table.shape == (PRECISIONS, 14)
    for index, wanted in enumerate(torch.arange(1, 20) / 20):
        for column in range(14):
            assert truth[:, column].sum() >= FEWEST_POSITIVES
            reaching = [
                value
                for value in evidence[:, column].unique().tolist()
                if truth[evidence[:, column] >= value, column].float().mean() >= wanted - 1e-6
            ]
            assert table[index, column] == pytest.approx(min(reaching, default=NEVER))


def test_a_rare_class_shares_the_threshold_of_all_findings():
    evidence = probabilities(60)
    truth = torch.rand(60, 14, generator=torch.Generator().manual_seed(4)) < evidence
    rare = truth.clone()
    rare[:, EDEMA] = False
    rare[0, EDEMA] = True
    table = precision_table(evidence, rare)
    wanted = round(0.6 * 20) - 1
    pooled = evidence[:, : len(FINDINGS)].flatten()
    stated = rare[:, : len(FINDINGS)].flatten()
    reaching = [v for v in pooled.tolist() if stated[pooled >= v].float().mean() >= 0.6]
    assert table[wanted, EDEMA] == pytest.approx(min(reaching, default=NEVER))


def test_a_target_precision_reads_its_row_of_the_table():
    table = torch.arange(PRECISIONS * 14).reshape(PRECISIONS, 14).float()
    for step in (1, 7, 11, 19):
        settings = EvidenceConfig(precision=step / 20)
        assert torch.equal(thresholds_of(settings, table), table[step - 1])
    assert torch.equal(thresholds_of(EvidenceConfig(threshold=0.3), None), torch.full((14,), 0.3))
    with pytest.raises(EvidenceError, match="no_thresholds"):
        thresholds_of(EvidenceConfig(precision=0.5), None)


def test_training_evidence_drops_and_invents_as_often_as_asked_and_anew_in_every_epoch():
    frequent = torch.linspace(0.02, 0.3, 14)
    truth = torch.rand(4000, 14, generator=torch.Generator().manual_seed(1)) < frequent
    told = noisy_evidence(truth, 0.1, 0.2, 7, 0)
    named = told > 0
    findings = slice(0, NO_FINDING)
    kept = (named & truth)[:, findings].sum() / truth[:, findings].sum()
    assert 0.89 < kept < 0.93
    invented = (named & ~truth)[:, findings]
    assert 0.14 < invented.any(1).float().mean() < 0.2  # some choose what is there already
    assert invented.sum(0)[-1] > 3 * invented.sum(0)[0]  # as frequent findings more often
    assert not named[:, NO_FINDING].any()
    assert told.max() <= 1
    assert torch.equal(told, noisy_evidence(truth, 0.1, 0.2, 7, 0))
    assert not torch.equal(named, noisy_evidence(truth, 0.1, 0.2, 7, 1) > 0)


def test_without_noise_the_evidence_names_exactly_what_the_reports_say():
    truth = torch.rand(50, 14, generator=torch.Generator().manual_seed(1)) < 0.3
    truth[:, NO_FINDING] = False
    assert torch.equal(noisy_evidence(truth, 0.0, 0.0, 0, 0) > 0, truth)
    nothing = torch.zeros(3, 14, dtype=torch.bool)
    assert not noisy_evidence(nothing, 0.1, 1.0, 0, 0).any()


def test_imitated_evidence_is_as_often_right_as_that_of_the_validation_studies():
    validation = torch.rand(400, 14, generator=torch.Generator().manual_seed(2)) < 0.3
    evidence = torch.where(validation, 0.3, 0.1) + 0.5 * probabilities(400)
    training = torch.rand(5000, 14, generator=torch.Generator().manual_seed(3)) < 0.4
    drawn = imitated_evidence(training, evidence, validation, 7)
    for state in (True, False):
        expected = (evidence > 0.45)[validation == state].float().mean()
        found = (drawn > 0.45)[training == state].float().mean()
        assert found == pytest.approx(float(expected), abs=0.02)
    assert torch.equal(drawn, imitated_evidence(training, evidence, validation, 7))


def test_a_class_that_validation_lacks_gets_any_of_the_encoders_answers():
    validation = torch.zeros(30, 14, dtype=torch.bool)
    evidence = probabilities(30)
    drawn = imitated_evidence(torch.ones(10, 14, dtype=torch.bool), evidence, validation, 0)
    for column in range(14):
        assert set(drawn[:, column].tolist()) <= set(evidence[:, column].tolist())


def test_studies_without_labels_are_read(tiny_studies: list[Study]):
    texts = ("The heart is enlarged.", "Possible pneumonia.", "No pleural effusion.")
    studies = [replace(tiny_studies[0], findings=text, labels=None) for text in texts]
    studies.append(replace(tiny_studies[0], labels={"Edema": -1, "Fracture": 0}))
    stated = stated_findings(studies, "findings")
    names = [[LABELS[i] for i in row.nonzero().flatten().tolist()] for row in stated]
    assert "Cardiomegaly" in names[0]
    assert "Pneumonia" in names[1]
    assert "Pleural Effusion" not in names[2]
    assert names[3] == ["Edema"]


def test_the_prompt_names_the_findings_between_instruction_and_indication(tiny_config: Config):
    config = with_evidence(tiny_config, evidence_words=True, use_indication=True).model
    tokenizer = build_tokenizer(config, SENTENCES)
    evidence = torch.zeros(14)
    evidence[[1, 9]] = 0.3
    ids = prompt_ids(tokenizer, config, "Cough.", "", evidence)
    said = " findings : cardiomegaly , pleural effusion indication : Cough.\n"
    assert tokenizer.decode(ids) == config.instruction + said
    ids = prompt_ids(tokenizer, config, "", "", torch.zeros(14))
    assert tokenizer.decode(ids) == config.instruction + " findings : none\n"
    for nothing in (None, torch.full((14,), torch.nan)):
        with pytest.raises(EvidenceError, match="no_evidence"):
            prompt_ids(tokenizer, config, "Cough.", "", nothing)


@pytest.mark.parametrize("setting", ["evidence_words", "evidence_tokens"])
def test_the_longest_prompt_counts_the_evidence(tiny_config: Config, setting: str):
    plain = with_evidence(tiny_config)
    tokenizer = build_tokenizer(plain.model, SENTENCES)
    used = 30 + len(prompt_ids(tokenizer, plain.model, "")) + plain.data.max_report_tokens
    decoder = plain.model.decoder.model_copy(update={"max_positions": used})
    exact = plain.model_copy(update={"model": plain.model.model_copy(update={"decoder": decoder})})
    check_prompt_length(tokenizer, exact)
    with pytest.raises(DecoderError, match="prompt_too_long"):
        check_prompt_length(tokenizer, with_evidence(exact, **{setting: True}))


@pytest.fixture(scope="module")
def seeing(tiny_config: Config) -> ReportGenerator:
    config = with_evidence(tiny_config, evidence_words=True, evidence_tokens=True)
    return new_model(config, SENTENCES).eval()


def test_a_token_for_each_finding_follows_the_visual_tokens(
    seeing: ReportGenerator, features: StudyFeatures
):
    evidence = probabilities(4)
    with torch.no_grad():
        one = seeing.visual(replace(features, evidence=evidence)).tokens
        half = seeing.visual(replace(features, evidence=evidence / 2)).tokens
        nothing = seeing.visual(replace(features, evidence=torch.zeros(4, 14))).tokens
    assert one.shape[1] == seeing.visual_tokens == VISUAL_TOKENS + len(FINDINGS)
    assert torch.equal(one[:, :VISUAL_TOKENS], nothing[:, :VISUAL_TOKENS])
    torch.testing.assert_close(one[:, VISUAL_TOKENS:], 2 * half[:, VISUAL_TOKENS:])
    assert not nothing[:, VISUAL_TOKENS:].any()
    words = seeing.decoder.get_input_embeddings().weight.std()
    assert 0.5 < one[:, VISUAL_TOKENS:].std() / words < 2
    with pytest.raises(EvidenceError, match="no_evidence"):
        seeing.visual(features)


def test_a_checkpoint_keeps_tokens_and_thresholds(seeing: ReportGenerator, tmp_path: Path):
    table = torch.linspace(0, 1, PRECISIONS * 14).reshape(PRECISIONS, 14)
    seeing.evidence_thresholds.copy_(table)
    save_checkpoint(seeing, tmp_path / "m", {})
    again = load_checkpoint(tmp_path / "m")
    assert torch.equal(again.finding_tokens.weight, seeing.finding_tokens.weight)
    assert torch.equal(again.evidence_thresholds, table)
    found = checkpoint_thresholds(tmp_path / "m", EvidenceConfig(precision=0.5))
    assert torch.equal(found, table[9])
    plain = checkpoint_thresholds(tmp_path / "m", EvidenceConfig(threshold=0.2))
    assert torch.equal(plain, torch.full((14,), 0.2))


def test_a_model_without_evidence_has_no_thresholds_for_a_precision(tiny_checkpoint: Path):
    with pytest.raises(EvidenceError, match="no_thresholds"):
        checkpoint_thresholds(tiny_checkpoint, EvidenceConfig(precision=0.5))
