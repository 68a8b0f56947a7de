"""The graph's F1 levels against slow oracles, and the properties that any of them must have."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from lmrrg.metrics.embedded.graph import (
    ReportGraph,
    build_graph,
    graph_scores,
    sentence_graph,
    weighted_f1,
)
from lmrrg.metrics.embedded.salience import salience
from lmrrg.metrics.parts import set_f1

WORDS = [
    "no",
    "small",
    "left",
    "right",
    "effusion",
    "opacity",
    "lung",
    "heart",
    "normal",
    "may",
    "represent",
    "pneumonia",
    "and",
    "is",
    "the",
    "mildly",
    "enlarged",
    "xxxx",
]
SENTENCES = st.lists(st.sampled_from(WORDS), min_size=1, max_size=9).map(" ".join)
REPORTS = st.lists(SENTENCES, min_size=1, max_size=5).map(" . ".join)
LEVELS = ("rg_e", "rg_er", "rg_bar_er", "radgraph")


def slow_f1(a: set, b: set) -> float:
    """Return F1 from precision and recall, written out."""
    hits = [x for x in a if x in b]
    if not hits:
        return 0.0
    precision, recall = len(hits) / len(a), len(hits) / len(b)
    return 2 * precision * recall / (precision + recall)


def slow_expected(a: ReportGraph, b: ReportGraph) -> tuple[float, float]:
    """Return expected matches over expected sizes, by the joint outcomes of common entities."""
    table = salience()
    if a.sentences == b.sentences:
        return 1.0, 1.0
    in_common = {e for s in a.sentences & b.sentences for e, _ in sentence_graph(s).entities}
    marked = linked = 0.0
    for entity in a.entities & b.entities:
        dependence = table.other_sentence if entity not in in_common else table.same_sentence
        (p, r), (q, s) = a.chances[entity], b.chances[entity]
        both = joint(p, q, dependence)
        marked += both
        for flag_a, flag_b in itertools.product((True, False), repeat=2):
            if flag_a == flag_b:
                linked += both * joint(r if flag_a else 1 - r, s if flag_b else 1 - s, dependence)
    size = sum(p for p, _ in a.chances.values()) + sum(p for p, _ in b.chances.values())
    return 2 * marked / size, 2 * linked / size


def joint(p: float, q: float, dependence: float) -> float:
    return dependence * min(p, q) + (1 - dependence) * p * q


@given(REPORTS, REPORTS)
@settings(max_examples=150, deadline=None)
def test_levels_equal_the_oracles(first: str, second: str) -> None:
    a, b = build_graph(first), build_graph(second)
    scores = graph_scores(a, b)
    assert scores.radgraph == pytest.approx(
        (slow_f1(a.meanings, b.meanings) + slow_f1(a.relations, b.relations)) / 2
    )
    assert scores.rg_bar_er == pytest.approx(slow_f1(a.typed, b.typed))
    if a.entities and b.entities:
        assert (scores.rg_e, scores.rg_er) == pytest.approx(slow_expected(a, b))


@given(REPORTS, REPORTS)
@settings(max_examples=100, deadline=None)
def test_levels_are_symmetric_and_bounded(first: str, second: str) -> None:
    a, b = build_graph(first), build_graph(second)
    forth, back = graph_scores(a, b), graph_scores(b, a)
    for level in LEVELS:
        assert 0 <= getattr(forth, level) <= 1
        assert getattr(forth, level) == pytest.approx(getattr(back, level))
    assert forth.rg_er <= forth.rg_e + 1e-9


@given(st.lists(SENTENCES, min_size=1, max_size=5), st.randoms())
@settings(max_examples=60, deadline=None)
def test_order_and_repetition_of_sentences_change_no_set(sentences: list[str], random) -> None:
    shuffled = sentences + sentences[:1]
    random.shuffle(shuffled)
    one, other = build_graph(" . ".join(sentences)), build_graph(" . ".join(shuffled))
    assert (one.entities, one.relations, one.typed) == (
        other.entities,
        other.relations,
        other.typed,
    )
    assert one.size == pytest.approx(other.size)


@pytest.mark.parametrize(
    "text", ["small left pleural effusion", "no acute cardiopulmonary process", "heart is enlarged"]
)
def test_identical_reports_with_relations_are_1_everywhere(text: str) -> None:
    scores = graph_scores(build_graph(text), build_graph(text))
    assert [getattr(scores, level) for level in LEVELS] == pytest.approx([1, 1, 1, 1])


def test_identical_reports_without_relations_have_half_an_rg() -> None:
    scores = graph_scores(build_graph("no pneumothorax"), build_graph("no pneumothorax"))
    assert scores.radgraph == 0.5
    assert (scores.rg_e, scores.rg_bar_er) == (1, 1)


@pytest.mark.parametrize(
    ("first", "second"), [("", "effusion"), ("effusion", ""), ("", ""), ("the xxxx", "effusion")]
)
def test_an_empty_side_is_0(first: str, second: str) -> None:
    scores = graph_scores(build_graph(first), build_graph(second))
    assert [getattr(scores, level) for level in LEVELS] == [0, 0, 0, 0]


def test_schema_of_one_sentence() -> None:
    graph = build_graph("Small left pleural effusion, likely represents infection.")
    assert graph.entities == {
        ("small", "OBS-DP"),
        ("left", "ANAT-DP"),
        ("pleural", "ANAT-DP"),
        ("effusion", "OBS-DP"),
        ("infection", "OBS-U"),
    }
    assert ("effusion", "OBS-DP", "located_at", "pleural") in graph.typed
    assert ("small", "OBS-DP", "modify", "effusion") in graph.typed
    assert ("effusion", "OBS-DP", "suggestive_of", "infection") in graph.typed


def test_synonyms_share_their_meaning_but_not_their_entity() -> None:
    a, b = build_graph("The heart is enlarged."), build_graph("The cardiac silhouette is enlarged.")
    assert ("heart", "ANAT-DP") in a.meanings & b.meanings
    assert ("heart", "ANAT-DP") not in b.entities


def test_f1_helpers() -> None:
    assert set_f1({1, 2, 3}, {2, 3, 4, 5}) == pytest.approx(slow_f1({1, 2, 3}, {2, 3, 4, 5}))
    assert weighted_f1({"a": 1.0, "b": 2.0}, {"b": 0.5, "c": 0.5}) == pytest.approx(2 * 0.5 / 4)
    assert weighted_f1({}, {}) == 0
