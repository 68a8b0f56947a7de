"""Turn the text part of the prompt, and report texts, into token ids."""

from __future__ import annotations

import torch
from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lmrrg.anatomy import REGIONS
from lmrrg.config.model import ModelConfig
from lmrrg.config.tree import Config
from lmrrg.model.decoder import DecoderError
from lmrrg.model.evidence import FINDINGS, EvidenceError, names_of
from lmrrg.studies import LABELS


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase,
    config: ModelConfig,
    indication: str,
    prior: str = "",
    evidence: Tensor | None = None,
) -> list[int]:
    """Return the token ids that follow the visual tokens.

    They are the instruction, then the findings of the evidence, or "none", where the settings ask
    for them, then the indication and the prior report where the settings ask for them and the study
    has them. A line break ends the prompt: it marks the start of the report for
    any tokenizer, with or without special tokens (**ours**).

    Indication and prior report are free text from outside: they are cut to
    ``max_indication_tokens`` and ``max_prior_tokens``, and special tokens spelled out in them stay
    plain text.

    Args:
        tokenizer: the decoder's.
        config: what a prompt holds.
        indication: why the study was made.
        prior: report of the patient's previous study.
        evidence: the study's row [14] after :func:`~lmrrg.model.evidence.at_thresholds`.

    Raises:
        EvidenceError: ``no_evidence``, the settings ask for words and there is nothing to tell.
    """
    ids = _encode(tokenizer, config.instruction)
    if config.evidence_words:
        ids += _encode(tokenizer, evidence_text(evidence))
    if config.use_indication:
        ids += _part(tokenizer, " indication :", indication, config.max_indication_tokens)
    if config.use_prior:
        ids += _part(tokenizer, " prior report :", prior, config.max_prior_tokens)
    return ids + _encode(tokenizer, "\n")


def evidence_text(evidence: Tensor | None) -> str:
    """Return the part of a prompt that tells the evidence [14].

    >>> evidence_text(torch.tensor([0, 0.4, 0, 0, 0, 0, 0, 0, 0, 0.7, 0, 0, 0, 0]))
    ' findings : cardiomegaly , pleural effusion'
    >>> evidence_text(torch.zeros(14))
    ' findings : none'

    Raises:
        EvidenceError: ``no_evidence``.
    """
    if evidence is None or evidence.isnan().any():
        raise EvidenceError(
            "no_evidence", "model.evidence_words puts findings into the prompt, and none are given"
        )
    return f" findings : {' , '.join(names_of(evidence)) or 'none'}"


def check_prompt_length(tokenizer: PreTrainedTokenizerBase, config: Config) -> None:
    """Refuse settings under which the longest prompt leaves no room for the longest report.

    Raises:
        DecoderError: ``prompt_too_long``.
    """
    model = config.model
    # One word per token at least: what is longer is cut.
    ids = prompt_ids(
        tokenizer,
        model,
        "a " * model.max_indication_tokens,
        "a " * model.max_prior_tokens,
        torch.ones(len(LABELS)),
    )
    prompt = len(REGIONS) + 1 + len(ids) + len(FINDINGS) * model.evidence_tokens
    report = max(config.data.max_report_tokens, config.rollout.max_new_tokens)
    if prompt + report > model.decoder.max_positions:
        raise DecoderError(
            "prompt_too_long",
            f"a prompt of {prompt} tokens and a report of {report} are more than "
            f"model.decoder.max_positions {model.decoder.max_positions}: raise it, shorten the "
            "instruction, or lower data.max_report_tokens and rollout.max_new_tokens",
        )


def report_ids(tokenizer: PreTrainedTokenizerBase, report: str, max_tokens: int) -> list[int]:
    """Return a training target: the report's tokens and EOS, at most ``max_tokens``.

    A longer report is cut and has no EOS, so that the model does not learn to end in mid-sentence.
    """
    return [*_encode(tokenizer, report.strip()), tokenizer.eos_token_id][:max_tokens]


def _part(
    tokenizer: PreTrainedTokenizerBase, heading: str, text: str, max_tokens: int
) -> list[int]:
    """Return heading and text on one line; nothing for an empty text."""
    words = text.split()
    if not words:
        return []
    return _encode(tokenizer, heading) + _encode(tokenizer, " " + " ".join(words))[:max_tokens]


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    # Splitting special tokens: a text from outside must not end the prompt or the report.
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
