"""Build the language model that writes the report.

It is a small one with its own tokenizer, or any pretrained causal LM, with LoRA adapters if the
settings ask for them. H is its width.
"""

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
from lmrrg.model.evidence import FINDINGS

PAD = "<|pad|>"
BOS = "<|bos|>"
EOS = "<|eos|>"
UNK = "<|unk|>"


class DecoderError(CodedError):
    """Language model that cannot be used; ``code`` is stable."""


def build_tokenizer(
    config: ModelConfig, training_reports: Sequence[str]
) -> PreTrainedTokenizerBase:
    """Return the pretrained decoder's tokenizer, or one trained on reports and instruction.

    Raises:
        DecoderError: ``no_reports`` (nothing to train on), ``no_eos``, or as
            :func:`load_tokenizer`.
    """
    name = config.decoder.pretrained
    if not name:
        if not any(report.strip() for report in training_reports):
            raise DecoderError(
                "no_reports", "the training studies have no report text to build a tokenizer from"
            )
        # The words of a prompt count once for each report, as in training, so they become single
        # tokens.
        prompt = config.instruction
        if config.evidence_words:
            prompt += f" findings : {' , '.join(FINDINGS).lower()} none"
        texts = [text for report in training_reports for text in (report, prompt)]
        return train_tokenizer(texts, config.decoder.vocabulary)
    tokenizer = load_tokenizer(name)
    if tokenizer.eos_token_id is None:
        raise DecoderError("no_eos", f"the tokenizer of {name} has no end-of-sequence token")
    if tokenizer.pad_token_id is None:
        tokenizer.pad_token = tokenizer.eos_token
    return tokenizer


def build_decoder(config: DecoderConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return the float32 causal LM of the settings, with LoRA adapters if they ask for them.

    Its weights are random for the small decoder, else pretrained.

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
    """Return the tokenizer of a Hugging Face model or directory.

    Raises:
        DecoderError: ``pretrained_missing`` or ``bad_config`` (damaged, or of an unknown kind).
    """
    with coded_loading(f"the tokenizer of {name}"):
        tokenizer = AutoTokenizer.from_pretrained(name, local_files_only=local_files_only)
    for how_it_was_read in ("is_local", "local_files_only"):
        # Saved with it, this would make one tokenizer two.
        tokenizer.init_kwargs.pop(how_it_was_read, None)
    return tokenizer


def load_decoder(
    name: str | Path, *, local_files_only: bool = False, unexpected_weights: bool = True
) -> PreTrainedModel:
    """Load a float32 causal LM with every weight that its architecture has.

    Only safetensors are read, so nothing is unpickled.

    Args:
        unexpected_weights: accept weights that the architecture does not use; published models
            bring some, such as heads for other tasks.

    Raises:
        DecoderError: ``pretrained_missing`` (there is no such model, or it has no safetensors),
            ``bad_config`` (of an unknown kind) or ``bad_weights`` (damaged, missing, of another
            shape, or unexpected).
    """
    with coded_loading(str(name)):
        # Any: with `output_loading_info` it returns a pair, which its annotations do not state.
        loaded: Any = AutoModelForCausalLM.from_pretrained(
            name,
            local_files_only=local_files_only,
            dtype=torch.float32,
            attn_implementation="sdpa",
            use_safetensors=True,
            output_loading_info=True,
        )
    decoder, found = loaded
    # transformers replaces missing weights by random ones, and only warns.
    refused = ["missing_keys", "mismatched_keys"]
    if not unexpected_weights:
        refused.append("unexpected_keys")
    for kind in refused:
        if found[kind]:
            raise DecoderError(
                "bad_weights", f"{name}: {kind}: {sorted(map(str, found[kind]))[:5]}"
            )
    return decoder


def check_attention(settings: PreTrainedConfig, max_positions: int) -> None:
    """Refuse a decoder in which the last of ``max_positions`` tokens cannot attend to the first.

    Either it has fewer positions, or its attention has a window. A window is refused because the
    masks of padded and of packed rows replace it: results would depend on the batch.

    Raises:
        DecoderError: ``max_positions`` or ``decoder_attention``.
    """
    config = settings.get_text_config()
    longest = getattr(config, "max_position_embeddings", None)
    window = _attention_window(config)
    if longest and longest < max_positions:
        raise DecoderError(
            "max_positions",
            f"the decoder has {longest} positions: "
            f"model.decoder.max_positions {max_positions} is more",
        )
    if window and window < max_positions:
        raise DecoderError(
            "decoder_attention",
            f"the decoder's attention sees {window} tokens, "
            f"model.decoder.max_positions are {max_positions}",
        )


def train_tokenizer(texts: Sequence[str], vocabulary: int) -> PreTrainedTokenizerFast:
    """Train a byte-level BPE tokenizer: it restores every text exactly, without unknown tokens."""
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
    """Put LoRA adapters on every linear layer of the blocks, in place.

    In the decoder only the adapters stay trainable.
    """
    # alpha = 2 r: the usual choice, which doubles the adapters' product.
    lora = LoraConfig(
        r=rank, lora_alpha=2 * rank, lora_dropout=dropout, target_modules="all-linear"
    )
    inject_adapter_in_model(lora, decoder)


@contextmanager
def adapters_off(decoder: nn.Module) -> Iterator[None]:
    """Switch the adapters off inside the block: the decoder without :func:`add_lora`, for free."""
    layers: list[Any] = [module for module in decoder.modules() if isinstance(module, LoraLayer)]
    for layer in layers:
        # Not `enable_adapters(False)`, which would also freeze the adapters while the optimizer has
        # hooks on them.
        layer._disable_adapters = True
    try:
        yield
    finally:
        for layer in layers:
            layer._disable_adapters = False


def decoder_weights(decoder: PreTrainedModel) -> Iterator[tuple[str, Tensor]]:
    """Yield all weights under the plain Hugging Face names, with the adapters merged.

    ``lm_head.weight`` is included even when it is tied. They come one by one, since all merged
    weights at once would not fit on a GPU beside the decoder itself.
    """
    adapters: dict[str, Any] = {
        name: module for name, module in decoder.named_modules() if isinstance(module, LoraLayer)
    }
    for name, tensor in decoder.state_dict().items():
        if ".lora_" in name:
            continue
        # The weight of a layer with adapters is called layer.base_layer.weight.
        owner = name.rpartition(".base_layer.")[0]
        if owner in adapters and name.endswith(".weight"):
            tensor = tensor + adapters[owner].get_delta_weight("default").to(tensor.dtype)
        yield name.replace(".base_layer.", "."), tensor.detach()


def token_embedding(decoder: PreTrainedModel) -> nn.Embedding:
    """Return the decoder's input embedding [vocabulary, H]."""
    embedding = decoder.get_input_embeddings()
    assert isinstance(embedding, nn.Embedding)
    return embedding


def embedding_name(decoder: PreTrainedModel) -> str:
    """Return the name of :func:`token_embedding`'s weight among :func:`decoder_weights`."""
    embedding = decoder.get_input_embeddings()
    return next(f"{name}.weight" for name, module in decoder.named_modules() if module is embedding)


def _special_ids(tokenizer: PreTrainedTokenizerBase) -> dict[str, int | None]:
    names = ("pad_token_id", "bos_token_id", "eos_token_id")
    return {name: getattr(tokenizer, name) for name in names}


def _small(settings: DecoderConfig, tokenizer: PreTrainedTokenizerBase) -> PreTrainedModel:
    """Return a small decoder with random weights, of an architecture that vLLM serves."""
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
    """Return the smallest number of tokens that a layer attends to; None for full attention."""
    # Configs with windows also state them where no layer uses one.
    kinds = getattr(config, "layer_types", None)
    if kinds and not any(kind in ("sliding_attention", "chunked_attention") for kind in kinds):
        return None
    windows = (getattr(config, name, None) for name in ("sliding_window", "attention_chunk_size"))
    return min((window for window in windows if window), default=None)


@contextmanager
def coded_loading(what: str) -> Iterator[None]:
    """Turn any error of loading ``what`` into a coded one; damaged files raise many kinds."""
    try:
        yield
    except OSError as error:
        reason = _first_sentence(error)
        raise DecoderError("pretrained_missing", f"cannot load {what}: {reason}") from error
    except ImportError as error:
        raise DecoderError(
            "package_missing",
            f"cannot load {what}: {_first_sentence(error)}; install that package, or take a model "
            "in safetensors with a tokenizer.json",
        ) from error
    except (SafetensorError, RuntimeError) as error:
        reason = _first_sentence(error)
        raise DecoderError("bad_weights", f"cannot load {what}: {reason}") from error
    except Exception as error:  # the tokenizers library raises `Exception` itself
        reason = f"{type(error).__name__}: {_first_sentence(error)}"
        raise DecoderError("bad_config", f"cannot load {what}: {reason}") from error


def _first_sentence(error: Exception) -> str:
    """Return the first sentence of a library's message; what follows is mostly advice and links."""
    return " ".join(str(error).split()).split(". ")[0].rstrip(".")
