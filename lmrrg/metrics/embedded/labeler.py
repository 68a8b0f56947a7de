"""Read CheXbert's 14 classes from a report by rules, without any model (ours).

Twelve classes are read from *mentions*: phrases of ``lexicons/labels.yaml`` whose own assertion is
the label. Two classes are also read from *topics*: the heart and the mediastinum, judged by the
words near them ("heart size is normal", "the mediastinum is widened"). "No Finding" follows from
the others.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cache, lru_cache
from typing import Any

from lmrrg.metrics.embedded import sentences
from lmrrg.metrics.embedded.batch_cache import CACHED_SENTENCES
from lmrrg.metrics.embedded.language import is_readable
from lmrrg.metrics.embedded.lexicon import ANATOMY, LOCATION, OBSERVATION, Phrases, phrase_table, read_yaml
from lmrrg.metrics.embedded.sentences import (
    ABSENT,
    CHOICE,
    Sentence,
    read_sentence,
    sentences_of,
)
from lmrrg.metrics.embedded.unnamed import calls_abnormal
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, UNCERTAIN

LabelValue = tuple[str, int]
"""(class, POSITIVE, NEGATIVE or UNCERTAIN)"""

_NO_FINDING = "No Finding"
_DEVICES = "Support Devices"
_OPACITY = "Lung Opacity"
_LESION = "Lung Lesion"
_ABNORMAL = "abnormal"
"""A pseudo-class: something outside the other classes that rules out "No Finding"."""

_NORMAL = "normal"
"""A pseudo-class: a statement of normality, which "No Finding" needs."""

_VALUE_OF_ASSERTION = {
    sentences.PRESENT: POSITIVE,
    sentences.ABSENT: NEGATIVE,
    sentences.UNCERTAIN: UNCERTAIN,
}
_STRENGTH = {POSITIVE: 3, UNCERTAIN: 2, NEGATIVE: 1}
"""Of two mentions of one class, the stronger value wins."""
_WITHIN_LIMITS = frozenset(["within", "limits"])
_TURNS = frozenset([",", "with"])
"""Words after which a sentence may go on to something else."""
_LINKS = frozenset(["the", "a", "an", "of", "is", "are", "was", "were", "appears", "appear", "has", "been"])
"""Words inside the description of a mention, "the fracture *of the* wire"."""
_SEEN_IN = frozenset(["is", "are", "was", "seen", "noted", "identified", "present", "again", "located"])
"""Words between a mention and where it is."""
_PLACES = frozenset(["of", "in", "within", "involving", "at", "on", "from"])
_SHAPE_WINDOW = 4
"""Words before an opacity in which its shape or size is looked for."""
_BLOCK_WINDOW = 3
"""Words after an organ's name that may make it part of another name ("heart failure")."""


@dataclass(frozen=True)
class _Topic:
    """An organ that is judged by the words near it."""

    label: str
    """Class that is positive where the organ is abnormal."""
    borderline_at_limit: bool
    """Whether "upper limits of normal" counts as abnormal."""
    blocked_by: frozenset[str]
    """Words that show that the organ's name means something else ("cardiac monitor")."""
    abnormal: frozenset[str]
    """Words that call the organ abnormal."""


@dataclass(frozen=True)
class _Elsewhere:
    """Words beside a mention that show that it means something else."""

    words: frozenset[str]
    unless: frozenset[str]
    """Words that show that it does mean its class."""


@dataclass(frozen=True)
class _Rules:
    """The content of ``labels.yaml``, which explains each part."""

    mentions: Phrases
    hints: frozenset[tuple[str, ...]]
    opacities: frozenset[str]
    shapes: frozenset[str]
    explains_interstitial: frozenset[str]
    probable: frozenset[str]
    within_limit: frozenset[str]
    topics: dict[str, _Topic]
    """Word that names an organ -> the organ."""
    elsewhere: dict[str, _Elsewhere]
    """Class -> words beside which its mention is none of it."""
    outline: frozenset[str]
    states: frozenset[str]
    denied: frozenset[str]
    normal: frozenset[str]
    stable: frozenset[str]
    abnormal: frozenset[str]


@cache
def _rules() -> _Rules:
    data = read_yaml("labels.yaml")
    return _Rules(
        mentions=phrase_table(_phrases(data)),
        hints=frozenset(tuple(phrase.split()) for phrase in data["hints"]),
        opacities=frozenset(data["focal"]["opacities"]),
        shapes=frozenset(data["focal"]["shapes"]),
        explains_interstitial=frozenset(data["explains_interstitial"]),
        probable=frozenset(data["probable"]),
        within_limit=frozenset(data["within_limit"]),
        topics=_topics(data["topics"]),
        elsewhere={
            label: _Elsewhere(frozenset(rule["words"].split()), frozenset(rule["unless"].split()))
            for label, rule in data["elsewhere"].items()
        },
        outline=frozenset(data["outline"].split()),
        states=frozenset(data["states"]),
        denied=frozenset(data["denied"]),
        normal=frozenset(data["normal"]),
        stable=frozenset(data["stable"]),
        abnormal=frozenset(data["abnormal"].split()),
    )


def _phrases(data: dict[str, Any]) -> list[tuple[str, str]]:
    """Return (phrase, class) of every mention, and (phrase, "") of what only looks like one."""
    phrases: list[tuple[str, str]] = []
    for label, mentions in data["mentions"].items():
        phrases += [(phrase, label) for phrase in mentions]
    return phrases + [(phrase, "") for phrase in data["nothing"]]


def _topics(data: dict[str, Any]) -> dict[str, _Topic]:
    topics: dict[str, _Topic] = {}
    for label, topic in data.items():
        rule = _Topic(
            label,
            topic["borderline_at_limit"],
            frozenset(topic["blocked_by"]),
            frozenset(topic["abnormal"]),
        )
        topics |= dict.fromkeys(topic["words"], rule)
    return topics


def label_report(text: str) -> dict[str, int]:
    """Return the classes of :data:`lmrrg.studies.LABELS` that a report mentions, in their order.

    Values are 1 positive, 0 negative, -1 uncertain; over several mentions positive beats uncertain
    beats negative. "No Finding" is 1 when the report states normality or denies a finding, and
    names nothing abnormal, devices aside; otherwise it is not there. A text that is no English
    report of a chest has no label.

    >>> label_report("The heart is enlarged. Possible pneumonia. No pneumothorax.")
    {'Cardiomegaly': 1, 'Pneumonia': -1, 'Pneumothorax': 0}
    >>> label_report("Lungs are clear. Right PICC in the SVC.")
    {'Support Devices': 1, 'No Finding': 1}
    >>> label_report(""), label_report("I cannot read this image.")
    ({}, {})
    """
    if not is_readable(text):
        return {}
    labels: dict[str, int] = {}
    for sentence in sentences_of(text):
        for label, value in label_sentence(sentence):
            if label not in labels or _STRENGTH[value] > _STRENGTH[labels[label]]:
                labels[label] = value
    # A device is no finding, as in CheXbert: "PICC in the SVC, lungs clear" has "No Finding".
    findings = [value for label, value in labels.items() if label not in (_DEVICES, _NORMAL)]
    is_normal = _NORMAL in labels or NEGATIVE in findings
    if is_normal and all(value == NEGATIVE for value in findings):
        labels[_NO_FINDING] = POSITIVE
    return {label: labels[label] for label in LABELS if label in labels}


@lru_cache(maxsize=CACHED_SENTENCES)
def label_sentence(sentence: str) -> tuple[LabelValue, ...]:
    """Return (class, value) of every mention in one lower-case sentence.

    The class "abnormal" stands for anything abnormal outside the 14 classes, "normal" for a
    statement of normality.

    >>> label_sentence("tortuous aorta without effusion")
    (('Pleural Effusion', 0), ('abnormal', 1), ('normal', 1))
    """
    read = read_sentence(sentence)
    found = _mentions(read)
    found += [(label, value) for _, label, value in topics_of(read)]
    is_open = all(label == _DEVICES for label, _ in found)
    if _has_other_abnormality(read) or (is_open and calls_abnormal(read)):
        found.append((_ABNORMAL, POSITIVE))
    if _states_normality(read):
        found.append((_NORMAL, POSITIVE))
    return tuple(found)


def _states_normality(read: Sentence) -> bool:
    """Return whether something is called normal, or any finding is denied."""
    rules = _rules()
    for word, kind, assertion in zip(*read, strict=True):
        if assertion == ABSENT:
            if kind == OBSERVATION or word in rules.denied:
                return True
        elif word in rules.states:
            return True
    return _WITHIN_LIMITS.issubset(read.words)


def _has_other_abnormality(read: Sentence) -> bool:
    """Return whether a word that is not denied rules out "No Finding" by itself."""
    # "Prominent but within normal limits" is normal.
    if _WITHIN_LIMITS.issubset(read.words):
        return False
    abnormal = _rules().abnormal
    return any(
        assertion != ABSENT and word in abnormal
        for word, assertion in zip(read.words, read.assertions, strict=True)
    )


def _mentions(read: Sentence) -> list[LabelValue]:
    """Return the class and value of every phrase that names a class."""
    rules = _rules()
    words = read.words
    found: list[LabelValue] = []
    interstitial: list[LabelValue] = []
    i = 0
    while i < len(words):
        length = 1
        for phrase, label in rules.mentions.get(words[i], ()):
            if words[i : i + len(phrase)] == phrase:
                length = len(phrase)
                if label and not _is_elsewhere(read, i, i + length, label):
                    mention = _mention(read, i, i + length, label)
                    if mention[0] == _OPACITY and _is_interstitial(words, i, i + length):
                        interstitial.append(mention)
                    else:
                        found.append(mention)
                break
        i += length
    # Interstitial markings that the sentence explains as edema are no opacity of their own.
    if any(label in rules.explains_interstitial and value != NEGATIVE for label, value in found):
        return found
    return found + interstitial


def _is_elsewhere(read: Sentence, start: int, end: int, label: str) -> bool:
    """Return whether a mention is of another organ or thing: "hepatic mass", "broken wire"."""
    rule = _rules().elsewhere.get(label)
    if rule is None or rule.words.isdisjoint(read.words):
        return False
    around = [*_words_before(read, start), *read.words[start : end - 1], *_words_after(read, end)]
    return not rule.words.isdisjoint(around) and rule.unless.isdisjoint(around)


def _words_before(read: Sentence, start: int) -> list[str]:
    """Return the words that describe the mention which starts here, also those of its subject.

    Examples: "sternal wire is *fractured*", "pericardial *effusion*".
    """
    words, kinds, _ = read
    found: list[str] = []
    for i in range(start - 1, -1, -1):
        if not kinds[i] and words[i] not in _LINKS and not _joins_anatomy(kinds, words, i):
            break
        found.append(words[i])
    return found


def _joins_anatomy(kinds: tuple[str, ...], words: tuple[str, ...], i: int) -> bool:
    """Return whether a word joins two organs of one finding: "pleural and pericardial"."""
    return words[i] in ("and", "or") and kinds[i - 1] == ANATOMY == kinds[i + 1] and i > 0


def _words_after(read: Sentence, end: int) -> list[str]:
    """Return the words after a mention that say where it is: "... in the left humerus"."""
    words, kinds, _ = read
    i = end
    while i < len(words) and words[i] in _SEEN_IN:
        i += 1
    if i < len(words) and words[i] in _PLACES:
        i += 1
    elif i > end:
        return []
    found: list[str] = []
    while i < len(words) and (kinds[i] or words[i] in _LINKS):
        if i == end and kinds[i] not in (ANATOMY, LOCATION):
            break
        found.append(words[i])
        i += 1
    return found


def _is_interstitial(words: tuple[str, ...], start: int, end: int) -> bool:
    """Return whether a phrase, or the word before it, is "interstitial"."""
    return "interstitial" in words[max(0, start - 1) : end]


def _mention(read: Sentence, start: int, end: int, label: str) -> LabelValue:
    """Return the class and value of the words from ``start`` to ``end``, which name ``label``."""
    rules = _rules()
    words = read.words
    value = _VALUE_OF_ASSERTION[read.assertions[end - 1]]
    if value == POSITIVE and words[start:end] in rules.hints:
        value = UNCERTAIN
    elif value == UNCERTAIN and _is_probable(read, start):
        value = POSITIVE
    around = (*words[max(0, start - _SHAPE_WINDOW) : start], *words[end : end + 1])
    # "Round opacity", "2 cm opacity": CheXbert's Lung Lesion.
    if words[start] in rules.opacities and not rules.shapes.isdisjoint(around):
        label = _LESION
    return label, value


def _is_probable(read: Sentence, i: int) -> bool:
    """Return whether the doubt about a word begins with "probably" or the like.

    Not so where the doubt is a choice: "probable atelectasis or infection".
    """
    start = i
    while start > 0 and read.assertions[start - 1] == sentences.UNCERTAIN:
        start -= 1
    return read.words[start] in _rules().probable and CHOICE.isdisjoint(read.words[start:])


def topics_of(read: Sentence) -> list[tuple[int, str, int]]:
    """Return (index, class, value) of every organ that a sentence judges: heart, mediastinum.

    An organ that is merely called stable is uncertain.

    >>> topics_of(read_sentence("heart size is normal"))
    [(0, 'Cardiomegaly', 0)]
    >>> topics_of(read_sentence("heart monitor leads"))
    []
    """
    rules = _rules()
    words = read.words
    if rules.topics.keys().isdisjoint(words):
        return []
    organs = [i for i, word in enumerate(words) if word in rules.topics]
    # Each organ is judged by the words between the organs next to it.
    borders = [-1, *organs, len(words)]
    found: list[tuple[int, str, int]] = []
    for number, organ in enumerate(organs):
        topic = rules.topics[words[organ]]
        if topic.blocked_by.isdisjoint(words[organ + 1 : organ + 1 + _BLOCK_WINDOW]):
            values = _organ_values(read, organ, borders[number], borders[number + 2])
            if values:
                found.append((organ, topic.label, _first_of_verdicts(values)))
    return found


def _organ_values(read: Sentence, organ: int, previous: int, following: int) -> list[int]:
    """Return the values of the words that judge an organ; ``previous``, ``following``: next organs.

    Words after the organ come first, then the nearest word before it, then any word.
    """
    topic = _rules().topics[read.words[organ]]
    judgements = _judgements(read, topic)
    after = _values_after(read, judgements, organ + 1, following, topic)
    if after:
        return after
    own = {j: value for j, value in judgements.items() if not _is_of_other(read, topic, j, organ)}
    # "Enlarged heart": of the words before the organ the last one counts.
    nearest = [value for j, value in own.items() if previous < j < organ][-1:]
    return nearest or list(own.values())


def _judgements(read: Sentence, topic: _Topic) -> dict[int, int]:
    """Return index -> value of the words that judge a topic, wherever in the sentence."""
    found: dict[int, int] = {}
    for i in range(len(read.words)):
        value = _judgement(read, topic, i)
        if value is not None:
            found[i] = value
    return found


def _judgement(read: Sentence, topic: _Topic, i: int) -> int | None:
    """Return the value that one word gives to a topic, if any."""
    rules = _rules()
    word = read.words[i]
    if word in topic.abnormal or (topic.borderline_at_limit and _is_over_limit(read.words, i)):
        return _VALUE_OF_ASSERTION[read.assertions[i]]
    if word in rules.normal:
        return NEGATIVE
    return UNCERTAIN if word in rules.stable else None


def _is_over_limit(words: tuple[str, ...], i: int) -> bool:
    """Return whether "upper limits of normal" starts here, without "at" or "near" before it."""
    if words[i] != "upper" or words[i + 1 : i + 2] not in (("limits",), ("limit",)):
        return False
    return _rules().within_limit.isdisjoint(words[max(0, i - 2) : i])


def _values_after(
    read: Sentence, judgements: dict[int, int], start: int, end: int, topic: _Topic
) -> list[int]:
    """Return the values of the judging words after an organ.

    Once the organ is normal, what follows a comma or "with" is about something else.
    """
    values: list[int] = []
    for i in range(start, end):
        if read.words[i] in _TURNS and NEGATIVE in values:
            break
        if i in judgements and not _describes_next(read, topic, i, end):
            values.append(judgements[i])
    return values


def _describes_next(read: Sentence, topic: _Topic, i: int, end: int) -> bool:
    """Return whether an abnormal word describes what follows it: "enlarged pulmonary arteries"."""
    if read.words[i] not in topic.abnormal:
        return False
    outline = _rules().outline
    for j in range(i + 1, end):
        if not read.kinds[j]:
            return False
        if read.words[j] in outline or read.words[j] in topic.abnormal:
            return False
        if read.kinds[j] in (ANATOMY, OBSERVATION):
            return True
    return False


def _is_of_other(read: Sentence, topic: _Topic, i: int, organ: int) -> bool:
    """Return whether the word at ``i`` describes a finding between it and the organ.

    In "large effusion obscures the heart", "large" is the size of the effusion.
    """
    if read.words[i] not in topic.abnormal:
        return False
    return any(
        read.kinds[j] == OBSERVATION and read.words[j] not in topic.abnormal
        for j in range(i + 1, organ)
    )


def _first_of_verdicts(values: list[int]) -> int:
    """Return the value that counts: abnormal before normal before merely stable."""
    return next(value for value in (POSITIVE, NEGATIVE, UNCERTAIN) if value in values)
