"""Which sampled reports the run report shows, with what credit."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from lmrrg.config.loading import load_config
from lmrrg.config.ppo import PPOConfig
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.metrics.reward import RadCliQReward
from lmrrg.model.decoder import train_tokenizer
from lmrrg.policy.batches import PolicyOutputs
from lmrrg.policy.credited_reports import read_credited, write_credited
from lmrrg.vision.study_features import StudyFeatures
from rl.credit.sentences import SentenceRewards, Sentences
from rl.credit.shown import SHOWN_REPORTS, SHOWN_STUDIES, credited_reports
from rl.experience import ScoredBatch, make_sample
from rl.study_pool import StudyBatch

HEART, CLEAR = "The heart is normal in size.", "The lungs are clear."
ABNORMAL = [False, True, False, False, True]
SAMPLES = 4


@pytest.fixture(scope="module")
def cutter() -> Sentences:
    tokenizer = train_tokenizer([f"{HEART} {CLEAR}"], vocabulary=300)
    return Sentences(tokenizer, PPOConfig())


def batch(cutter: Sentences) -> ScoredBatch:
    studies = len(ABNORMAL)
    features = StudyFeatures(
        torch.zeros(studies, 1, 4, 3), torch.zeros(studies, 1).long(), torch.ones(studies, 1).bool()
    )
    of_studies = StudyBatch(
        features,
        [[1]] * studies,
        [f"reference {number}" for number in range(studies)],
        [5] * studies,
        [{}] * studies,
        ABNORMAL,
    )
    tokenizer = cutter._tokenizer
    ids = tokenizer(f"{HEART} {CLEAR}", add_special_tokens=False)["input_ids"]
    report = GeneratedReport(ids, [-0.5] * len(ids), f"{HEART} {CLEAR}", finished=False)
    sample = make_sample(
        list(range(studies)), of_studies, [[report] * SAMPLES] * studies, version=0
    )
    texts = [""] * len(sample.reports)  # unreadable references are not scored
    references = [CLEAR if row else "" for row in range(len(texts))]
    rewards = RadCliQReward(load_config().reward).score(
        texts, references, None, [True] * len(texts)
    )
    outputs = PolicyOutputs(*[sample.engine_log_probs] * 3)
    rated = SentenceRewards(cutter.numbers(ids), np.array([0.1, 0.2]))
    return ScoredBatch(
        sample,
        rewards,
        np.zeros(studies),
        outputs,
        sample.engine_log_probs,
        0,
        sentences=[rated] * len(texts),
    )


def test_abnormal_studies_come_first_whatever_they_earn(cutter: Sentences, tmp_path: Path) -> None:
    scored = batch(cutter)
    credits = [np.array([0.5, -0.25, -0.1])] * len(scored.sample.reports)
    ppo = PPOConfig(samples_per_study=SAMPLES, credit="leave_one_out", credit_weight=3.0)
    ids = [f"study {number}" for number in range(len(ABNORMAL))]
    shown = credited_reports(scored, cutter, credits, ppo, 40, ids)
    assert [study.id for study in shown.studies] == ["study 1", "study 4", "study 0"]
    assert shown.studies[0].reference == "reference 1"
    assert len(shown.studies) == SHOWN_STUDIES
    for study in shown.studies:
        assert len(study.reports) == SHOWN_REPORTS
    report = shown.studies[0].reports[0]
    assert [(one.text, one.credit) for one in report.sentences] == [(HEART, 0.5), (CLEAR, -0.25)]
    assert (report.end, report.finished) == (-0.1, False)
    assert report.reward == pytest.approx(-2.4501, abs=1e-4)
    assert shown.studies[2].reports[0].reward is None, "it could not be scored"
    assert math.isfinite(shown.weight)
    write_credited(tmp_path / "ppo" / "credited.json", shown)
    assert read_credited(tmp_path / "ppo" / "credited.json") == shown
