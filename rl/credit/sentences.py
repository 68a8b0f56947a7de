"""The sentences of sampled reports on their tokens, and the partial reports that tell their credit.

Ours; :mod:`lmrrg.ppo.credit` turns the rewards of the partial reports into credits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass, replace

import numpy as np
from transformers import PreTrainedTokenizerBase

from lmrrg.config.ppo import PPOConfig
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.metrics.embedded.finding_tokens import text_of_pieces
from lmrrg.ppo.credit import (
    CreditForm,
    Credits,
    centred_credits,
    leave_one_out_credits,
    prefix_credits,
)

_END = re.compile(r"[.!?](?=\s|$)|;|\n\s*\n")
_WORD = re.compile(r"\w")


@dataclass(frozen=True)
class SentenceRewards:
    """The sentences of one report, and the rewards of its partial reports."""

    numbers: list[int]
    """Number of each token's sentence; -1: of none (:meth:`Sentences.numbers`)."""
    partial: np.ndarray
    """Reward of the partial report of each sentence [n]; NaN: not scored."""


class Sentences:
    """Cuts reports into sentences, and writes the partial reports that are to be scored.

    Args:
        tokenizer: of the decoder that writes the reports.
        ppo: ``credit`` says which partial reports are needed.
    """

    def __init__(self, tokenizer: PreTrainedTokenizerBase, ppo: PPOConfig):
        self._tokenizer = tokenizer
        self._special = frozenset(tokenizer.all_special_ids)
        self._form: CreditForm = "prefix" if ppo.credit == "prefix" else "leave_one_out"

    def numbers(self, token_ids: Sequence[int]) -> list[int]:
        """Return the number of each token's sentence; -1 for special tokens, EOS above all."""
        pieces = self._tokenizer.convert_ids_to_tokens(list(token_ids))
        numbers = sentence_numbers(text_of_pieces(pieces))
        special = [token in self._special for token in token_ids]
        return [-1 if skip else number for number, skip in zip(numbers, special, strict=True)]

    def texts(self, token_ids: Sequence[int], numbers: Sequence[int]) -> list[str]:
        """Return the text of each sentence; ``numbers`` are those of the tokens."""
        texts = []
        for sentence in range(max(numbers, default=-1) + 1):
            kept = [number == sentence for number in numbers]
            texts.append(self._text(_chosen(token_ids, kept)))
        return texts

    def partial_reports(
        self, report: GeneratedReport, numbers: Sequence[int]
    ) -> list[GeneratedReport]:
        """Return a partial report for each sentence: without it, or what was written before it.

        They end as the whole report does: with EOS, or cut. Their log-probs are nobody's.

        Args:
            report: the whole one.
            numbers: :meth:`numbers` of its tokens.
        """
        partial = []
        for sentence in range(max(numbers, default=-1) + 1):
            if self._form == "leave_one_out":
                kept = [number != sentence for number in numbers]
            else:
                kept = [number < sentence for number in numbers]
            partial.append(self._only(report, kept))
        return partial

    def credits(
        self, rewards: np.ndarray, sentences: Sequence[SentenceRewards], study: Sequence[int]
    ) -> list[Credits]:
        """Return the centred credits of the sentences of B reports, and of their ends, reward.

        Args:
            rewards: of the reports [B]; NaN: not scored.
            sentences: of the reports.
            study: the study of each [B].
        """
        credits_of = leave_one_out_credits if self._form == "leave_one_out" else prefix_credits
        credits: list[Credits] = []
        for reward, of_report in zip(rewards.tolist(), sentences, strict=True):
            credits.append(credits_of(reward, of_report.partial.tolist()))
        return centred_credits(credits, study, self._form)

    def _only(self, report: GeneratedReport, kept: Sequence[bool]) -> GeneratedReport:
        """Return the report with some of its tokens alone."""
        ids = _chosen(report.token_ids, kept)
        return GeneratedReport(ids, [], self._text(ids), report.finished)

    def _text(self, ids: list[int]) -> str:
        return str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()


def _chosen(ids: Sequence[int], kept: Sequence[bool]) -> list[int]:
    return [token for token, keep in zip(ids, kept, strict=True) if keep]


def sentence_numbers(pieces: Sequence[str]) -> list[int]:
    """Return the number of each piece's sentence, from 0.

    A sentence ends at ``.``, ``!`` or ``?`` before a space or the end, at ``;`` and at a blank
    line. Stops without a word between them end nothing; what is left behind the last end, as in a
    report that was cut, is a sentence.

    >>> sentence_numbers(["Clear", " lungs", ".", " No", " 0", ".", "5", " cm", " node", "."])
    [0, 0, 0, 1, 1, 1, 1, 1, 1, 1]
    """
    ends = {match.start() for match in _END.finditer("".join(pieces))}
    numbers = []
    number = 0
    position = 0
    has_word = False
    is_over = False
    for piece in pieces:
        if _WORD.search(piece):
            number += is_over
            has_word = True
            is_over = False
        numbers.append(number)
        following = position + len(piece)
        if has_word and any(at in ends for at in range(position, following)):
            is_over = True
        position = following
    return numbers


def shuffled_partial_rewards(
    sentences: Sequence[SentenceRewards], seed: int
) -> list[SentenceRewards]:
    """Return partial rewards that belong to other sentences: the negative control of learning."""
    every = np.concatenate([np.empty(0), *(one.partial for one in sentences)])
    every = np.random.default_rng(seed).permutation(every)
    ends = np.cumsum([len(one.partial) for one in sentences])
    parts = np.split(every, ends[:-1])
    return [replace(one, partial=part) for one, part in zip(sentences, parts, strict=True)]
