"""METEOR against the values of the Java scorer (METEOR 1.5, -l en -norm) for the same texts."""

from __future__ import annotations

import numpy as np
import pytest

from lmrrg.metrics.parts import Array
from lmrrg.metrics.text.meteor import data as meteor_data
from lmrrg.metrics.text.meteor.align import EXACT, PARAPHRASE, STEM, SYNONYM, align
from lmrrg.metrics.text.meteor.score import meteor_counts, meteor_from_counts
from lmrrg.metrics.text.meteor.tokens import meteor_tokens

JAVA_CORPUS = 0.3099087821051992
JAVA = (
    ("no acute disease .", "no acute disease .", 1.0),
    (
        "the heart is normal in size . no effusion .",
        "heart size is normal . there is no pleural effusion .",
        0.33755522586710174,
    ),
    ("small left pleural effusions", "a small effusion on the left side", 0.16494845360824745),
    ("lungs are clear", "the heart is enlarged", 0.0),
    (
        "The patient's heart isn't enlarged... no effusion, 1,000 ml.",
        "Patient's heart is not enlarged. No effusion (1,000 ml).",
        0.39136679835089316,
    ),
    (
        "Seen by Dr. Smith. The lungs are clear. stable",
        "S/P C.A.B.G. with Dr. Smith No. 3; lungs -- clear",
        0.1282493549600852,
    ),
    (
        "T-spine: x-ray shows 3.5-cm right-sided 'mass' (new).",
        "x ray of the T spine: a mass of 3.5 cm, right side, is new",
        0.36468630839914784,
    ),
    (
        "a large tumor was found in the big airway",
        "a big tumour was discovered in the large airway",
        0.4370801975846371,
    ),
    ("no no no . the the lungs lungs .", "no lungs . the . no the lungs no .", 0.40305853690934307),
    (
        "cardiomegaly is unchanged compared with the previous examination",
        "unchanged cardiomegaly as compared to the prior exam",
        0.39221814281279993,
    ),
    (
        "there is no evidence of pneumothorax or of an infiltrate",
        "no pneumothorax , no infiltrates",
        0.15920398009950248,
    ),
    (
        "the children were moved and the feet are visible",
        "a child was moving and one foot is visible",
        0.3135350999182451,
    ),
)


@pytest.fixture(scope="module")
def counts() -> Array:
    """Read the paraphrase table once for all tests."""
    return meteor_counts(
        [hypothesis for hypothesis, _, _ in JAVA], [reference for _, reference, _ in JAVA]
    )


def test_reports_equal_java(counts: Array) -> None:
    expected = np.array([score for _, _, score in JAVA])
    np.testing.assert_allclose(meteor_from_counts(counts), expected, atol=1e-9)


def test_corpus_equals_java(counts: Array) -> None:
    assert meteor_from_counts(counts.sum(axis=0)) == pytest.approx(JAVA_CORPUS, abs=1e-9)
    assert meteor_from_counts(counts.mean(axis=0)) == pytest.approx(JAVA_CORPUS, abs=1e-9)


def test_every_stage_is_used() -> None:
    test = ["effusions", "large", "clear", "in", "general", "heart"]
    reference = ["heart", "effusion", "big", "clear", "overall"]
    table = {("overall",): [("in", "general")]}
    matches = align(test, reference, table)
    found = {
        (reference[m.start], " ".join(test[m.test_start : m.test_start + m.test_length])): m.stage
        for m in matches
    }
    assert found == {
        ("heart", "heart"): EXACT,
        ("effusion", "effusions"): STEM,
        ("big", "large"): SYNONYM,
        ("clear", "clear"): EXACT,
        ("overall", "in general"): PARAPHRASE,
    }


def test_alignment_never_uses_a_word_twice(counts: Array) -> None:
    for hypothesis, reference, _ in JAVA:
        test, truth = meteor_tokens(hypothesis), meteor_tokens(reference)
        matches = align(test, truth, {})
        used = [k for m in matches for k in range(m.start, m.start + m.length)]
        test_used = [k for m in matches for k in range(m.test_start, m.test_start + m.test_length)]
        assert len(set(used)) == len(used)
        assert len(set(test_used)) == len(test_used)


@pytest.mark.parametrize(
    ("text", "tokens"),
    [
        ("No effusion. The heart", "no effusion . the heart"),
        ("no effusion. the heart", "no effusion. the heart"),
        ("Dr. Smith, C.A.B.G. done.", "dr. smith , cabg done ."),
        ("a 3.5-cm mass (new); 1,000 ml", "a 3.5 cm mass ( new ) ; 1,000 ml"),
        ("the patient's ``heart''...", 'the patient \'s " heart " ...'),
    ],
)
def test_tokens(text: str, tokens: str) -> None:
    assert meteor_tokens(text) == tokens.split()


def test_the_table_is_read_again_only_for_a_new_word(monkeypatch: pytest.MonkeyPatch) -> None:
    rows = [(b"large", b"big"), (b"big", b"large"), (b"large", b"quite big"), (b"heart", b"core")]
    reads = []

    def table():
        reads.append(1)
        return iter(rows)

    monkeypatch.setattr(meteor_data, "_known_rows", meteor_data._KnownRows())
    monkeypatch.setattr(meteor_data, "_table_rows", table)
    phrases = {("large",), ("big",), ("quite",)}
    assert meteor_data.paraphrases(phrases) == {("large",): [("big",)], ("big",): [("large",)]}
    assert meteor_data.paraphrases({("large",), ("quite", "big")}) == {
        ("large",): [("quite", "big")]
    }
    assert meteor_data.paraphrases({("big",)}) == {}
    assert len(reads) == 1
    assert meteor_data.paraphrases({("heart",), ("core",), ("big",)}) == {("heart",): [("core",)]}
    assert len(reads) == 2


@pytest.mark.parametrize("empty", ["", "  ", "\n"])
def test_an_empty_text_has_no_tokens_and_scores_zero(empty: str) -> None:
    """METEOR of an empty side is 0: no exception, no NaN."""
    assert meteor_tokens(empty) == []
    counts = meteor_counts([empty, "clear lungs"], ["clear lungs", empty])
    np.testing.assert_array_equal(meteor_from_counts(counts), 0.0)
