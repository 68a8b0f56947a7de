"""Fourteen CheXbert classes of a report by rules: positive, negative, uncertain or not mentioned (ours, no model)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

from lmrrg.metrics.lexicon import Phrases, phrase_table, read_yaml
from lmrrg.metrics.report_graph import analyse_sentence
from lmrrg.metrics.report_graph_scope import ABSENT, PRESENT, Sentence, sentences_of
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, UNCERTAIN

_VALUE = (POSITIVE, NEGATIVE, UNCERTAIN)
_RANK = {POSITIVE: 3, UNCERTAIN: 2, NEGATIVE: 1}
_NO_FINDING = "No Finding"


@dataclass(frozen=True)
class _Rules:
    mentions: Phrases
    topics: dict[str, tuple[str, ...]]
    normal: frozenset[str]
    abnormal: frozenset[str]


@cache
def _rules() -> _Rules:
    data = read_yaml("lexicon_labels.yaml")
    topics: dict[str, tuple[str, ...]] = {}
    for label, topic in data["topics"].items():
        for word in topic["words"]:
            topics[word] = (*topics.get(word, ()), label)
    mentions = [(phrase, label) for label, phrases in data["mentions"].items() for phrase in phrases]
    return _Rules(phrase_table(mentions), topics, frozenset(data["normal"]), frozenset(data["abnormal"]))


def label_report(text: str) -> dict[str, int]:
    """Classes of :data:`lmrrg.studies.LABELS` that a report speaks of: 1 positive, 0 negative, -1 uncertain.

    An absent class is not mentioned. Over several mentions positive beats uncertain beats negative. "No Finding" is
    1 when nothing but support devices is positive or uncertain, and absent otherwise.
    """
    labels: dict[str, int] = {}
    for sentence in sentences_of(text):
        for label, value in label_sentence(sentence):
            if label not in labels or _RANK[value] > _RANK[labels[label]]:
                labels[label] = value
    abnormal = any(v != NEGATIVE for k, v in labels.items() if k != "Support Devices")
    if text.strip() and not abnormal:
        labels[_NO_FINDING] = POSITIVE
    return {label: labels[label] for label in LABELS if label in labels}


@lru_cache(maxsize=65536)
def label_sentence(sentence: str) -> tuple[tuple[str, int], ...]:
    """(class, value) of every mention in one lower-case sentence."""
    read, _ = analyse_sentence(sentence)
    return tuple(_mentions(read) + _topics(read))


def _mentions(read: Sentence) -> list[tuple[str, int]]:
    table = _rules().mentions
    found: list[tuple[str, int]] = []
    for i, word in enumerate(read.words):
        for phrase, label in table.get(word, ()):
            if read.words[i : i + len(phrase)] == phrase:
                found.append((label, _VALUE[read.assertions[i + len(phrase) - 1]]))
    return found


def _topics(read: Sentence) -> list[tuple[str, int]]:
    rules = _rules()
    found: list[tuple[str, int]] = []
    spoken = [label for word in read.words for label in rules.topics.get(word, ())]
    if not spoken:
        return found
    state = {w: a for w, a in zip(read.words, read.assertions, strict=True) if w in rules.normal or w in rules.abnormal}
    if "limits" in read.words:
        state["normal"] = PRESENT
    for label in spoken:
        for word, assertion in state.items():
            bad = (word in rules.abnormal) != (assertion == ABSENT)
            found.append((label, POSITIVE if bad else NEGATIVE))
    return found
