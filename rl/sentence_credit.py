"""The sentences of sampled reports on their tokens, and the partial reports that tell their credit.

Ours; :mod:`lmrrg.ppo.credit` turns the rewards of the partial reports into credits.
"""

from __future__ import annotations

import re
from collections.abc import Sequence

import numpy as np
from torch import Tensor
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
    token_credits,
)

_END = re.compile(r"[.!?](?=\s|$)|;|\n\s*\n")
_WORD = re.compile(r"\w")


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

    def partial_reports(self, report: GeneratedReport) -> list[GeneratedReport]:
        """Return a partial report for each sentence: without it, or what was written before it.

        They end as the whole report does: with EOS, or cut. Their log-probs are nobody's.
        """
        numbers = self.numbers(report.token_ids)
        partial = []
        for sentence in range(max(numbers, default=-1) + 1):
            if self._form == "leave_one_out":
                kept = [number != sentence for number in numbers]
            else:
                kept = [number < sentence for number in numbers]
            partial.append(self._only(report, kept))
        return partial

    def credit(
        self,
        reports: Sequence[GeneratedReport],
        study: Sequence[int],
        rewards: np.ndarray,
        partial: Sequence[np.ndarray],
    ) -> Tensor:
        """Return the centred credit of every token [B, T], reward; 0 in the padding.

        Args:
            reports: B reports.
            study: the study of each [B].
            rewards: of the reports [B]; NaN: not scored.
            partial: rewards of each report's :meth:`partial_reports`; NaN: not scored.
        """
        credits_of = leave_one_out_credits if self._form == "leave_one_out" else prefix_credits
        credits: list[Credits] = []
        for reward, of_report in zip(rewards.tolist(), partial, strict=True):
            credits.append(credits_of(reward, of_report.tolist()))
        numbers = [self.numbers(report.token_ids) for report in reports]
        return token_credits(centred_credits(credits, study, self._form), numbers)

    def _only(self, report: GeneratedReport, kept: Sequence[bool]) -> GeneratedReport:
        """Return the report with some of its tokens alone."""
        ids = [token for token, keep in zip(report.token_ids, kept, strict=True) if keep]
        text = str(self._tokenizer.decode(ids, skip_special_tokens=True)).strip()
        return GeneratedReport(ids, [], text, report.finished)


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


def shuffled_partial_rewards(partial: Sequence[np.ndarray], seed: int) -> list[np.ndarray]:
    """Return partial rewards that belong to other sentences: the negative control of learning."""
    every = np.concatenate([np.empty(0), *partial])
    every = np.random.default_rng(seed).permutation(every)
    ends = np.cumsum([len(of_report) for of_report in partial])
    return np.split(every, ends[:-1])
