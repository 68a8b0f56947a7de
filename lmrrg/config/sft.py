"""The settings of supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from lmrrg.config.base import Precision, Settings, check_batches


class SFTConfig(Settings):
    """Supervised fine-tuning: cross-entropy on report tokens plus the 14-class loss."""

    workers: PositiveInt = Field(1, description="data-parallel ranks")
    cpus_per_worker: PositiveFloat = Field(1, description="CPUs asked for each rank")
    gpus_per_worker: NonNegativeFloat = Field(0, description="GPUs asked for each rank")
    zero_stage: Literal[0, 1, 2, 3] = Field(1, description="DeepSpeed ZeRO stage")
    precision: Precision = Field(
        "fp32", description="type of the matrix products; weights and losses are float32"
    )
    epochs: PositiveInt = Field(10, description="passes over the training studies")
    minibatch: PositiveInt = Field(32, description="studies per optimizer step, over all ranks")
    microbatch: PositiveInt = Field(32, description="studies that one rank runs at once")
    learning_rate: PositiveFloat = Field(5e-4, description="peak learning rate")
    weight_decay: NonNegativeFloat = Field(0.01, description="AdamW weight decay")
    warmup: float = Field(
        0.05, ge=0.0, le=1.0, description="share of the steps with rising learning rate"
    )
    gradient_clip: PositiveFloat = Field(1.0, description="largest gradient norm")
    classification_weight: NonNegativeFloat = Field(
        0.5, description="lambda_cls of L = L_LM + lambda_cls L_cls"
    )
    attention_weight: NonNegativeFloat = Field(
        0.0,
        description="weight of the loss that draws the attention to a phantom's region masks; 0: never read",
    )
    uncertain_policy: Literal["positive", "negative", "ignore"] = Field(
        "positive", description="label -1 in the loss"
    )
    blank_policy: Literal["negative", "ignore"] = Field(
        "negative", description="a class not mentioned, in the loss"
    )
    resume: bool = Field(
        True, description="continue from the last checkpoint of the run, where there is one"
    )

    @model_validator(mode="after")
    def _batches(self) -> SFTConfig:
        check_batches("minibatch", self.minibatch, self.microbatch, self.workers)
        return self
