"""Settings of supervised training: of the image encoder (the eye stage), and of the reports."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    NonNegativeInt,
    PositiveFloat,
    PositiveInt,
    model_validator,
)

from lmrrg.config.base import FREE, Precision, Settings, check_batches


class LabelPolicy(Settings):
    """What a class counts as that the report leaves uncertain or does not mention."""

    uncertain_policy: Literal["positive", "negative", "ignore"] = Field(
        "positive", description="how the 14-class loss counts a label of -1 (uncertain)"
    )
    blank_policy: Literal["negative", "ignore"] = Field(
        "negative", description="how the 14-class loss counts a class that is not mentioned"
    )


class EyeConfig(LabelPolicy):
    """Fine-tuning of the image encoder, before SFT: the 14-class loss on studies and films."""

    workers: PositiveInt = Field(1, description="data-parallel ranks")
    cpus_per_worker: PositiveFloat = Field(
        1, description="CPUs reserved for each rank", json_schema_extra=FREE
    )
    gpus_per_worker: NonNegativeFloat = Field(
        0, description="GPUs reserved for each rank", json_schema_extra=FREE
    )
    epochs: NonNegativeInt = Field(
        0, description="passes over the training studies; 0: a run has no eye stage"
    )
    minibatch: PositiveInt = Field(8, description="studies per optimizer step, over all ranks")
    learning_rate: PositiveFloat = Field(
        8e-5, description="peak learning rate of the backbone (3e-4 diverged on IU X-ray)"
    )
    head_learning_rate: PositiveFloat = Field(
        1e-3, description="peak learning rate of the class head, which starts from nothing"
    )
    weight_decay: NonNegativeFloat = Field(0.01, description="AdamW weight decay")
    warmup: float = Field(
        0.05, ge=0.0, le=1.0, description="fraction of the steps in which the learning rates rise"
    )
    gradient_clip: PositiveFloat = Field(1.0, description="largest gradient norm")
    frozen_blocks: NonNegativeInt = Field(
        5,
        description="blocks of the backbone, from its first, that keep their weights, as its stem "
        "always does; as many as it has: only the class head learns",
    )
    crop: PositiveInt = Field(
        192,
        multiple_of=32,
        description="side of the random crops that it is trained on, pixels of the squares of "
        "data.image_size; tested on whole squares",
    )
    rotation: NonNegativeFloat = Field(
        10.0,
        le=45.0,
        description="largest angle by which a crop is turned, degrees; films are never mirrored",
    )
    brightness: float = Field(
        0.2,
        ge=0.0,
        lt=1.0,
        description="largest change of a crop's brightness and contrast, as a fraction",
    )
    film_weight: NonNegativeFloat = Field(
        0.5, description="weight of the loss of each film beside that of their study"
    )
    largest_positive_weight: float = Field(
        5.0,
        ge=1.0,
        description="largest weight of the positives of a class, sqrt(negatives / positives)",
    )
    ema: float = Field(
        0.996,
        ge=0.0,
        lt=1.0,
        description="decay per step of the mean of the weights that is kept; 0: the last weights",
    )
    resume: bool = Field(
        True,
        description="continue from the stage's last checkpoint, if any; false: start again",
        json_schema_extra=FREE,
    )

    @model_validator(mode="after")
    def _batches(self) -> EyeConfig:
        check_batches("minibatch", self.minibatch, 1, self.workers)
        return self


class SFTConfig(LabelPolicy):
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
