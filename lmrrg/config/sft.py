"""Settings of supervised fine-tuning."""

from __future__ import annotations

from typing import Literal

from pydantic import Field, NonNegativeFloat, PositiveFloat, PositiveInt, model_validator

from lmrrg.config.base import FREE, Precision, Settings, check_batches


class SFTConfig(Settings):
    """Supervised fine-tuning: cross-entropy on report tokens plus the 14-class loss."""

    workers: PositiveInt = Field(1, description="data-parallel ranks")
    cpus_per_worker: PositiveFloat = Field(
        1, description="CPUs reserved for each rank", json_schema_extra=FREE
    )
    gpus_per_worker: NonNegativeFloat = Field(
        0, description="GPUs reserved for each rank", json_schema_extra=FREE
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(1, description="DeepSpeed ZeRO stage")
    precision: Precision = Field(
        "fp32", description="number format of matrix products; weights and losses are float32"
    )
    epochs: PositiveInt = Field(10, description="passes over the training studies")
    minibatch: PositiveInt = Field(32, description="studies per optimizer step, over all ranks")
    microbatch: PositiveInt = Field(32, description="studies per forward pass of one rank")
    learning_rate: PositiveFloat = Field(5e-4, description="peak learning rate")
    weight_decay: NonNegativeFloat = Field(0.01, description="AdamW weight decay")
    warmup: float = Field(
        0.05, ge=0.0, le=1.0, description="fraction of the steps in which the learning rate rises"
    )
    gradient_clip: PositiveFloat = Field(1.0, description="largest gradient norm")
    abnormal_sentence_weight: PositiveFloat = Field(
        1.0,
        description="weight in the loss of sentences that state something abnormal; others have 1",
    )
    class_balance: float = Field(
        0.0,
        ge=0.0,
        le=1.0,
        description="how far an epoch evens out the classes: 0 visits every study once, 1 draws "
        "studies so that their rarest findings are equally frequent",
    )
    select_by: Literal["loss", "clinical_f1"] = Field(
        "loss",
        description="what chooses the best epoch on the validation studies: the loss, or the micro "
        "F1 of the 13 findings in greedy reports",
    )
    select_studies: PositiveInt = Field(
        300, description="clinical_f1: validation studies that get a report after every epoch"
    )
    patience: PositiveInt | None = Field(
        None, description="epochs without a better one after which training ends; null: never"
    )
    classification_weight: NonNegativeFloat = Field(
        0.5, description="weight of the 14-class loss beside the language loss (lambda_cls)"
    )
    attention_weight: NonNegativeFloat = Field(
        0.0,
        description="weight of the loss that teaches the region attention from the masks of CT "
        "phantoms; 0: off",
    )
    evidence_dropped: float = Field(
        0.1, ge=0.0, lt=1.0, description="fraction of a report's findings left out of its evidence"
    )
    evidence_invented: float = Field(
        0.1,
        ge=0.0,
        le=1.0,
        description="fraction of the studies whose evidence names a finding that the report lacks",
    )
    uncertain_policy: Literal["positive", "negative", "ignore"] = Field(
        "positive", description="how the 14-class loss counts a label of -1 (uncertain)"
    )
    blank_policy: Literal["negative", "ignore"] = Field(
        "negative", description="how the 14-class loss counts a class that is not mentioned"
    )
    resume: bool = Field(
        True,
        description="continue from the run's last checkpoint, if any; false: start again",
        json_schema_extra=FREE,
    )

    @model_validator(mode="after")
    def _batches(self) -> SFTConfig:
        check_batches("minibatch", self.minibatch, self.microbatch, self.workers)
        if self.select_by == "clinical_f1" and self.zero_stage == 3:
            # Reports of different lengths would call the ranks' collective operations unequally.
            raise ValueError("select_by clinical_f1 needs zero_stage 2 or lower")
        return self
