"""Read CheXbert's 14 classes from a report by rules, without any model (ours).

Twelve classes are read from *mentions*: phrases of ``lexicons/labels.yaml`` whose own assertion is
the label. Two classes are also read from *topics*: the heart and the mediastinum, judged by the
words near them ("heart size is normal", "the mediastinum is widened"). "No Finding" follows from
the others.
"""

from __future__ import annotations

from functools import lru_cache

from lmrrg.metrics.embedded import sentences
from lmrrg.metrics.embedded.batch_cache import CACHED_SENTENCES
from lmrrg.metrics.embedded.lexicon import ANATOMY, DEVICE, LOCATION, OBSERVATION
from lmrrg.metrics.embedded.reading.label_rules import label_rules
from lmrrg.metrics.embedded.reading.language import is_readable
from lmrrg.metrics.embedded.reading.topics import VALUE_OF_ASSERTION, topics_of
from lmrrg.metrics.embedded.reading.unnamed import calls_abnormal
from lmrrg.metrics.embedded.sentences import (
    ABSENT,
    CHOICE,
    Sentence,
    read_sentence,
    sentences_of,
)
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, UNCERTAIN

LabelValue = tuple[str, int]
"""(class, POSITIVE, NEGATIVE or UNCERTAIN)"""

_NO_FINDING = "No Finding"
_DEVICES = "Support Devices"
_OPACITY = "Lung Opacity"
_EDEMA = "Edema"
_LESION = "Lung Lesion"
_ABNORMAL = "abnormal"
"""A pseudo-class: something outside the other classes that rules out "No Finding"."""

_NORMAL = "normal"
"""A pseudo-class: a statement of normality, which "No Finding" needs."""

_STRENGTH = {POSITIVE: 3, UNCERTAIN: 2, NEGATIVE: 1}
"""Of two mentions of one class, the stronger value wins."""
_WITHIN_LIMITS = frozenset(["within", "limits"])
_LINKS = frozenset(
    ["the", "a", "an", "of", "is", "are", "was", "were", "appears", "appear", "has", "been"]
)
"""Words inside the description of a mention, "the fracture *of the* wire"."""
_SEEN_IN = frozenset(
    ["is", "are", "was", "seen", "noted", "identified", "present", "again", "located"]
)
"""Words between a mention and where it is."""
_PLACES = frozenset(["of", "in", "within", "involving", "at", "on", "from"])
_ENDS = frozenset(
    [",", "and", "or", "but", "with", "without", "no", "to", "near", "over", "by", "vs", "versus"]
)
"""Words after a mention that begin something else."""
_SHAPE_WINDOW = 4
"""Words before an opacity in which its shape or size is looked for."""


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
    rules = label_rules()
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
    abnormal = label_rules().abnormal
    return any(
        assertion != ABSENT and word in abnormal
        for word, assertion in zip(read.words, read.assertions, strict=True)
    )


def _mentions(read: Sentence) -> list[LabelValue]:
    """Return the class and value of every phrase that names a class."""
    rules = label_rules()
    words = read.words
    found: list[LabelValue] = []
    interstitial: list[LabelValue] = []
    hinted: list[LabelValue] = []
    i = 0
    while i < len(words):
        length = 1
        for phrase, label in rules.mentions.get(words[i], ()):
            if words[i : i + len(phrase)] == phrase:
                length = len(phrase)
                if label and not _is_elsewhere(read, i, i + length, label):
                    mention = _mention(read, i, i + length, label)
                    if label == _EDEMA and phrase in rules.hints:
                        hinted.append(mention)
                    elif mention[0] == _OPACITY and _is_interstitial(words, i, i + length):
                        interstitial.append(mention)
                    else:
                        found.append(mention)
                break
        i += length
    # "Congestion without overt edema": the finding itself is judged.
    if (_EDEMA, NEGATIVE) not in found:
        found += hinted
    # Interstitial markings that the sentence explains as edema are no opacity of their own.
    if any(label in rules.explains_interstitial and value != NEGATIVE for label, value in found):
        return found
    return found + interstitial


def _is_elsewhere(read: Sentence, start: int, end: int, label: str) -> bool:
    """Return whether a mention is of another organ or thing: "hepatic mass", "broken wire"."""
    rule = label_rules().elsewhere.get(label)
    if rule is None or rule.words.isdisjoint(read.words):
        return False
    around = _words_before(read, start, rule.words) + _words_after(read, end, rule.words)
    around += read.words[start : end - 1]
    return not rule.words.isdisjoint(around) and rule.unless.isdisjoint(around)


def _words_before(read: Sentence, start: int, others: frozenset[str]) -> list[str]:
    """Return the words that describe the mention which starts here, also those of its subject.

    ``others`` belong to its description although they have no class.
    Examples: "sternal wire is *fractured*", "pericardial *effusion*".
    """
    words, kinds, _ = read
    found: list[str] = []
    for i in range(start - 1, -1, -1):
        is_inside = kinds[i] or words[i] in _LINKS or words[i] in others
        if not is_inside and not _joins_anatomy(kinds, words, i):
            break
        found.append(words[i])
    return found


def _joins_anatomy(kinds: tuple[str, ...], words: tuple[str, ...], i: int) -> bool:
    """Return whether a word joins two organs of one finding: "pleural and pericardial"."""
    return words[i] in ("and", "or") and kinds[i - 1] == ANATOMY == kinds[i + 1] and i > 0


def _words_after(read: Sentence, end: int, others: frozenset[str]) -> list[str]:
    """Return the words after a mention that say where it is: "... in the left humerus"."""
    words, kinds, _ = read
    i = end
    while i < len(words) and words[i] in _SEEN_IN:
        i += 1
    if i < len(words) and words[i] in _PLACES:
        i += 1
    elif i > end:
        return []
    elif i + 1 < len(words) and not kinds[i] and words[i] not in _ENDS and kinds[i + 1]:
        i += 1  # an unknown word: "fractured median sternotomy wires"
    found: list[str] = []
    while i < len(words) and (kinds[i] or words[i] in _LINKS or words[i] in others):
        if i == end and kinds[i] not in (ANATOMY, LOCATION, DEVICE):
            break
        found.append(words[i])
        i += 1
    return found


def _is_interstitial(words: tuple[str, ...], start: int, end: int) -> bool:
    """Return whether a phrase, or the word before it, is "interstitial"."""
    return "interstitial" in words[max(0, start - 1) : end]


def _mention(read: Sentence, start: int, end: int, label: str) -> LabelValue:
    """Return the class and value of the words from ``start`` to ``end``, which name ``label``."""
    rules = label_rules()
    words = read.words
    value = VALUE_OF_ASSERTION[read.assertions[end - 1]]
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
    return read.words[start] in label_rules().probable and CHOICE.isdisjoint(read.words[start:])
