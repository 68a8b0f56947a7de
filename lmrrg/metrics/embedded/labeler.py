"""Fourteen CheXbert classes of a report by rules: positive, negative, uncertain or not mentioned (ours, no model)."""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache

from lmrrg.metrics.embedded.lexicon import OBSERVATION, Phrases, phrase_table, read_yaml
from lmrrg.metrics.embedded.sentences import (
    ABSENT,
    CHOICE,
    REMEMBERED_SENTENCES,
    Sentence,
    read_sentence,
    sentences_of,
)
from lmrrg.metrics.embedded.sentences import UNCERTAIN as DOUBTED
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, UNCERTAIN

Mention = tuple[str, int]
"""(class, value)"""

NO_FINDING, DEVICES = "No Finding", "Support Devices"
_OPACITY, _LESION = "Lung Opacity", "Lung Lesion"
_WITHIN_LIMITS = {"within", "limits"}
_TURNS = frozenset([",", "with"])
_VALUE = (POSITIVE, NEGATIVE, UNCERTAIN)
_RANK = {POSITIVE: 3, UNCERTAIN: 2, NEGATIVE: 1}
_ABNORMAL = "abnormal"
"""A pseudo-class: something else than the classes that rules out "No Finding"."""


@dataclass(frozen=True)
class _Topic:
    label: str
    borderline_at_limit: bool
    blocked_by: frozenset[str]
    abnormal: frozenset[str]


@dataclass(frozen=True)
class _Rules:
    mentions: Phrases
    hints: frozenset[tuple[str, ...]]
    opacities: frozenset[str]
    shapes: frozenset[str]
    explains_interstitial: frozenset[str]
    probable: frozenset[str]
    within_limit: frozenset[str]
    topics: dict[str, _Topic]
    normal: frozenset[str]
    stable: frozenset[str]
    abnormal: frozenset[str]


@cache
def _rules() -> _Rules:
    data = read_yaml("labels.yaml")
    topics = {}
    for label, topic in data["topics"].items():
        sets = (frozenset(topic["blocked_by"]), frozenset(topic["abnormal"]))
        rule = _Topic(label, topic["borderline_at_limit"], *sets)
        topics.update(dict.fromkeys(topic["words"], rule))
    mentions = [
        (phrase, label) for label, phrases in data["mentions"].items() for phrase in phrases
    ]
    mentions += [(phrase, "") for phrase in data["nothing"]]
    return _Rules(
        mentions=phrase_table(mentions),
        hints=frozenset(tuple(phrase.split()) for phrase in data["hints"]),
        opacities=frozenset(data["focal"]["opacities"]),
        shapes=frozenset(data["focal"]["shapes"]),
        explains_interstitial=frozenset(data["explains_interstitial"]),
        probable=frozenset(data["probable"]),
        within_limit=frozenset(data["within_limit"]),
        topics=topics,
        normal=frozenset(data["normal"]),
        stable=frozenset(data["stable"]),
        abnormal=frozenset(data["abnormal"].split()),
    )


def label_report(text: str) -> dict[str, int]:
    """Classes of :data:`lmrrg.studies.LABELS` that a report speaks of: 1 positive, 0 negative, -1 uncertain.

    An absent class is not mentioned. Over several mentions positive beats uncertain beats negative. "No Finding" is 1
    when the report names nothing abnormal, devices aside; otherwise it is absent. A text without a word has no label.
    """
    labels: dict[str, int] = {}
    spoken = False
    for sentence in sentences_of(text):
        spoken = spoken or any(map(str.isalnum, sentence))
        for label, value in label_sentence(sentence):
            if label not in labels or _RANK[value] > _RANK[labels[label]]:
                labels[label] = value
    if spoken and all(value == NEGATIVE for label, value in labels.items() if label != DEVICES):
        labels[NO_FINDING] = POSITIVE
    return {label: labels[label] for label in LABELS if label in labels}


@lru_cache(maxsize=REMEMBERED_SENTENCES)
def label_sentence(sentence: str) -> tuple[Mention, ...]:
    """(class, value) of every mention in one lower-case sentence; the class "abnormal" stands for anything else."""
    read = read_sentence(sentence)
    found = _mentions(read) + [(label, value) for _, label, value in topics_of(read)]
    abnormal = _rules().abnormal
    if not set(read.words) >= _WITHIN_LIMITS and any(
        a != ABSENT and w in abnormal for w, a in zip(read.words, read.assertions, strict=True)
    ):
        found.append((_ABNORMAL, POSITIVE))
    return tuple(found)


def _mentions(read: Sentence) -> list[Mention]:
    rules, words = _rules(), read.words
    found: list[Mention] = []
    interstitial: list[Mention] = []
    i = 0
    while i < len(words):
        length = 1
        for phrase, label in rules.mentions.get(words[i], ()):
            if words[i : i + len(phrase)] == phrase:
                length = len(phrase)
                if label:
                    mention = _mention(read, i, i + length, label)
                    apart = (
                        mention[0] == _OPACITY
                        and "interstitial" in words[max(0, i - 1) : i + length]
                    )
                    (interstitial if apart else found).append(mention)
                break
        i += length
    explained = any(
        label in rules.explains_interstitial and value != NEGATIVE for label, value in found
    )
    return found if explained else found + interstitial


def _mention(read: Sentence, start: int, end: int, label: str) -> Mention:
    """The class and value of the words from ``start`` to ``end``, which name ``label``."""
    rules, words = _rules(), read.words
    value = _VALUE[read.assertions[end - 1]]
    if value == POSITIVE and words[start:end] in rules.hints:
        value = UNCERTAIN
    elif value == UNCERTAIN and _is_probable(read, start):
        value = POSITIVE
    around = (*words[max(0, start - 4) : start], *words[end : end + 1])
    if words[start] in rules.opacities and not rules.shapes.isdisjoint(around):
        label = _LESION
    return label, value


def _is_probable(read: Sentence, i: int) -> bool:
    """Whether the doubt about the word at ``i`` begins with "probably" and the like, and offers no choice."""
    start = i
    while start > 0 and read.assertions[start - 1] == DOUBTED:
        start -= 1
    return read.words[start] in _rules().probable and CHOICE.isdisjoint(read.words[start:])


def topics_of(read: Sentence) -> list[tuple[int, str, int]]:
    """(index, class, value) of every organ that a sentence judges: the heart and the mediastinum."""
    rules, words = _rules(), read.words
    if rules.topics.keys().isdisjoint(words):
        return []
    places = [i for i, word in enumerate(words) if word in rules.topics]
    found: list[tuple[int, str, int]] = []
    for at, i in enumerate(places):
        topic = rules.topics[words[i]]
        if any(word in topic.blocked_by for word in words[i + 1 : i + 4]):
            continue
        after = places[at + 1] if at + 1 < len(places) else len(words)
        before = places[at - 1] + 1 if at else 0
        judged = {
            j: value for j in range(len(words)) if (value := _judge(read, topic, j)) is not None
        }
        told = _verdict(read, judged, i + 1, after)
        if not told:
            own = {j: value for j, value in judged.items() if not _is_of_another(read, topic, j, i)}
            nearest = [value for j, value in own.items() if before <= j < i][-1:]
            told = nearest or list(own.values())
        if told:
            found.append((i, topic.label, _settle(told)))
    return found


def _verdict(read: Sentence, judged: dict[int, int], start: int, end: int) -> list[int]:
    """What is said behind the organ; once it is normal, what follows a comma or "with" is about something else."""
    values: list[int] = []
    for j in range(start, end):
        if read.words[j] in _TURNS and NEGATIVE in values:
            break
        if j in judged:
            values.append(judged[j])
    return values


def _is_of_another(read: Sentence, topic: _Topic, j: int, i: int) -> bool:
    """Whether the word at ``j`` tells the size of what stands between it and the organ at ``i``: "large effusion"."""
    return read.words[j] in topic.abnormal and any(
        read.kinds[k] == OBSERVATION and read.words[k] not in topic.abnormal
        for k in range(j + 1, i)
    )


def _settle(values: list[int]) -> int:
    """Abnormal before normal before merely stable."""
    return next(value for value in (POSITIVE, NEGATIVE, UNCERTAIN) if value in values)


def _judge(read: Sentence, topic: _Topic, i: int) -> int | None:
    """What one word says of a topic."""
    rules, word = _rules(), read.words[i]
    if word in topic.abnormal or (topic.borderline_at_limit and _over_limit(read.words, i)):
        return _VALUE[read.assertions[i]]
    if word in rules.normal:
        return NEGATIVE
    return UNCERTAIN if word in rules.stable else None


def _over_limit(words: tuple[str, ...], i: int) -> bool:
    """ "Upper limits of normal", but not "at" or "near the upper limits of normal"."""
    at_limit = words[i] == "upper" and words[i + 1 : i + 2] in (("limits",), ("limit",))
    return at_limit and _rules().within_limit.isdisjoint(words[max(0, i - 2) : i])
