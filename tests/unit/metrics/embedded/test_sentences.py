"""Negation, uncertainty and their scopes, on sentences written for this test."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.metrics.embedded import lexicon
from lmrrg.metrics.embedded.graph import build_graph
from lmrrg.metrics.embedded.reading.layout import plain_prose
from lmrrg.metrics.embedded.sentences import _SENTENCE_END, read_sentence, sentences_of


def label_of(text: str, word: str) -> str:
    """The one label that a word has in a text."""
    (label,) = {label for token, label in build_graph(text).entities if token == word}
    return label


@pytest.mark.parametrize(
    ("text", "word", "label"),
    [
        ("There is a small effusion.", "effusion", "OBS-DP"),
        ("No effusion.", "effusion", "OBS-DA"),
        ("No focal consolidation, pneumothorax, or effusion.", "effusion", "OBS-DA"),
        ("Lungs are clear without pneumothorax.", "pneumothorax", "OBS-DA"),
        ("Lungs are clear without pneumothorax.", "clear", "OBS-DP"),
        ("Negative for pneumonia.", "pneumonia", "OBS-DA"),
        ("A pneumothorax is not seen.", "pneumothorax", "OBS-DA"),
        ("The heart is not enlarged.", "enlarged", "OBS-DA"),
        ("The pneumothorax has resolved.", "pneumothorax", "OBS-DA"),
        ("No pneumothorax, but a moderate effusion.", "effusion", "OBS-DP"),
        ("No pneumothorax and the heart is enlarged.", "enlarged", "OBS-DP"),
        ("no pneumothorax heart size normal", "normal", "OBS-DP"),
        ("No signs to suggest pneumonia.", "pneumonia", "OBS-DA"),
        ("Opacity may represent pneumonia.", "pneumonia", "OBS-U"),
        ("Opacity may represent pneumonia.", "opacity", "OBS-DP"),
        ("Pneumonia cannot be excluded.", "pneumonia", "OBS-U"),
        ("Possible nodule without effusion.", "effusion", "OBS-DA"),
        ("Possible nodule without effusion.", "nodule", "OBS-U"),
        ("Scarring or atelectasis at the base.", "scarring", "OBS-U"),
        ("Scarring or atelectasis at the base.", "atelectasis", "OBS-U"),
        ("No scarring or atelectasis.", "scarring", "OBS-DA"),
        ("No effusion in the left base.", "left", "ANAT-DP"),
        ("After removal of the tube, a small pneumothorax.", "pneumothorax", "OBS-DP"),
        ("Resolution of the edema and effusion.", "effusion", "OBS-DA"),
        ("No significant interval change in the moderate effusion.", "effusion", "OBS-DP"),
        ("No significant interval change in the moderate effusion.", "change", "OBS-DA"),
        ("Pneumonia is not excluded.", "pneumonia", "OBS-U"),
        ("It is difficult to completely exclude pneumonia.", "pneumonia", "OBS-U"),
        ("CT may help to exclude a nodule.", "nodule", "OBS-U"),
        ("Pneumonia is unlikely.", "pneumonia", "OBS-U"),
        ("Atelectasis, less likely pneumonia.", "pneumonia", "OBS-U"),
        ("The effusion has partially resolved.", "effusion", "OBS-DP"),
        ("The effusion has not resolved.", "effusion", "OBS-DP"),
        ("Near complete resolution of the edema.", "edema", "OBS-DP"),
        ("The pneumothorax is no longer seen.", "pneumothorax", "OBS-DA"),
        ("No pneumothorax is seen and there is a small effusion.", "effusion", "OBS-DP"),
        ("No pneumothorax, while the effusion persists.", "effusion", "OBS-DP"),
        ("No edema despite moderate cardiomegaly.", "cardiomegaly", "OBS-DP"),
        ("No pneumothorax after thoracentesis with a small effusion left.", "effusion", "OBS-DP"),
        ("Pneumothorax: none.", "pneumothorax", "OBS-DA"),
        ("Pneumothorax: No.", "pneumothorax", "OBS-DA"),
        ("Pneumothorax: absent, effusion: small", "pneumothorax", "OBS-DA"),
        ("Pneumothorax: absent, effusion: small", "effusion", "OBS-DP"),
        ("Absent breath motion, no edema.", "edema", "OBS-DA"),
        ("A small effusion and no", "effusion", "OBS-DP"),
        ("Bilateral effusions are suspected.", "effusions", "OBS-U"),
        ("Atelectasis at the base, a trace effusion is hard to exclude.", "effusion", "OBS-U"),
        ("Low volumes, atelectasis, mild edema difficult to exclude.", "atelectasis", "OBS-DP"),
        ("Low volumes, atelectasis, mild edema difficult to exclude.", "edema", "OBS-U"),
        ("The opacity is likely atelectasis.", "opacity", "OBS-DP"),
        ("The opacity is likely atelectasis.", "atelectasis", "OBS-U"),
        ("Opacity: pneumonia vs. atelectasis.", "pneumonia", "OBS-U"),
        ("Pneumonia cannot reliably be excluded.", "pneumonia", "OBS-U"),
        ("Pneumonia can't be fully excluded.", "pneumonia", "OBS-U"),
        ("A small effusion may be present.", "effusion", "OBS-U"),
        ("This is unlikely to be pneumonia.", "pneumonia", "OBS-U"),
        ("It is unclear whether there is a nodule.", "nodule", "OBS-U"),
        ("Underlying pneumonia should be considered.", "pneumonia", "OBS-U"),
        ("A nodule in the apex, CT should be considered.", "nodule", "OBS-DP"),
        ("A pneumothorax is not definitely seen.", "pneumothorax", "OBS-DA"),
        ("A nodule that was not clearly seen previously.", "nodule", "OBS-DP"),
        ("The edema has largely resolved.", "edema", "OBS-DP"),
        ("The edema has completely cleared.", "edema", "OBS-DA"),
        ("No interval increase in the effusion.", "effusion", "OBS-DP"),
        ("No pneumothorax, no change in the effusion.", "effusion", "OBS-DP"),
        ("No increased opacity.", "opacity", "OBS-DA"),
        ("No resolution of the pneumothorax.", "pneumothorax", "OBS-DP"),
        ("Films to ensure resolution of the opacity.", "opacity", "OBS-DP"),
        ("Films demonstrate resolution of the opacity.", "opacity", "OBS-DA"),
        ("No pneumothorax and the effusions are unchanged.", "effusions", "OBS-DP"),
        ("No pneumothorax and effusion is seen.", "effusion", "OBS-DA"),
        ("No pneumothorax, mild atelectasis.", "atelectasis", "OBS-DP"),
        ("No consolidation, small effusion, or pneumothorax.", "effusion", "OBS-DA"),
        ("Probable effusion and mild atelectasis.", "effusion", "OBS-U"),
        ("No edema besides a small effusion.", "effusion", "OBS-DP"),
        ("Nothing to suggest pneumonia.", "pneumonia", "OBS-DA"),
        ("The tip of the tube is not seen.", "tube", "OBS-DP"),
    ],
)
def test_assertion_of_a_word(text: str, word: str, label: str) -> None:
    assert label_of(text, word) == label


@pytest.mark.parametrize(
    "text",
    [
        "Small left effusion. No pneumothorax. Heart size is 5.5 cm.",
        "small left effusion . no pneumothorax . heart size is 5.5 cm .",
        "1. Small left effusion.\n2. No pneumothorax.\n\nHeart size is 5.5 cm",
        "SMALL LEFT EFFUSION; NO PNEUMOTHORAX; HEART SIZE IS 5.5 CM.",
    ],
)
def test_prose_lists_and_lower_case_read_alike(text: str) -> None:
    expected = build_graph("Small left effusion. No pneumothorax. Heart size is 5.5 cm.")
    assert build_graph(text).entities == expected.entities
    assert build_graph(text).relations == expected.relations


@pytest.mark.parametrize(
    "text",
    [
        "- No pneumothorax\n- Moderate cardiomegaly",
        "1) No pneumothorax\n2) Moderate cardiomegaly",
        "PLEURA: No pneumothorax\nHEART: Moderate cardiomegaly",
    ],
)
def test_an_item_of_a_list_is_a_sentence(text: str) -> None:
    assert label_of(text, "pneumothorax") == "OBS-DA"
    assert label_of(text, "cardiomegaly") == "OBS-DP"


def test_a_wrapped_line_is_none() -> None:
    assert label_of("No pneumothorax or\ncardiomegaly", "cardiomegaly") == "OBS-DA"


def test_masked_words_are_no_entities_and_stop_nothing() -> None:
    graph = build_graph("No XXXX effusion. The XXXX are unremarkable.")
    assert graph.entities == {("effusion", "OBS-DA"), ("unremarkable", "OBS-DP")}


def test_words_that_lost_their_hyphen() -> None:
    assert build_graph("leftsided effusion").entities == build_graph("left-sided effusion").entities


@pytest.mark.parametrize("text", ["", " \n", ". . .", "!?", "1.\n2.\n"])
def test_texts_without_a_word(text: str) -> None:
    graph = build_graph(text)
    assert not graph.entities
    assert graph.size == 0
    assert [s for s in sentences_of(text) if read_sentence(s).words] == []


def test_a_word_in_two_classes_is_an_error(monkeypatch: pytest.MonkeyPatch) -> None:
    words = dict.fromkeys(lexicon.WORD_CLASSES, "")
    words |= {"anatomy": "lung heart", "state": "heart"}
    monkeypatch.setattr(lexicon, "read_yaml", lambda name: words)
    lexicon.graph_lexicon.cache_clear()
    with pytest.raises(lexicon.LexiconError, match="'heart'") as caught:
        lexicon.graph_lexicon()
    assert caught.value.code == "two_classes"
    lexicon.graph_lexicon.cache_clear()


@settings(deadline=None)  # the first call reads the lexicons
@given(st.text(alphabet="aB1.;!? \n\t٣İ"))
def test_the_short_way_to_split_a_report_is_the_long_one(text):
    long_way = [part.strip() for part in _SENTENCE_END.split(plain_prose(text))]
    assert sentences_of(text) == [part for part in long_way if part and not part.isdigit()]
