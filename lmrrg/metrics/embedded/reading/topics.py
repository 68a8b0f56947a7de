"""Judge the heart and the mediastinum by the words near them (ours).

"Heart size is normal", "the mediastinum is widened": the organ is named, its class is not.
"""

from __future__ import annotations

from lmrrg.metrics.embedded import sentences
from lmrrg.metrics.embedded.lexicon import ANATOMY, OBSERVATION
from lmrrg.metrics.embedded.reading.label_rules import Topic, label_rules
from lmrrg.metrics.embedded.sentences import Sentence
from lmrrg.studies import NEGATIVE, POSITIVE, UNCERTAIN

VALUE_OF_ASSERTION = {
    sentences.PRESENT: POSITIVE,
    sentences.ABSENT: NEGATIVE,
    sentences.UNCERTAIN: UNCERTAIN,
}
"""Assertion of a word -> value of a label."""
_RATIO = "ratio"
_NORMAL_RATIO = 0.5
"""Width of the heart by that of the chest up to which the heart is normal."""
_LESS = frozenset(["less", "below", "under"])
_TURNS = frozenset([",", "with"])
"""Words after which a sentence may go on to something else."""
_BLOCK_WINDOW = 3
"""Words after an organ's name that may make it part of another name ("heart failure")."""


def topics_of(read: Sentence) -> list[tuple[int, str, int]]:
    """Return (index, class, value) of every organ that a sentence judges: heart, mediastinum.

    An organ that is merely called stable is uncertain.

    >>> from lmrrg.metrics.embedded.sentences import read_sentence
    >>> topics_of(read_sentence("heart size is normal"))
    [(0, 'Cardiomegaly', 0)]
    >>> topics_of(read_sentence("heart monitor leads"))
    []
    """
    rules = label_rules()
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
    topic = label_rules().topics[read.words[organ]]
    judgements = _judgements(read, topic)
    is_judged = any(previous < j < organ for j in judgements)
    after = _values_after(read, judgements, organ + 1, following, is_judged)
    if after:
        return after
    own = {j: value for j, value in judgements.items() if not _is_of_other(read, topic, j, organ)}
    # "Enlarged heart": of the words before the organ the last one counts.
    nearest = [value for j, value in own.items() if previous < j < organ][-1:]
    return nearest or list(own.values())


def _judgements(read: Sentence, topic: Topic) -> dict[int, int]:
    """Return index -> value of the words that judge a topic, wherever in the sentence."""
    found: dict[int, int] = {}
    for i in range(len(read.words)):
        value = _judgement(read, topic, i)
        if value is not None and not _describes_next(read, topic, i):
            found[i] = value
    if _RATIO in read.words:
        after = range(read.words.index(_RATIO), len(read.words))
        found |= {i: _judged_ratio(read.words, i) for i in after if read.words[i][0].isdigit()}
    return found


def _judgement(read: Sentence, topic: Topic, i: int) -> int | None:
    """Return the value that one word gives to a topic, if any."""
    rules = label_rules()
    word = read.words[i]
    if word in topic.abnormal or (topic.borderline_at_limit and _is_over_limit(read.words, i)):
        return VALUE_OF_ASSERTION[read.assertions[i]]
    if word in rules.normal:
        return NEGATIVE
    return UNCERTAIN if word in rules.stable else None


def _judged_ratio(words: tuple[str, ...], i: int) -> int:
    """Return the value that a cardiothoracic ratio gives: "0.6", "greater than 50", "56"."""
    ratio = float(words[i])
    if ratio > 1:
        ratio /= 100
    is_over = "greater" in words[:i] or "over" in words[:i] or ratio > _NORMAL_RATIO
    return POSITIVE if is_over and _LESS.isdisjoint(words[:i]) else NEGATIVE


def _is_over_limit(words: tuple[str, ...], i: int) -> bool:
    """Return whether "upper limits of normal" starts here, without "at" or "near" before it."""
    if words[i] != "upper" or words[i + 1 : i + 2] not in (("limits",), ("limit",)):
        return False
    return label_rules().within_limit.isdisjoint(words[max(0, i - 2) : i])


def _values_after(
    read: Sentence, judgements: dict[int, int], start: int, end: int, is_judged: bool
) -> list[int]:
    """Return the values of the judging words after an organ.

    Once the organ is normal, or judged before it is named ("normal heart, enlarged aorta"), what
    follows a comma or "with" is about something else.
    """
    values: list[int] = []
    for i in range(start, end):
        is_normal = NEGATIVE in values
        if read.words[i] in _TURNS and (is_judged or is_normal):
            break
        if read.words[i] == "and" and is_normal:  # "... and the pulmonary arteries are enlarged"
            break
        if i in judgements:
            values.append(judgements[i])
    return values


def _describes_next(read: Sentence, topic: Topic, i: int) -> bool:
    """Return whether an abnormal word describes another thing: "enlarged pulmonary arteries"."""
    if read.words[i] not in topic.abnormal:
        return False
    own = label_rules().outline | label_rules().topics.keys() | topic.abnormal
    for word, kind in zip(read.words[i + 1 :], read.kinds[i + 1 :], strict=True):
        if not kind or word in own:
            return False
        if kind in (ANATOMY, OBSERVATION):
            return True
    return False


def _is_of_other(read: Sentence, topic: Topic, i: int, organ: int) -> bool:
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
