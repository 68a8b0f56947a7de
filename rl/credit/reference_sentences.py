"""Reports with a sentence of the reference, for findings that no sample of a study names (ours).

Where all samples of a study miss a finding, they earn nothing from it and nothing is learnt of it.
The last sample then gets the sentence of the reference that states the finding: in the place of the
sentence that denies it, or at the place that it has in the reference. It is the last sample,
whatever it earns, so that the others are not selected by their rewards.

The edited report is off-policy. What wrote its tokens is known: those that were kept, the policy,
with the probability that the engine gave them; those from the reference, the edit, with
probability 1. These are the log-probs of its record, so the truncated importance weights of
:func:`lmrrg.ppo.correction.importance_weights` follow as for any other report: a token from the
reference weighs as much as the policy finds it probable.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.metrics.embedded.finding_tokens import text_of_pieces
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.studies import NEGATIVE, POSITIVE
from rl.credit.sentences import Sentences, sentence_numbers


@dataclass(frozen=True)
class EditedReport(GeneratedReport):
    """A sampled report with a sentence of its study's reference.

    Its log-probs are those of what wrote it: the engine's, and 0 for the tokens of the sentence.
    """


@dataclass(frozen=True)
class Missed:
    """A sentence of a reference, by its number, that states a finding no sample states."""

    finding: str
    sentence: str
    number: int


class ReferenceSentences:
    """Edits the last sample of studies whose samples all miss a finding.

    Args:
        tokenizer: of the decoder that writes the reports.
        sentences: cuts reports into sentences.
        fraction: of such studies that are edited.
        max_tokens: longest report.
    """

    def __init__(
        self,
        tokenizer: PreTrainedTokenizerBase,
        sentences: Sentences,
        fraction: float,
        max_tokens: int,
    ):
        self._tokenizer = tokenizer
        self._sentences = sentences
        self._fraction = fraction
        self._max_tokens = max_tokens

    def group(
        self, samples: Sequence[GeneratedReport], reference: str, seed: Sequence[int]
    ) -> list[GeneratedReport]:
        """Return the samples of one study, the last one edited where all miss a finding.

        Args:
            samples: of the study.
            reference: its report.
            seed: decides whether this study is among the fraction.
        """
        *others, last = samples
        if np.random.default_rng(seed).random() < self._fraction:
            missed = missed_sentence([report.text for report in samples], reference)
            if missed is not None:
                last = self._with_sentence(last, missed) or last
        return [*others, last]

    def _with_sentence(self, report: GeneratedReport, missed: Missed) -> EditedReport | None:
        """Return the report with the sentence; None where it does not fit or cannot be placed."""
        if not report.finished:  # whatever the end of a cut report is, it is no sentence
            return None
        numbers = self._sentences.numbers(report.token_ids)
        texts = self._sentences.texts(report.token_ids, numbers)
        place = _denial(texts, missed.finding)
        replaced = place is not None
        if place is None:
            # Not before the first sentence, whose first token would have to become another one.
            place = min(max(missed.number, 1), len(texts))
        pieces = text_of_pieces(self._tokenizer.convert_ids_to_tokens(report.token_ids))
        first, last = _tokens_of(numbers, pieces, place, replaced=replaced)
        added = self._encode(missed.sentence, is_first=place == 0)
        ids = [*report.token_ids[:first], *added, *report.token_ids[last:]]
        # The edit writes the sentence with probability 1: log-probs of 0.
        log_probs = [*report.logprobs[:first], *[0.0] * len(added), *report.logprobs[last:]]
        text = str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()
        wanted = " ".join([*texts[:place], missed.sentence, *texts[place + replaced :]])
        if len(ids) > self._max_tokens or not _same_words(text, wanted):
            return None
        return EditedReport(ids, log_probs, text, finished=True)

    def _encode(self, sentence: str, *, is_first: bool) -> list[int]:
        text = sentence if is_first else f" {sentence}"
        return list(
            self._tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True)
        )


def missed_sentence(samples: Sequence[str], reference: str) -> Missed | None:
    """Return the first sentence of the reference that states a finding which no sample states.

    A finding is a class other than "No Finding" that is labelled positive, in the reference as a
    whole and in the sentence by itself.

    >>> reference = "The heart is normal. There is a left pleural effusion."
    >>> missed_sentence(["The heart is normal."], reference)
    Missed(finding='Pleural Effusion', sentence='There is a left pleural effusion.', number=1)
    >>> missed_sentence(["The heart is normal.", "Left effusion."], reference)
    """
    missing = _findings(reference).difference(*map(_findings, samples))
    for number, sentence in enumerate(_sentences_of(reference)):
        found = sorted(_findings(sentence) & missing)
        if found:
            return Missed(found[0], _closed(sentence), number)
    return None


def _findings(text: str) -> set[str]:
    labels = label_report(text).items()
    return {name for name, value in labels if value == POSITIVE and name != "No Finding"}


def _sentences_of(text: str) -> list[str]:
    numbers = sentence_numbers(text)
    sentences = [""] * (max(numbers, default=-1) + 1)
    for character, number in zip(text, numbers, strict=True):
        sentences[number] += character
    return [" ".join(sentence.split()) for sentence in sentences]


def _closed(sentence: str) -> str:
    """Return a sentence that ends, also where a blank line ended it."""
    return sentence if sentence.endswith((".", "!", "?", ";")) else f"{sentence}."


def _same_words(one: str, other: str) -> bool:
    # The tokenizer may write another case or other spaces.
    return one.casefold().split() == other.casefold().split()


def _denial(sentences: Sequence[str], finding: str) -> int | None:
    """Return the number of the first sentence that denies the finding."""
    for number, sentence in enumerate(sentences):
        if label_report(sentence).get(finding) == NEGATIVE:
            return number
    return None


def _tokens_of(
    numbers: Sequence[int], pieces: Sequence[str], place: int, *, replaced: bool
) -> tuple[int, int]:
    """Return which tokens the new sentence takes the place of, [first, last).

    A space that is a token of its own counts to the sentence after it, which the new one precedes.

    >>> pieces = ["Clear", ".", " ", "No", ".", "<eos>"]
    >>> _tokens_of([0, 0, 0, 1, 1, -1], pieces, 1, replaced=True)
    (2, 5)
    >>> _tokens_of([0, 0, 0, 1, 1, -1], pieces, 1, replaced=False)
    (2, 2)
    """
    order = [number if number >= 0 else max(numbers) + 1 for number in numbers]
    first = sum(number < place for number in order)
    last = first + (order.count(place) if replaced else 0)
    return _before_spaces(pieces, first), _before_spaces(pieces, last)


def _before_spaces(pieces: Sequence[str], end: int) -> int:
    while end and not pieces[end - 1].strip():
        end -= 1
    return end
