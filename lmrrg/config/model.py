"""Settings of the network: the language model, and what LM-RRG builds around it."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, get_args

from pydantic import Field, PositiveInt, field_validator, model_validator

from lmrrg.config.base import Settings, enters
from lmrrg.own_code import OwnCode, is_own


class DecoderConfig(Settings):
    """The language model: a pretrained one, or a small one built here with its tokenizer."""

    pretrained: str | None = Field(
        None,
        description="Hugging Face causal language model (name or folder); null: build the small "
        "decoder described below",
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
        ge=260,  # 256 bytes and the special tokens
        description="largest vocabulary of the tokenizer trained on the training reports, tokens",
    )
    max_positions: PositiveInt = Field(512, description="longest prompt plus report, tokens")
    lora_rank: int = Field(
        0, ge=0, description="rank of LoRA adapters on the decoder; 0: train all of its weights"
    )
    dropout: float = Field(
        0.0,
        ge=0.0,
        lt=1.0,
        description="dropout rate in the decoder, where its architecture has any",
    )

    @model_validator(mode="after")
    def _head_size(self) -> DecoderConfig:
        # The smallest head size that vLLM's attention on CPU supports is 32.
        if self.hidden_size % self.heads or self.hidden_size // self.heads < 32:
            raise ValueError(
                f"hidden_size {self.hidden_size} / heads {self.heads} must be a whole head size of "
                "at least 32"
            )
        return self


EncoderName = Literal[
    "efficientnet_lite0", "efficientnet_lite1", "efficientnet_lite2", "huggingface"
]


class ImageEncoderConfig(Settings):
    """What turns a film into patch features, and its class head if it has one.

    The name alone may stand for the branch: ``model.image_encoder=efficientnet_lite1``.
    """

    name: EncoderName | OwnCode = Field(
        "efficientnet_lite0",
        description="architecture; huggingface: the vision model of `weights`; module:function: an "
        "encoder of your own, which gets data.image_size",
        json_schema_extra=enters("eye", "sft", "ppo"),
    )
    weights: str | None = Field(
        None,
        description="folder of an eye, an encoder that was trained further, with its class head; "
        "huggingface: folder or hub name of a vision model; null: packaged ImageNet weights",
    )

    @model_validator(mode="before")
    @classmethod
    def _name_alone(cls, settings: Any) -> Any:
        return {"name": settings} if isinstance(settings, str) else settings

    @field_validator("name", mode="before")
    @classmethod
    def _known(cls, name: Any) -> Any:
        # Before the types, whose two refusals would be two sentences.
        known = get_args(EncoderName)
        if isinstance(name, str) and name not in known and not is_own(name):
            raise ValueError(f"{name!r} is none of {', '.join(known)}, and no module:function")
        return name

    @model_validator(mode="after")
    def _weights(self) -> ImageEncoderConfig:
        if self.weights is not None and is_own(self.name):
            raise ValueError("an encoder of your own brings its own weights: leave weights out")
        if self.weights is None and self.name == "huggingface":
            raise ValueError("huggingface needs weights: a vision model's folder or hub name")
        return self


class ModelConfig(Settings):
    """The LM-RRG network around the decoder."""

    image_encoder: ImageEncoderConfig = ImageEncoderConfig()
    text_encoder: str = Field(
        "minilm",
        description="encoder of the region descriptions: minilm (packaged), or a model's name or "
        "folder",
    )
    regions_file: Path | None = Field(
        None, description="descriptions of the 29 chest regions (YAML); null: the packaged ones"
    )
    extractor_width: PositiveInt = Field(256, description="width of the region feature extractor")
    extractor_blocks: PositiveInt = Field(
        2,
        description="blocks of the extractor: self-attention, cross-attention and feed-forward",
    )
    extractor_heads: PositiveInt = Field(4, description="attention heads of the extractor")
    extractor_dropout: float = Field(
        0.1, ge=0.0, lt=1.0, description="dropout rate in the extractor"
    )
    instruction: str = Field(
        "describe the findings of this chest radiograph :",
        description="text of the prompt, after the region tokens",
    )
    use_indication: bool = Field(False, description="put the study's indication into the prompt")
    max_indication_tokens: PositiveInt = Field(
        32, description="length at which the indication is cut, tokens"
    )
    use_prior: bool = Field(
        False,
        description="put the report of the patient's previous study into the prompt, where the "
        "manifest names one",
    )
    max_prior_tokens: PositiveInt = Field(
        64, description="length at which the previous report is cut, tokens"
    )
    evidence_words: bool = Field(
        False,
        description="put the findings that the image encoder's class head sees into the prompt, as "
        "words",
    )
    evidence_tokens: bool = Field(
        False,
        description="put one more token for each finding before the prompt, scaled by how probable "
        "the image encoder's class head finds it",
    )
    decoder: DecoderConfig = DecoderConfig()

    @property
    def uses_evidence(self) -> bool:
        """Whether the decoder is told what the image encoder's class head sees."""
        return self.evidence_words or self.evidence_tokens

    @model_validator(mode="after")
    def _extractor_heads(self) -> ModelConfig:
        if self.extractor_width % self.extractor_heads:
            raise ValueError(
                f"extractor_heads {self.extractor_heads} must divide extractor_width "
                f"{self.extractor_width}"
            )
        return self


class EvidenceConfig(Settings):
    """The operating point: how probable a finding must be to count as evidence in the prompt."""

    threshold: float = Field(
        0.25, gt=0.0, lt=1.0, description="smallest calibrated probability of a finding"
    )
    precision: float | None = Field(
        None,
        ge=0.05,
        le=0.95,
        description="in place of the threshold: the fraction of the named findings that is to be "
        "right, in steps of 0.05; each finding then has the threshold that reached it on the "
        "validation studies",
    )
