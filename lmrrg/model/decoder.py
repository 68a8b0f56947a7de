"""The language model: a small one with its own tokenizer, or any pretrained causal LM, with LoRA if asked."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from peft import LoraConfig, inject_adapter_in_model
from peft.tuners.lora import LoraLayer
from tokenizers import Tokenizer, decoders, models, pre_tokenizers, trainers
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    GenerationConfig,
    LlamaConfig,
    LlamaForCausalLM,
    PreTrainedModel,
    PreTrainedTokenizerBase,
    PreTrainedTokenizerFast,
    Qwen2Config,
    Qwen2ForCausalLM,
)

from lmrrg.config import DecoderConfig, ModelConfig
from lmrrg.errors import CodedError

PAD, BOS, EOS, UNK = "<|pad|>", "<|bos|>", "<|eos|>", "<|unk|>"


class DecoderError(CodedError):
    """A language model that cannot be used; ``code`` is stable."""


def build_tokenizer(config: ModelConfig, training_reports: Sequence[str]) -> PreTrainedTokenizerBase:
    """The pretrained decoder's tokenizer, or one trained on the reports and the instruction.

    Raises:
        DecoderError: ``no_reports`` (nothing to train on), ``pretrained_missing`` or ``no_eos``.
    """
    name = config.decoder.pretrained
    if not name:
        if not any(report.strip() for report in training_reports):
            raise DecoderError("no_reports", "the training studies have no report text to build a tokenizer from")
        # Every prompt holds the instruction: as frequent as the reports, its words become single tokens.
        texts = [text for report in training_reports for text in (report, config.instruction)]
        return train_tokenizer(texts, config.decoder.vocabulary)
    try:
        tokenizer = AutoTokenizer.from_pretrained(name)
    except OSError as error:
        raise DecoderError("pretrained_missing", f"cannot load the tokenizer of {name}: {error}") from error
    if tokenizer.eos_token_id is None:
        raise DecoderError("no_eos", f"the tokenizer of {name} has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def build_decoder(config: DecoderConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """A float32 causal LM as the settings ask for, with random or pretrained weights, LoRA adapters included.

    Raises:
        DecoderError: ``pretrained_missing``.
    """
    decoder = _pretrained(config.pretrained) if config.pretrained else _small(config, tokenizer)
    ids = _special_ids(tokenizer)
    decoder.config.update(ids)
    decoder.generation_config = GenerationConfig(**ids)  # vLLM reads the end of a report from here
    if config.lora_rank:
        add_lora(decoder, config.lora_rank, config.dropout)
    return decoder


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """A byte-level BPE tokenizer: case is kept, every text comes back exactly, no unknown tokens."""
    bpe = Tokenizer(models.BPE())
    bpe.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    bpe.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=max(vocabulary, 256 + 4),
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
    lora = LoraConfig(r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules="all-linear")
    inject_adapter_in_model(lora, decoder)


@contextmanager
def adapters_off(decoder: nn.Module) -> Iterator[None]:
    """Inside the block the decoder is what it was before :func:`add_lora`, at no cost in memory."""
    layers: list[Any] = [module for module in decoder.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        layer._disable_adapters = True  # `enable_adapters(False)` would also freeze them, under the optimizer's hooks
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


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    return {f"{name}_token_id": getattr(tokenizer, f"{name}_token_id") for name in ("pad", "bos", "eos")}


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


def _pretrained(name: str) -> PreTrainedModel:
    try:
        return AutoModelForCausalLM.from_pretrained(name, dtype=torch.float32, attn_implementation="sdpa")
    except OSError as error:
        raise DecoderError("pretrained_missing", f"cannot load {name}: {error}") from error
