"""R2Gen's text handling, case by case, and its vocabulary and cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from lmrrg.config.evaluation import EvaluationConfig
from lmrrg.metrics.text.conventions import (
    R2GEN_SETTINGS,
    UNKNOWN,
    Coco,
    R2Gen,
    Raw,
    clean_r2gen,
    make_convention,
    r2gen_dataset,
)


@pytest.mark.parametrize(
    ("text", "clean"),
    [
        ("The heart is normal. Lungs are CLEAR.", "the heart is normal . lungs are clear ."),
        ("No effusion", "no effusion ."),
        ("T-spine: mild, (old) change/s.", "t-spine mild old changes ."),  # the hyphen stays
        ("1. Clear lungs. 2. No effusion.", "clear lungs . no effusion ."),
        ("Stable.. No change...", "stable . no change ."),
        ('A "3.5 cm" mass isn\'t seen.', "a 35 cm mass isnt seen ."),
        (
            "size <5 mm = small @ base",
            "size 5 mm  small  base .",
        ),  # a range in R2Gen's pattern removes < = @
        ("Heart normal. . Lungs clear.", "heart normal .  . lungs clear ."),  # empty sentences stay
        ("XXXX opacity.", "xxxx opacity ."),
    ],
)
def test_cleaning(text: str, clean: str) -> None:
    assert clean_r2gen(text) == clean


def test_mimic_cleaning_joins_lines_and_masks() -> None:
    text = "Lungs are\nclear.  Seen by ___ on ____."
    assert clean_r2gen(text, "mimic-cxr") == "lungs are clear . seen by  on  ."
    assert "\n" in clean_r2gen(text, "iu-xray")


def test_rare_words_of_references_become_unknown() -> None:
    training = ["heart normal.", "heart normal.", "heart normal. cardiomegaly."]
    convention = R2Gen.from_training_reports(training, threshold=3, reference_tokens=60)
    assert convention.reference("Heart normal. Cardiomegaly.") == f"heart normal . {UNKNOWN} ."
    assert convention.hypothesis("Heart normal. Cardiomegaly.") == "heart normal . cardiomegaly ."


@pytest.mark.parametrize(("dataset", "words"), [("iu-xray", 59), ("mimic-cxr", 99)])
def test_the_cut_counts_the_start_token(dataset: str, words: int) -> None:
    threshold, tokens = R2GEN_SETTINGS[dataset]
    convention = R2Gen(None, threshold, tokens, dataset)
    report = " ".join(["lung"] * 300)
    assert len(convention.reference(report).split()) == words
    assert len(convention.hypothesis(report).split()) == 301


def test_the_stamp_says_everything() -> None:
    convention = R2Gen.from_training_reports(["clear lungs."] * 3, threshold=3, reference_tokens=60)
    assert convention.describe() == {
        "name": "r2gen",
        "dataset": "iu-xray",
        "vocabulary_threshold": 3,
        "vocabulary_words": 3,
        "reference_tokens": 60,
    }


def test_settings_choose_the_convention() -> None:
    assert isinstance(make_convention(EvaluationConfig(), []), Raw)
    convention = make_convention(EvaluationConfig(convention="r2gen"), ["clear lungs."] * 3)
    assert convention.reference("clear bones") == f"clear {UNKNOWN} ."


@pytest.mark.parametrize(("dataset", "published"), R2GEN_SETTINGS.items())
def test_what_the_settings_leave_open_is_as_published_for_the_data_set(
    dataset: str, published: tuple[int, int]
) -> None:
    open_settings = EvaluationConfig(convention="r2gen")
    stamp = make_convention(open_settings, ["clear lungs."], dataset).describe()
    assert (stamp["dataset"], stamp["vocabulary_threshold"], stamp["reference_tokens"]) == (
        dataset,
        *published,
    )
    assert make_convention(open_settings, [], dataset) == R2Gen(None, None, published[1], dataset)
    chosen = EvaluationConfig(convention="r2gen", vocabulary_threshold=2, reference_tokens=7)
    stamp = make_convention(chosen, ["clear lungs."], dataset).describe()
    assert (stamp["vocabulary_threshold"], stamp["reference_tokens"]) == (2, 7)


def test_an_empty_report_stays_empty() -> None:
    assert R2Gen(None, None).hypothesis("  ") == ""


@given(st.text())
def test_raw_changes_nothing(text: str) -> None:
    assert Raw().hypothesis(text) == Raw().reference(text) == text


@given(st.text(alphabet="ab .,-1"))
def test_cleaned_text_has_only_separate_periods(text: str) -> None:
    assert all("." not in token or token == "." for token in clean_r2gen(text).split())


def test_the_source_of_the_studies_decides_whose_cleaning_applies():
    assert r2gen_dataset(["mimic-cxr", "mimic-cxr"]) == "mimic-cxr"
    assert (
        r2gen_dataset(["iu-xray"])
        == r2gen_dataset(["mimic-cxr", "csv"])
        == r2gen_dataset([])
        == "iu-xray"
    )


def test_a_generated_unknown_word_stays_one_word() -> None:
    convention = R2Gen(frozenset({"no", "effusion", "."}), 3)
    reference = convention.reference("No loculated effusion.")
    assert reference == "no <unk> effusion ."
    assert convention.hypothesis(reference).split() == reference.split()
    assert clean_r2gen("a < b > c <b>") == "a  b  c b ."


def test_coco_lowers_case_and_drops_punctuation() -> None:
    ours = Coco().hypothesis("1. Heart (enlarged), isn't 2.5 cm; the T-spine's 50% -- <unk>!")
    assert ours == "1 heart enlarged is n't 2.5 cm the t-spine 's 50 % <unk>"
