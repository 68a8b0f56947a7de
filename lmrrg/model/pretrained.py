"""Check what a model is built from, before anything slow is started."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from transformers import MODEL_FOR_CAUSAL_LM_MAPPING, AutoConfig, PreTrainedConfig

from lmrrg.config.model import ModelConfig
from lmrrg.model.decoder import (
    DecoderError,
    check_attention,
    coded_loading,
    load_tokenizer,
)
from lmrrg.model.region_queries import check_region_files

_PLAIN_DECODERS = "take Llama, Qwen, Mistral or another decoder with plain attention"
_BIASED_BY_DISTANCE = ("bloom", "mpt")
"""Model types whose attention always uses ALiBi, a bias that grows with distance."""


def check_pretrained(config: ModelConfig) -> None:
    """Fail fast where region texts, text encoder or pretrained decoder cannot be used at all.

    Of the decoder nothing but its configuration and its tokenizer is read. One that is built here
    needs no check.

    Raises:
        RegionError: as :func:`~lmrrg.model.region_queries.check_region_files`.
        DecoderError: ``pretrained_missing``, ``bad_config`` (damaged, of an unknown kind, or the
            tokenizer has ids beyond the embedding), ``max_positions`` or ``decoder_attention``.
    """
    check_region_files(config.text_encoder, config.regions_file)
    name = config.decoder.pretrained
    if not name:
        return
    settings = load_settings(name)
    _check_kind(settings, name)
    check_attention(settings, config.decoder.max_positions)
    tokens = len(load_tokenizer(name))
    vocabulary = settings.get_text_config().vocab_size
    if tokens > vocabulary:
        raise DecoderError(
            "bad_config",
            f"the tokenizer of {name} has {tokens} tokens, its embedding {vocabulary}: "
            "they do not belong together",
        )


def _check_kind(settings: PreTrainedConfig, name: str) -> None:
    """Refuse what is no decoder, and one without the attention that training uses.

    Raises:
        DecoderError: ``bad_config`` or ``decoder_attention``.
    """
    kind: Any = MODEL_FOR_CAUSAL_LM_MAPPING.get(type(settings), None)
    if kind is None:
        raise DecoderError(
            "bad_config",
            f"{name} is no causal language model but of the type {settings.model_type}; "
            f"{_PLAIN_DECODERS}",
        )
    # Private, and the only sign: without it the error comes from a rank, a minute later.
    if not kind._supports_sdpa:
        raise DecoderError(
            "decoder_attention",
            f"{name}, a {kind.__name__}, lacks the attention of torch that training uses "
            f"(scaled_dot_product_attention); {_PLAIN_DECODERS}",
        )


def load_settings(name: str | Path) -> PreTrainedConfig:
    """Return the configuration of a Hugging Face model or directory.

    Raises:
        DecoderError: ``pretrained_missing`` or ``bad_config``.
    """
    require_folder(str(name))
    with coded_loading(f"the configuration of {name}"):
        return AutoConfig.from_pretrained(name)


def require_folder(name: str) -> None:
    """Fail at once where a name can only be a path, and nothing is there.

    The hub knows names and ``owner/name``. What begins with a dot, a slash or a tilde, has more
    than one slash, or lies in a folder that exists here is a path: asking the hub for it would end
    after minutes with an error about the network.

    Raises:
        DecoderError: ``pretrained_missing``.
    """
    path = Path(name)
    is_path = name.startswith((".", "/", "~")) or name.count("/") > 1
    is_beside_files = "/" in name and Path(path.parts[0]).is_dir()
    if (is_path or is_beside_files) and not path.expanduser().is_dir():
        raise DecoderError(
            "pretrained_missing",
            f"there is no folder {name} here; a model of the hub is named as owner/name",
        )


def ppo_obstacle(settings: PreTrainedConfig) -> str | None:
    """Return why PPO cannot train this decoder, or None where it can.

    PPO packs prompts and reports end to end and computes the attention between them itself, which
    is right for the softmax of scaled products and for nothing else (ours).
    """
    text = settings.get_text_config()
    if getattr(text, "attn_logit_softcapping", None):
        return "its attention scores are capped (attn_logit_softcapping)"
    if getattr(text, "alibi", False) or text.model_type in _BIASED_BY_DISTANCE:
        return "its attention is biased by distance (ALiBi)"
    return None
