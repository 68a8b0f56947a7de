"""The settings of the network: the language model, and what LM-RRG builds around it."""

from __future__ import annotations

from pathlib import Path
from typing import Literal

from pydantic import Field, PositiveInt, model_validator

from lmrrg.config.base import Settings


class DecoderConfig(Settings):
    """The language model: a pretrained directory, or a small one built here with its own tokenizer."""

    pretrained: str | None = Field(
        None,
        description="Hugging Face causal LM (name or directory); null builds the small decoder below",
    )
    architecture: Literal["llama", "qwen2"] = Field(
        "llama", description="architecture of the small decoder"
    )
    hidden_size: PositiveInt = Field(256, description="width of the small decoder")
    layers: PositiveInt = Field(4, description="blocks of the small decoder")
    heads: PositiveInt = Field(4, description="attention heads of the small decoder")
    intermediate_size: PositiveInt = Field(
        768, description="feed-forward width of the small decoder"
    )
    vocabulary: int = Field(
        2000,
        ge=260,  # the bytes and the special tokens
        description="most tokens in the tokenizer trained on the training reports",
    )
    max_positions: PositiveInt = Field(512, description="longest prompt plus report, tokens")
    lora_rank: int = Field(
        0, ge=0, description="rank of LoRA adapters on the decoder; 0 trains all weights"
    )
    dropout: float = Field(
        0.0, ge=0.0, lt=1.0, description="dropout inside the decoder, where it has any"
    )

    @model_validator(mode="after")
    def _head_size(self) -> DecoderConfig:
        if self.hidden_size % self.heads or self.hidden_size // self.heads < 32:
            raise ValueError(
                f"hidden_size {self.hidden_size} / heads {self.heads} must be a whole head size of at least 32"
            )
        return self


class ModelConfig(Settings):
    """The LM-RRG network around the decoder."""

    image_encoder: Literal["efficientnet_lite0"] = Field(
        "efficientnet_lite0", description="frozen image encoder"
    )
    text_encoder: str = Field(
        "minilm", description="encoder of the region descriptions: minilm or a directory"
    )
    regions_file: Path | None = Field(
        None, description="region descriptions (YAML); null uses the packaged file"
    )
    extractor_width: PositiveInt = Field(256, description="width of the region feature extractor")
    extractor_blocks: PositiveInt = Field(
        2, description="self-attention, cross-attention, FFN blocks"
    )
    extractor_heads: PositiveInt = Field(4, description="attention heads of the extractor")
    extractor_dropout: float = Field(0.1, ge=0.0, lt=1.0, description="dropout in the extractor")
    instruction: str = Field(
        "describe the findings of this chest radiograph :", description="text after the image"
    )
    use_indication: bool = Field(False, description="put the study's indication into the prompt")
    max_indication_tokens: PositiveInt = Field(
        32, description="longest indication in the prompt, tokens"
    )
    use_prior: bool = Field(
        False,
        description="put the report of the patient's previous study into the prompt, where the manifest has it",
    )
    max_prior_tokens: PositiveInt = Field(
        64, description="longest prior report in the prompt, tokens"
    )
    decoder: DecoderConfig = DecoderConfig()

    @model_validator(mode="after")
    def _extractor_heads(self) -> ModelConfig:
        if self.extractor_width % self.extractor_heads:
            raise ValueError(
                f"extractor_heads {self.extractor_heads} must divide extractor_width {self.extractor_width}"
            )
        return self
