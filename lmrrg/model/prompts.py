"""The text part of the prompt, and report texts as token ids."""

from __future__ import annotations

from transformers import PreTrainedTokenizerBase

from lmrrg.config import ModelConfig


def prompt_ids(tokenizer: PreTrainedTokenizerBase, config: ModelConfig, indication: str) -> list[int]:
    """Token ids that follow the visual tokens: instruction, then the indication where the settings ask for it.

    A line break ends the prompt: it marks the start of the report for any tokenizer, with or without special tokens
    (**ours**). The indication is free text from outside: it is cut to ``max_indication_tokens`` and special tokens
    spelled out in it stay plain text.
    """
    ids = _encode(tokenizer, config.instruction)
    if config.use_indication and indication.strip():
        ids += _encode(tokenizer, " indication :")
        ids += _encode(tokenizer, " " + " ".join(indication.split()))[: config.max_indication_tokens]
    return ids + _encode(tokenizer, "\n")


def report_ids(tokenizer: PreTrainedTokenizerBase, report: str, max_tokens: int) -> list[int]:
    """A training target: the report's tokens and EOS, at most ``max_tokens``.

    A report that is too long is cut without EOS, so that no false ending is taught.
    """
    return [*_encode(tokenizer, report.strip()), tokenizer.eos_token_id][:max_tokens]


def _encode(tokenizer: PreTrainedTokenizerBase, text: str) -> list[int]:
    return list(tokenizer.encode(text, add_special_tokens=False, split_special_tokens=True))
