"""The text part of the prompt, and report texts as token ids."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from lmrrg.config.model import ModelConfig


def prompt_ids(
    tokenizer: PreTrainedTokenizerBase, config: ModelConfig, indication: str, prior: str = ""
) -> list[int]:
    """Token ids that follow the visual tokens: instruction, then indication and prior report where the settings ask
    for them and there is one.

    A line break ends the prompt: it marks the start of the report for any tokenizer, with or without special tokens
    (**ours**). Indication and prior report are free text from outside: they are cut to ``max_indication_tokens`` and
    ``max_prior_tokens``, and special tokens spelled out in them stay plain text.
    """
    ids = _encode(tokenizer, config.instruction)
    if config.use_indication:
        ids += _part(tokenizer, " indication :", indication, config.max_indication_tokens)
    if config.use_prior:
        ids += _part(tokenizer, " prior report :", prior, config.max_prior_tokens)
    return ids + _encode(tokenizer, "\n")


def report_ids(tokenizer: PreTrainedTokenizerBase, report: str, max_tokens: int) -> list[int]:
    """A training target: the report's tokens and EOS, at most ``max_tokens``.

    A report that is too long is cut without EOS, so that no false ending is taught.
    """
    return [*_encode(tokenizer, report.strip()), tokenizer.eos_token_id][:max_tokens]


def _part(
    tokenizer: PreTrainedTokenizerBase, heading: str, text: str, max_tokens: int
) -> list[int]:
    """The heading and the text on one line; nothing for an empty text."""
    words = text.split()
    return (
        _encode(tokenizer, heading) + _encode(tokenizer, " " + " ".join(words))[:max_tokens]
        if words
        else []
    )


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
