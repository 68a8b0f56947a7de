"""Say how sure the language model was of each sentence that it wrote (ours).

It is the likelihood of the words, given the film: how probable the model found the tokens that it
chose. A rare phrasing of a sure fact lowers it as much as a doubt about the fact does, and a model
can be sure of what is wrong.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from lmrrg.documents.sentence_regions import SentenceRegions
from lmrrg.metrics.embedded.finding_tokens import text_of_pieces


@dataclass(frozen=True)
class SentenceLikelihood:
    """The log-probabilities of a sentence's tokens, in nats, at temperature 1."""

    mean: float
    least: float
    """Of the least probable token."""


def sentence_likelihoods(
    text: str,
    sentences: Sequence[SentenceRegions],
    pieces: Sequence[str],
    logprobs: Sequence[float],
) -> list[SentenceLikelihood | None]:
    """Return how probable the tokens of each sentence were.

    A token that stands in two sentences counts in both.

    Args:
        text: the report, as it was decoded from the tokens.
        sentences: of the text.
        pieces: its tokens as the tokenizer writes them, without special ones.
        logprobs: of the tokens.

    Returns:
        One for each sentence. None for all of them where the tokens do not spell the text, as with
        letters that a tokenizer of bytes writes as several: which token is where is unknown then.

    >>> from lmrrg.documents.sentence_regions import sentence_regions
    >>> text, pieces = "No mass. Clear.", ["No", "Ġmass", ".", "ĠClear", "."]
    >>> found = sentence_likelihoods(
    ...     text, sentence_regions(text), pieces, [-0.5, -1.0, 0.0, -2.0, 0.0]
    ... )
    >>> [(sentence.mean, sentence.least) for sentence in found]
    [(-0.5, -1.0), (-1.0, -2.0)]
    """
    written = text_of_pieces(pieces)
    whole = "".join(written)
    if whole.strip() != text:
        return [None] * len(sentences)
    start = len(whole.lstrip()) - len(whole)
    spans: list[tuple[int, int, float]] = []
    for piece, logprob in zip(written, logprobs, strict=True):
        spans.append((start, start + len(piece), logprob))
        start += len(piece)
    return [_likelihood(sentence, spans) for sentence in sentences]


def _likelihood(
    sentence: SentenceRegions, spans: Sequence[tuple[int, int, float]]
) -> SentenceLikelihood:
    own = [
        logprob for start, end, logprob in spans if start < sentence.end and end > sentence.start
    ]
    return SentenceLikelihood(sum(own) / len(own), min(own))
