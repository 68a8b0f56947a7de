"""The reward: exact values, the guards, and that a failure is never a number."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import fields

import numpy as np
import pytest
import yaml
from hypothesis import given
from hypothesis import strategies as st

from lmrrg.config.reward import RewardConfig, RewardParts
from lmrrg.metrics.backends import make_backend, score_parts
from lmrrg.metrics.coherence.find import find_faults, repairs
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.parts import Parts
from lmrrg.metrics.radcliq import WORST_V1, radcliq_v1
from lmrrg.metrics.reward import RadCliQReward, RewardScores, length_excess, repeated_trigrams
from tests.support.paths import ROOT

FREE = RewardConfig(repetition_penalty=0, no_eos_penalty=0, incoherence_penalty=0)
REPORT = "heart size is normal . no effusion ."


class WordOverlap:
    """A backend that remembers what it was asked, and cannot score the word "unreadable"."""

    name = "word-overlap"
    version = "1"

    def __init__(self) -> None:
        self.asked: list[tuple[str, str]] = []

    def score(self, hypotheses: Sequence[str], references: Sequence[str]) -> Parts:
        self.asked += zip(hypotheses, references, strict=True)
        values = np.array(
            [self._overlap(h, r) for h, r in zip(hypotheses, references, strict=True)]
        )
        return Parts(**{field.name: values for field in fields(Parts)})

    @staticmethod
    def _overlap(hypothesis: str, reference: str) -> float:
        if "unreadable" in hypothesis:
            return math.nan
        ours, theirs = set(hypothesis.split()), set(reference.split())
        return len(ours & theirs) / len(ours | theirs)


def score(reports: list[str], references: list[str], settings: RewardConfig = FREE) -> RewardScores:
    return RadCliQReward(settings, WordOverlap()).score(
        reports, references, None, [True] * len(reports)
    )


def test_reward_is_minus_radcliq_of_the_parts() -> None:
    scores = score(["heart normal", REPORT], [REPORT, REPORT])
    np.testing.assert_allclose(
        scores.reward, -radcliq_v1(scores.radgraph, scores.bertscore, scores.semb)
    )
    assert scores.reward[1] == pytest.approx(1.44069, abs=1e-5)
    assert scores.reward[0] < scores.reward[1]
    assert scores.valid.all()


@pytest.mark.parametrize("empty", ["", "   \n", " . "])
def test_empty_report_gets_exactly_the_worst_score_and_no_penalty(empty: str) -> None:
    settings = RewardConfig(length_penalty=1.0)
    scores = RadCliQReward(settings, WordOverlap()).score([empty], [REPORT], [[]], [False])
    assert scores.reward[0] == pytest.approx(-2.4501, abs=1e-4)
    assert scores.radcliq_v1[0] == WORST_V1
    assert scores.valid[0]


def test_a_failure_is_not_valid_and_not_a_number() -> None:
    scores = score(["unreadable heart", REPORT], [REPORT, REPORT])
    assert scores.valid.tolist() == [False, True]
    assert np.isnan(scores.reward[0])
    assert np.isfinite(scores.reward[1])


def test_an_empty_reference_cannot_be_scored() -> None:
    assert score([REPORT], [""]).valid.tolist() == [False]


def test_reward_stays_inside_the_clip() -> None:
    settings = RewardConfig(clip_low=-1.0, clip_high=1.0, no_eos_penalty=5.0)
    scores = RadCliQReward(settings, WordOverlap()).score(
        [REPORT, "x y"], [REPORT] * 2, None, [True, False]
    )
    assert scores.reward.tolist() == [1.0, -1.0]


def test_penalties_are_returned_and_subtracted() -> None:
    settings = RewardConfig(
        length_penalty=0.3,
        repetition_penalty=0.5,
        no_eos_penalty=0.25,
        incoherence_penalty=0,
        clip_low=-100,
    )
    repeated = " ".join([REPORT] * 4)
    scores = RadCliQReward(settings, WordOverlap()).score(
        [REPORT, repeated], [REPORT] * 2, None, [True, False]
    )
    assert scores.length_penalty == pytest.approx([0, 0.3 * math.log(2)])
    assert scores.no_eos_penalty.tolist() == [0, 0.25]
    assert scores.repetition_penalty == pytest.approx(
        [0, 0.5 * repeated_trigrams(repeated.split())]
    )
    penalties = scores.length_penalty + scores.repetition_penalty + scores.no_eos_penalty
    np.testing.assert_allclose(scores.reward, -scores.radcliq_v1 - penalties)


def test_tokens_decide_repetition_where_they_are_given() -> None:
    settings = RewardConfig(repetition_penalty=1.0)
    tokens = [[1, 2, 3, 1, 2, 3], [1, 2, 3, 4, 5, 6]]
    scores = RadCliQReward(settings, WordOverlap()).score(
        [REPORT] * 2, [REPORT] * 2, tokens, [True] * 2
    )
    assert scores.repetition_penalty == pytest.approx([0.25, 0.0])


def test_identical_pairs_are_scored_once() -> None:
    backend = WordOverlap()
    reports = [REPORT, "lungs clear", REPORT, "", REPORT]
    scores = RadCliQReward(FREE, backend).score(reports, ["lungs clear"] * 5, None, [True] * 5)
    assert sorted(backend.asked) == [(REPORT, "lungs clear"), ("lungs clear", "lungs clear")]
    assert scores.reward[0] == scores.reward[2] == scores.reward[4]


def test_order_of_the_batch_does_not_matter() -> None:
    reports, references = (
        [REPORT, "lungs clear", "", "heart normal"],
        [REPORT, REPORT, "lungs clear", "clear lungs"],
    )
    order = [2, 0, 3, 1]
    plain = score(reports, references).reward
    shuffled = score([reports[i] for i in order], [references[i] for i in order]).reward
    np.testing.assert_array_equal(plain[order], shuffled)


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(MetricError, match="length_mismatch"):
        RadCliQReward(FREE, WordOverlap()).score([REPORT], [REPORT, REPORT], None, [True])
    with pytest.raises(MetricError, match="length_mismatch"):
        score_parts(WordOverlap(), [REPORT], [])


def test_no_reports_are_no_scores() -> None:
    assert score([], []).reward.shape == (0,)


def test_embedded_backend_by_its_setting() -> None:
    backend = make_backend(RewardConfig())
    assert backend.name == "radcliq-embedded"
    scores = RadCliQReward(FREE, backend).score(
        [REPORT, "No heart."], [REPORT, REPORT], None, [True, True]
    )
    assert scores.reward[0] > scores.reward[1]


@given(st.lists(st.integers(0, 3), max_size=20))
def test_repeated_trigrams_by_definition(sequence: list[int]) -> None:
    seen: set[tuple[int, ...]] = set()
    repeats = 0
    trigrams = [tuple(sequence[i : i + 3]) for i in range(len(sequence) - 2)]
    for trigram in trigrams:
        repeats += trigram in seen
        seen.add(trigram)
    assert repeated_trigrams(sequence) == pytest.approx(repeats / len(trigrams) if trigrams else 0)


def test_length_is_free_up_to_a_factor_of_two() -> None:
    assert length_excess(20, 10) == length_excess(5, 10) == 0
    assert (
        length_excess(40, 10) == pytest.approx(length_excess(10, 40)) == pytest.approx(math.log(2))
    )


INCOHERENT = yaml.safe_load(
    (ROOT / "tests/unit/metrics/coherence/incoherent_reports.yaml").read_text(encoding="utf-8")
)
OTHER_REFERENCES = [
    "The lungs are clear. No effusion or pneumothorax. Heart size is normal.",
    "Small right pneumothorax. Large left pleural effusion.",
    "Severe cardiomegaly with pulmonary edema. A pacemaker is on the left.",
    "Consolidation in the right lower lobe. No effusion.",
]


@pytest.mark.parametrize("kind", INCOHERENT)
def test_no_fault_pays_whatever_the_reference(kind: str) -> None:
    clean, faulty, references = [], [], []
    for without, with_fault in INCOHERENT[kind]:
        # The references in which one of the two sides is right are the ones that tempt.
        sides = repairs(with_fault, find_faults(with_fault))
        for reference in filter(None, (without, *sides, *OTHER_REFERENCES)):
            clean.append(without)
            faulty.append(with_fault)
            references.append(reference)
    scorer = RadCliQReward(RewardConfig())
    finished = [True] * len(clean)
    earned = scorer.score(faulty, references, None, finished)
    honest = scorer.score(clean, references, None, finished)
    assert (earned.reward < honest.reward).all(), [
        (faulty[i], references[i]) for i in np.flatnonzero(earned.reward >= honest.reward)
    ]
    assert (earned.faults > 0).all()
    assert not honest.faults.any()


def test_an_exact_copy_of_a_reference_with_a_fault_pays_nothing() -> None:
    text = "No pneumothorax. Heart size is normal. There is no pneumothorax."
    scores = RadCliQReward(RewardConfig()).score([text], [text], None, [True])
    assert scores.incoherence_penalty[0] == 0
    assert scores.radcliq_v1[0] == pytest.approx(-1.4407, abs=1e-4)


def test_without_a_price_nothing_is_taken_off_and_faults_are_counted() -> None:
    contradiction = "No pneumothorax. There is a right pneumothorax."
    scores = RadCliQReward(RewardConfig(incoherence_penalty=0)).score(
        [contradiction], ["There is a right pneumothorax."], None, [True]
    )
    assert scores.faults[0] == 1
    assert scores.incoherence_penalty[0] == 0
    assert scores.reward[0] == -scores.radcliq_v1[0]


def test_parts_are_weighted_and_added() -> None:
    reports = ["Small left effusion.", "Mild edema.", "No effusion. Left effusion."]
    references = ["Large left effusion. Mild edema."] * 3
    plain = RadCliQReward(RewardConfig(incoherence_penalty=0))
    parts = RewardParts(radcliq=0.5, label_f1=0.4, coherence=0.2)
    mixed = RadCliQReward(RewardConfig(incoherence_penalty=0, parts=parts))
    alone = plain.score(reports, references, None, [True] * 3)
    both = mixed.score(reports, references, None, [True] * 3)
    assert np.isnan(alone.label_f1).all()
    assert both.label_f1 == pytest.approx([2 / 3, 2 / 3, 2 / 3])
    expected = -0.5 * alone.radcliq_v1 + 0.4 * both.label_f1 + [0.2, 0.2, 0.0]
    assert both.reward == pytest.approx(expected)


def test_a_part_alone_needs_no_radcliq() -> None:
    parts = RewardParts(radcliq=0, label_f1=1)
    scores = RadCliQReward(RewardConfig(parts=parts)).score(
        ["Mild edema.", "", "Mild edema."], ["Mild edema.", "Mild edema.", ""], None, [True] * 3
    )
    assert scores.reward[:2].tolist() == [1, 0]
    assert scores.valid.tolist() == [True, True, False]


def test_a_reward_of_no_part_is_refused() -> None:
    with pytest.raises(ValueError, match="no part a weight above 0"):
        RewardParts(radcliq=0)
