"""The studies of an evaluation with their references, labels and images, and two image controls."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np

from lmrrg.config.data import DataConfig
from lmrrg.config.model import ImageEncoderConfig
from lmrrg.evaluation.errors import EvaluationError
from lmrrg.imaging.radiograph import Radiograph
from lmrrg.metrics.interfaces import Labeler
from lmrrg.metrics.localisation import RegionTruth
from lmrrg.studies import Study, is_abnormal
from lmrrg.vision.encoder import PACKAGED
from lmrrg.vision.files import load_features, load_features_from_images
from lmrrg.vision.region_truth import region_truth
from lmrrg.vision.study_features import StudyFeatures


@dataclass(frozen=True)
class EvaluationSet:
    """N studies with everything that an evaluation reads of them."""

    studies: list[Study]
    references: list[str]
    """The evaluated section of each reference report, never empty."""
    priors: list[str]
    """The prior report of each study, empty where it has none."""
    labels: list[dict[str, int]]
    labels_from: str
    """Either "studies", where the data has labels, or "labeler", which read the references.

    The labels of phantoms are exact.
    """
    features: StudyFeatures
    regions: list[RegionTruth | None]
    """Where the regions are, for phantoms; no model sees it."""
    encoder: ImageEncoderConfig = PACKAGED
    """The image encoder that the features are from."""

    @property
    def abnormal(self) -> list[bool]:
        """Whether each study is abnormal by its labels."""
        return [is_abnormal(labels) for labels in self.labels]


def evaluation_set(
    studies: Sequence[Study],
    settings: DataConfig,
    labeler: Labeler,
    priors: Mapping[str, str] | None = None,
    encoder: ImageEncoderConfig = PACKAGED,
) -> EvaluationSet:
    """Load the image features of the studies whose report has the evaluated section.

    The labels are the studies' own where all of them have some. Otherwise all are read from the
    references, so that labels of two origins are never mixed.

    Args:
        studies: the studies to evaluate.
        settings: section, image size and feature cache.
        labeler: reads the labels where the data has none.
        priors: prior reports by study id, from :func:`lmrrg.data.priors.prior_reports`.
        encoder: of the checkpoints that are evaluated.

    Raises:
        EvaluationError: ``no_studies``, none of the studies has the section.
    """
    # The metrics refuse an empty reference.
    used = [study for study in studies if study.report(settings.section).strip()]
    if not used:
        raise EvaluationError(
            "no_studies", f"no study to evaluate has a {settings.section} section"
        )
    references = [study.report(settings.section) for study in used]
    labels = [dict(study.labels) for study in used if study.labels is not None]
    labels_from = "studies"
    if len(labels) < len(used):
        labels = [dict(found) for found in labeler.label(references)]
        labels_from = "labeler"
    features = load_features(used, settings, encoder=encoder)
    _, views, patches, _ = features.patches.shape
    return EvaluationSet(
        studies=used,
        references=references,
        priors=[(priors or {}).get(study.id, "") for study in used],
        labels=labels,
        labels_from=labels_from,
        features=features,
        regions=[region_truth(study, views, patches) for study in used],
        encoder=encoder,
    )


def other_patient_rows(patients: Sequence[str], seed: int) -> list[int]:
    """Return for each study the row of a study of another patient; each row is used once.

    Such a permutation is a derangement with respect to the patients. It is random by ``seed``: the
    patients are shuffled, all studies of one patient stay together, and the sequence is rotated by
    the number of studies of the largest patient, which moves every study out of its own block.

    >>> other_patient_rows(["a", "a", "b", "c"], seed=0)
    [3, 2, 1, 0]

    Raises:
        EvaluationError: ``one_patient``, a patient has more than half of the studies, so that no
            such permutation exists.
    """
    rng = np.random.default_rng(seed)
    sizes = Counter(patients)
    rank = dict(zip(sizes, rng.permutation(len(sizes)).tolist(), strict=True))
    # Sorting is stable, so the studies of one patient keep their shuffled order.
    rows = sorted(rng.permutation(len(patients)).tolist(), key=lambda row: rank[patients[row]])
    largest = max(sizes.values(), default=0)
    if 2 * largest > len(patients):
        raise EvaluationError(
            "one_patient", f"one patient has {largest} of {len(patients)} studies"
        )
    other_rows = rows[largest:] + rows[:largest]
    return [other for _, other in sorted(zip(rows, other_rows, strict=True))]


def blank_features(
    features: StudyFeatures, settings: DataConfig, encoder: ImageEncoderConfig = PACKAGED
) -> StudyFeatures:
    """Return the features of the same studies and views with every image black."""
    size = settings.image_size
    # All black images have the same features, so one is encoded and repeated without a copy.
    black = Radiograph(np.zeros((size, size), np.float32), "unknown", "png")
    seen = load_features_from_images([[black]], settings, encoder)
    return StudyFeatures(
        seen.patches[0, 0].expand_as(features.patches),
        features.views,
        features.view_mask,
        seen.evidence.expand_as(features.evidence),
    )
