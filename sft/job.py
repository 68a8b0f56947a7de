"""What a rank of SFT gets to work on, and the examples that it makes of it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Literal

from torch import Tensor
from transformers import PreTrainedTokenizerBase

from lmrrg.config.tree import Config
from lmrrg.model.evidence import evidence_of, noisy_evidence, precision_table, stated_findings
from lmrrg.studies import Study
from lmrrg.vision.files import FeatureFiles
from sft.batches import Examples


@dataclass(frozen=True, repr=False)
class Job:
    """Everything that a rank needs.

    There is no generated repr: it would print reports, and Ray prints arguments in its errors.

    Attributes:
        fingerprint: identifies the run; a checkpoint with another one is refused.
        provenance: facts that every model directory of the run records.
        priors: prior reports by study id.
    """

    config: Config
    train: list[Study]
    val: list[Study]
    train_files: FeatureFiles
    val_files: FeatureFiles
    tokenizer: PreTrainedTokenizerBase
    fingerprint: str
    provenance: dict[str, Any]
    priors: Mapping[str, str] = field(default_factory=dict)


def evidence_table(job: Job) -> Tensor:
    """Return the thresholds that reach each precision on the validation studies [19, 14].

    Raises:
        EvidenceError: ``no_evidence``.
    """
    stated = stated_findings(job.val, job.config.data.section)
    return precision_table(evidence_of(job.val_files), stated)


def examples_of(
    job: Job, split: Literal["train", "val"], thresholds: Tensor | None = None
) -> Examples:
    """Return the tokenized examples of a split; ``thresholds`` [14] are of the operating point."""
    studies = job.train if split == "train" else job.val
    files = job.train_files if split == "train" else job.val_files
    config = job.config
    return Examples(
        studies,
        files,
        job.tokenizer,
        config.data,
        config.model,
        thresholds=thresholds,
        priors=job.priors,
        # Without a weight on their loss the masks are not even read.
        supervise_attention=config.sft.attention_weight > 0,
        # Validation measures every token alike.
        abnormal_weight=config.sft.abnormal_sentence_weight if split == "train" else 1.0,
    )


def epoch_evidence(train: Examples, config: Config, epoch: int) -> Tensor | None:
    """Return the evidence of the training examples in an epoch, where the model reads any."""
    if train.stated is None:
        return None
    sft = config.sft
    return noisy_evidence(
        train.stated, sft.evidence_dropped, sft.evidence_invented, config.seed, epoch
    )
