"""METEOR 1.5 for English in Python: what ``pycocoevalcap`` computes by running Java."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np

from lmrrg.metrics.parts import Array
from lmrrg.metrics.text.meteor.align import Match, Paraphrases, Phrase, align
from lmrrg.metrics.text.meteor.data import MAX_PHRASE, paraphrases, word_lists
from lmrrg.metrics.text.meteor.tokens import meteor_tokens

_ALPHA, _BETA, _GAMMA, _DELTA = (
    0.85,
    0.2,
    0.6,
    0.75,
)  # recall, fragmentation (power, weight), content words
_STAGE_WEIGHTS = (1.0, 0.6, 0.8, 0.6)
COLUMNS = 6


def meteor_counts(hypotheses: Sequence[str], references: Sequence[str]) -> Array:
    """The sums that METEOR is made of, per pair: [N, 6] = weighted matches of the hypothesis and of the reference,
    weighted lengths of both, chunks, and matched words. Adding rows gives the counts of a corpus.

    Raises:
        MetricError: ``meteor_data_missing``.
    """
    pairs = [
        (tuple(meteor_tokens(h)), tuple(meteor_tokens(r)))
        for h, r in zip(hypotheses, references, strict=True)
    ]
    table = paraphrases({phrase for pair in pairs for words in pair for phrase in _phrases(words)})
    rows = {pair: _counts(*pair, table) for pair in set(pairs)}
    return np.array([rows[pair] for pair in pairs], dtype=np.float64).reshape(-1, COLUMNS)


def prepare_meteor(texts: Iterable[str]) -> None:
    """Read the paraphrase table (4 s) once for everything that will be scored, instead of at each new word.

    Raises:
        MetricError: ``meteor_data_missing``.
    """
    paraphrases({(word,) for text in texts for word in meteor_tokens(text)})


def meteor_from_counts(counts: Array) -> Array:
    """METEOR [...] from (summed) counts [..., 6]."""
    test_matches, matches, test_length, length, chunks, words = np.moveaxis(counts, -1, 0)
    with np.errstate(divide="ignore", invalid="ignore"):
        precision, recall = test_matches / test_length, matches / length
        mean = 1 / ((1 - _ALPHA) / precision + _ALPHA / recall)
        score = mean * (1 - _GAMMA * (chunks / words) ** _BETA)
    return np.where(np.isfinite(score), score, 0.0)


def _phrases(words: Phrase) -> Iterable[Phrase]:
    return (words[i : i + n] for n in range(1, MAX_PHRASE + 1) for i in range(len(words) - n + 1))


def _counts(test: Phrase, reference: Phrase, table: Paraphrases) -> tuple[float, ...]:
    alignment = align(test, reference, table)
    chunks = _chunks(alignment)
    test_words = sum(match.test_length for match in alignment)
    words = sum(match.length for match in alignment)
    if chunks == 1 and test_words == len(test) and words == len(reference):
        chunks = 0  # a perfect match is not fragmented at all
    test_matches = sum(
        _STAGE_WEIGHTS[m.stage] * _weight(test[m.test_start : m.test_start + m.test_length])
        for m in alignment
    )
    matches = sum(
        _STAGE_WEIGHTS[m.stage] * _weight(reference[m.start : m.start + m.length])
        for m in alignment
    )
    return (
        test_matches,
        matches,
        _weight(test),
        _weight(reference),
        chunks,
        (test_words + words) / 2,
    )


def _weight(words: Phrase) -> float:
    function = sum(word in word_lists().function_words for word in words)
    return _DELTA * (len(words) - function) + (1 - _DELTA) * function


def _chunks(alignment: Sequence[Match]) -> int:
    """Runs of matches that are adjacent and in the same order in both texts."""
    chunks, end, test_end = 0, -1, -1
    for match in alignment:
        if (match.start, match.test_start) != (end, test_end):
            chunks += 1
        end, test_end = match.start + match.length, match.test_start + match.test_length
    return chunks
