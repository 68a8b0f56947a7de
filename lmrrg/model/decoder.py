"""The language model: a small one with its own tokenizer, or any pretrained causal LM, with LoRA if asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from safetensors import SafetensorError
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedConfig,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lmrrg.config.model import DecoderConfig, ModelConfig
from lmrrg.errors import CodedError

PAD, BOS, EOS, UNK = "<|pad|>", "<|bos|>", "<|eos|>", "<|unk|>"


class DecoderError(CodedError):
    """A language model that cannot be used; ``code`` is stable."""


def build_tokenizer(
    config: ModelConfig, training_reports: Sequence[str]
) -> PreTrainedTokenizerBase:
    """The pretrained decoder's tokenizer, or one trained on the reports and the instruction.

    Raises:
        DecoderError: ``no_reports`` (nothing to train on), ``no_eos``, or as :func:`load_tokenizer`.
    """
    name = config.decoder.pretrained
    if not name:
        if not any(report.strip() for report in training_reports):
            raise DecoderError(
                "no_reports", "the training studies have no report text to build a tokenizer from"
            )
        # Every prompt holds the instruction: as frequent as the reports, its words become single tokens.
        texts = [text for report in training_reports for text in (report, config.instruction)]
        return train_tokenizer(texts, config.decoder.vocabulary)
    tokenizer = load_tokenizer(name)
    if tokenizer.eos_token_id is None:
        raise DecoderError("no_eos", f"the tokenizer of {name} has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def build_decoder(config: DecoderConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A float32 causal LM as the settings ask for, with random or pretrained weights, LoRA adapters included.

    Raises:
        DecoderError: as :func:`load_decoder`.
    """
    decoder = load_decoder(config.pretrained) if config.pretrained else _small(config, tokenizer)
    ids = _special_ids(tokenizer)
    decoder.config.update(ids)
    decoder.generation_config = GenerationConfig(**ids)  # vLLM reads the end of a report from here
    if config.lora_rank:
        add_lora(decoder, config.lora_rank, config.dropout)
    return decoder


def load_tokenizer(name: str | Path, *, local_files_only: bool = False) -> PreTrainedTokenizerBase:
    """The tokenizer of a Hugging Face model or directory.

    Raises:
        DecoderError: ``pretrained_missing`` or ``bad_config`` (torn, or of no kind that is known).
    """
    with _coded(f"the tokenizer of {name}"):
        return AutoTokenizer.from_pretrained(name, local_files_only=local_files_only)


def load_decoder(
    name: str | Path, *, local_files_only: bool = False, unexpected_weights: bool = True
) -> PreTrainedModel:
    """A float32 causal LM with every weight that its architecture has; from safetensors, so nothing is unpickled.

    ``unexpected_weights`` accepts weights that the architecture has no use for, as published models bring them (heads
    for other tasks).

    Raises:
        DecoderError: ``pretrained_missing`` (there is no such model, or it has no safetensors), ``bad_config`` (of no
            kind that is known) or ``bad_weights`` (torn, missing, of another shape, or unexpected).
    """
    with _coded(str(name)):
        # The annotations of transformers leave the pair out.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            local_files_only=local_files_only,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
        )
    decoder, found = loaded
    # transformers fills what is missing with random weights and only warns.
    for kind in (
        "missing_keys",
        "mismatched_keys",
        *(() if unexpected_weights else ("unexpected_keys",)),
    ):
        if found[kind]:
            raise DecoderError(
                "bad_weights", f"{name}: {kind}: {sorted(map(str, found[kind]))[:5]}"
            )
    return decoder


def check_attention(decoder: PreTrainedModel, max_positions: int) -> None:
    """Refuse a decoder in which some of ``max_positions`` tokens have no position, or do not see the first one.

    The masks of padded and of packed rows take the place of a decoder's own window: results would depend on the batch.

    Raises:
        DecoderError: ``max_positions`` or ``decoder_attention``.
    """
    config = decoder.config.get_text_config()
    longest, window = getattr(config, "max_position_embeddings", None), _attention_window(config)
    if longest and longest < max_positions:
        raise DecoderError(
            "max_positions",
            f"the decoder has {longest} positions: model.decoder.max_positions {max_positions} is more",
        )
    if window and window < max_positions:
        raise DecoderError(
            "decoder_attention",
            f"the decoder's attention sees {window} tokens, model.decoder.max_positions are {max_positions}",
        )


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: case is kept, every text comes back exactly, no unknown tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=vocabulary,
        min_frequency=2,
        special_tokens=[PAD, BOS, EOS, UNK],
        initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
        show_progress=False,
    )
    bpe.train_from_iterator(texts, trainer)
    return PreTrainedTokenizerFast(
        tokenizer_object=bpe,
        pad_token=PAD,
        bos_token=BOS,
        eos_token=EOS,
        unk_token=UNK,
        clean_up_tokenization_spaces=False,
        padding_side="right",
    )


def add_lora(decoder: PreTrainedModel, rank: int, dropout: float = 0.0) -> None:
    """Put LoRA adapters on every linear layer of the blocks, in place; only they stay trainable in the decoder."""
    lora = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules="all-linear"
    )
    inject_adapter_in_model(lora, decoder)


@contextmanager
def adapters_off(decoder: nn.Module) -> Iterator[None]:
    """Inside the block the decoder is what it was before :func:`add_lora`, at no cost in memory."""
    layers: list[Any] = [module for module in decoder.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer._disable_adapters = (
            True  # `enable_adapters(False)` would also freeze them, under the optimizer's hooks
        )
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def decoder_weights(decoder: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """The full state under the plain Hugging Face names: adapters merged, ``lm_head.weight`` included when tied.

    One after the other: all merged weights at once would not fit on a GPU beside the decoder itself.
    """
    adapters: dict[str, Any] = {
        name: module for name, module in decoder.named_modules() if isinstance(module, LoraLayer)
    }
    for name, tensor in decoder.state_dict().items():
        if ".lora_" in name:
            continue
        owner = name.rpartition(".base_layer.")[0]
        if owner in adapters and name.endswith(".weight"):
            tensor = tensor + adapters[owner].get_delta_weight("default").to(tensor.dtype)
        yield name.replace(".base_layer.", "."), tensor.detach()


def token_embedding(decoder: PreTrainedModel) -> nn.Embedding:
    """The decoder's input embedding [vocabulary, H]."""
    embedding = decoder.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding


def embedding_name(decoder: PreTrainedModel) -> str:
    """Name of :func:`token_embedding`'s weight among :func:`decoder_weights`."""
    embedding = decoder.get_input_embeddings()
    return next(f"{name}.weight" for name, module in decoder.named_modules() if module is embedding)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    return {
        f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")
    }


def _small(settings: DecoderConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    config_class, model_class = {
        "llama": (LlamaConfig, LlamaForCausalLM),
        "qwen2": (Qwen2Config, Qwen2ForCausalLM),
    }[settings.architecture]
    return model_class(
        config_class(
            vocab_size=len(tokenizer),
            hidden_size=settings.hidden_size,
            intermediate_size=settings.intermediate_size,
            num_hidden_layers=settings.layers,
            num_attention_heads=settings.heads,
            num_key_value_heads=settings.heads,
            max_position_embeddings=settings.max_positions,
            attention_dropout=settings.dropout,
            tie_word_embeddings=False,
            attn_implementation="sdpa",
            dtype=torch.float32,
        )
    )


def _attention_window(config: PreTrainedConfig) -> int | None:
    """Tokens that the layers with the shortest sight attend to; None where all of them see everything before."""
    kinds = getattr(config, "layer_types", None)
    if kinds and not any(kind in ("sliding_attention", "chunked_attention") for kind in kinds):
        return None
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min((window for window in windows if window), default=None)


@contextmanager
def _coded(what: str) -> Iterator[None]:
    """Name what cannot be loaded; on damaged files transformers raises whatever it stumbles over."""
    try:
        yield
    except OSError as error:
        raise DecoderError("pretrained_missing", f"cannot load {what}: {error}") from error
    except (SafetensorError, RuntimeError) as error:
        raise DecoderError("bad_weights", f"cannot load {what}: {error}") from error
    except Exception as error:  # the tokenizers library raises the plain class
        raise DecoderError(
            "bad_config", f"cannot load {what}: {type(error).__name__}: {error}"
        ) from error
