"""METEOR 1.5 for English in Python, equal to the Java program that ``pycocoevalcap`` runs."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lmrrg.metrics.parts import Array
from lmrrg.metrics.text.meteor.align import Match, Paraphrases, Phrase, align
from lmrrg.metrics.text.meteor.data import MAX_PHRASE, paraphrases, word_lists
from lmrrg.metrics.text.meteor.tokens import meteor_tokens

# METEOR 1.5's parameters for English, tuned by its authors on human judgements.
_ALPHA = 0.85  # weight of recall in the harmonic mean
_BETA = 0.2  # power of the fragmentation
_GAMMA = 0.6  # weight of the fragmentation penalty
_DELTA = 0.75  # weight of content words; function words have the rest
_STAGE_WEIGHTS = (1.0, 0.6, 0.8, 0.6)  # of exact, stem, synonym and paraphrase matches
COLUMNS = 6


def meteor_counts(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """Return the counts that METEOR is computed from, per pair [N, 6].

    The columns are the weighted matches of the hypothesis and of the reference, the weighted
    lengths of both, the chunks, and the matched words. Adding rows gives the counts of a corpus.

    Raises:
        MetricError: ``meteor_data_missing``.
    """
    tested = [tuple(meteor_tokens(text)) for text in hypotheses]
    pairs = list(zip(tested, (tuple(meteor_tokens(text)) for text in references), strict=True))
    phrases: set[Phrase] = set()
    for hypothesis, reference in set(pairs):
        phrases.update(_phrases(hypothesis), _phrases(reference))
    table = paraphrases(phrases)
    rows = {pair: _counts(*pair, table) for pair in set(pairs)}
    return np.array([rows[pair] for pair in pairs], dtype=np.float64).reshape(-1, COLUMNS)


def prepare_meteor(texts: Iterable[str]) -> None:
    """Read the paraphrase table once for all texts that will be scored.

    Without it, each call with a new word reads the table again, which takes 4 seconds.

    Raises:
        MetricError: ``meteor_data_missing``.
    """
    paraphrases({(word,) for text in texts for word in meteor_tokens(text)})


def meteor_from_counts(counts: Array) -> Array:
    """Return METEOR [...] from (summed) counts [..., 6].

    Recall weighs more than precision, so a report that is too short loses more than one that is too
    long. Here 4 words match in one chunk; once the reference has 4 words more, once the hypothesis:

    >>> too_short = [4.0, 4.0, 4.0, 8.0, 1.0, 4.0]
    >>> too_long = [4.0, 4.0, 8.0, 4.0, 1.0, 4.0]
    >>> meteor_from_counts(np.array([too_short, too_long])).round(2).tolist()
    [0.29, 0.47]
    """
    columns = np.moveaxis(counts, -1, 0)
    test_matches, matches, test_length, length = columns[:4]
    chunks, words = columns[4:]
    # Without a match the divisions are 0/0; the last line turns their NaN into the score 0.
    with np.errstate(divide="ignore", invalid="ignore"):
        precision = test_matches / test_length
        recall = matches / length
        mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        score = mean * (1 - _GAMMA * (chunks / words) ** _BETA)
    return np.where(np.isfinite(score), score, 0.0)


def _phrases(words: Phrase) -> Iterable[Phrase]:
    """Yield every run of words that the paraphrase table could hold."""
    for length in range(1, MAX_PHRASE + 1):
        for start in range(len(words) - length + 1):
            yield words[start : start + length]


def _counts(test: Phrase, reference: Phrase, table: Paraphrases) -> tuple[float, ...]:
    """Return one row of :func:`meteor_counts`."""
    alignment = align(test, reference, table)
    chunks = _chunks(alignment)
    test_words = 0
    words = 0
    test_matches = 0.0
    matches = 0.0
    for match in alignment:
        test_words += match.test_length
        words += match.length
        stage_weight = _STAGE_WEIGHTS[match.stage]
        test_phrase = test[match.test_start : match.test_start + match.test_length]
        test_matches += stage_weight * _weight(test_phrase)
        phrase = reference[match.start : match.start + match.length]
        matches += stage_weight * _weight(phrase)
    if chunks == 1 and test_words == len(test) and words == len(reference):
        chunks = 0  # A perfect match has no fragmentation penalty, as in the original.
    mean_words = (test_words + words) / 2
    return test_matches, matches, _weight(test), _weight(reference), chunks, mean_words


def _weight(words: Phrase) -> float:
    """Return the number of words, function words with a lower weight than the others."""
    function = sum(word in word_lists().function_words for word in words)
    return _DELTA * (len(words) - function) + (1 - _DELTA) * function


def _chunks(alignment: Sequence[Match]) -> int:
    """Count the runs of matches that are adjacent and in the same order in both texts."""
    chunks = 0
    ends = (-1, -1)
    for match in alignment:
        if (match.start, match.test_start) != ends:
            chunks += 1
        ends = (match.start + match.length, match.test_start + match.test_length)
    return chunks
