"""Errors that a radiologist would count cost more than free wording.

Every flip scores below every paraphrase.
"""

from __future__ import annotations

import numpy as np
import pytest

from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.radcliq import radcliq_v1

CASES = {
    "both sides": (
        "There are small bilateral pleural effusions. Heart size is normal. No pneumothorax.",
        [
            "Small effusions on both sides. The cardiac silhouette is not enlarged. No "
            "pneumothorax is identified.",
            "Bilateral small pleural effusions are seen with normal heart size and without "
            "pneumothorax.",
        ],
        {
            "left only": (
                "There is a small left pleural effusion. Heart size is normal. No pneumothorax."
            ),
            "right only": (
                "There is a small right pleural effusion. Heart size is normal. No pneumothorax."
            ),
            "negation": (
                "There are no bilateral pleural effusions. Heart size is normal. No pneumothorax."
            ),
            "severity": (
                "There are large bilateral pleural effusions. Heart size is normal. No "
                "pneumothorax."
            ),
            "dropped": "Heart size is normal. No pneumothorax.",
        },
    ),
    "both bases": (
        "Bibasilar atelectasis. Mild cardiomegaly. No effusion.",
        [
            "Atelectasis at both lung bases. The heart is mildly enlarged. There is no pleural "
            "effusion."
        ],
        {
            "left only": "Left basilar atelectasis. Mild cardiomegaly. No effusion.",
            "negation": "No bibasilar atelectasis. Mild cardiomegaly. No effusion.",
            "severity": "Bibasilar atelectasis. Severe cardiomegaly. No effusion.",
            "dropped": "Mild cardiomegaly. No effusion.",
        },
    ),
    "one lobe": (
        "Left lower lobe consolidation consistent with pneumonia. No pleural effusion. Normal "
        "heart.",
        [
            "Consolidation in the left lower lobe, compatible with pneumonia. Heart size is "
            "within normal limits. There is no effusion."
        ],
        {
            "both": (
                "Bilateral lower lobe consolidation consistent with pneumonia. No pleural "
                "effusion. Normal heart."
            ),
            "side": (
                "Right lower lobe consolidation consistent with pneumonia. No pleural effusion. "
                "Normal heart."
            ),
            "lobe": (
                "Left upper lobe consolidation consistent with pneumonia. No pleural effusion. "
                "Normal heart."
            ),
            "negation": (
                "No left lower lobe consolidation to suggest pneumonia. No pleural effusion. "
                "Normal heart."
            ),
            "dropped": "No pleural effusion. Normal heart.",
        },
    ),
    "emergency": (
        "Large right pneumothorax with leftward mediastinal shift. Endotracheal tube above the "
        "carina.",
        [
            "There is a large pneumothorax on the right and the mediastinum is shifted to the "
            "left. The endotracheal tube tip is above the carina."
        ],
        {
            "side": (
                "Large left pneumothorax with rightward mediastinal shift. Endotracheal tube "
                "above the carina."
            ),
            "severity": (
                "Small right pneumothorax with leftward mediastinal shift. Endotracheal tube "
                "above the carina."
            ),
            "negation": (
                "No right pneumothorax or mediastinal shift. Endotracheal tube above the carina."
            ),
            "dropped": "Endotracheal tube above the carina.",
        },
    ),
    "nodule": (
        "There is a 6 mm nodule in the right upper lobe. Lungs otherwise clear. Heart size is "
        "normal.",
        ["Right upper lobe nodule measuring 6 mm. Otherwise clear lungs. Normal heart size."],
        {
            "side": (
                "There is a 6 mm nodule in the left upper lobe. Lungs otherwise clear. Heart size "
                "is normal."
            ),
            "lobe": (
                "There is a 6 mm nodule in the right lower lobe. Lungs otherwise clear. Heart "
                "size is normal."
            ),
            "negation": (
                "There is no nodule in the right upper lobe. Lungs otherwise clear. Heart size is "
                "normal."
            ),
            "dropped": "Lungs otherwise clear. Heart size is normal.",
        },
    ),
    "course": (
        "Moderate pulmonary edema with bilateral pleural effusions. Cardiomegaly is stable.",
        ["Stable enlarged heart. Moderate edema and effusions on both sides."],
        {
            "severity": (
                "Mild pulmonary edema with bilateral pleural effusions. Cardiomegaly is stable."
            ),
            "one side": (
                "Moderate pulmonary edema with left pleural effusion. Cardiomegaly is stable."
            ),
            "course": (
                "Moderate pulmonary edema with bilateral pleural effusions. Cardiomegaly is worse."
            ),
            "negation": "No pulmonary edema or pleural effusions. Cardiomegaly is stable.",
            "dropped": "Bilateral pleural effusions. Cardiomegaly is stable.",
        },
    ),
    "normal, with spine": (
        "heart size and mediastinal contours are normal . there is no focal consolidation "
        "pneumothorax or pleural effusion . degenerative changes of the spine .",
        [
            "normal cardiomediastinal silhouette . no consolidation , effusion or pneumothorax . "
            "spine degenerative changes .",
            "the heart is normal in size . lungs are clear . no effusion or pneumothorax . "
            "thoracic spondylosis .",
        ],
        {
            "invented consolidation": (
                "heart size and mediastinal contours are normal . there is a focal consolidation "
                ". no pneumothorax or pleural effusion . degenerative changes of the spine ."
            ),
            "invented pneumothorax": (
                "heart size and mediastinal contours are normal . there is no focal consolidation "
                "or pleural effusion . there is a pneumothorax . degenerative changes of the "
                "spine ."
            ),
            "invented cardiomegaly": (
                "heart is enlarged . there is no focal consolidation pneumothorax or pleural "
                "effusion . degenerative changes of the spine ."
            ),
        },
    ),
    "line and ribs": (
        "Right subclavian catheter tip in the right atrium. Multiple old right rib fractures. No "
        "pneumothorax.",
        [
            "The tip of a right subclavian line is in the right atrium. There are several healed "
            "rib fractures on the right. There is no pneumothorax."
        ],
        {
            "side of the ribs": (
                "Right subclavian catheter tip in the right atrium. Multiple old left rib "
                "fractures. No pneumothorax."
            ),
            "side of the line": (
                "Left subclavian catheter tip in the right atrium. Multiple old right rib "
                "fractures. No pneumothorax."
            ),
            "negation": (
                "Right subclavian catheter tip in the right atrium. No rib fractures. No "
                "pneumothorax."
            ),
            "invented pneumothorax": (
                "Right subclavian catheter tip in the right atrium. Multiple old right rib "
                "fractures. Pneumothorax."
            ),
            "dropped": "Right subclavian catheter tip in the right atrium. No pneumothorax.",
        },
    ),
}


def v1(hypotheses: list[str], reference: str) -> np.ndarray:
    parts = EmbeddedBackend().score(hypotheses, [reference] * len(hypotheses))
    return radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)


@pytest.mark.parametrize("case", CASES)
def test_every_flip_is_worse_than_free_wording(case: str) -> None:
    reference, paraphrases, flips = CASES[case]
    worst_paraphrase = v1(paraphrases, reference).max()
    scores = dict(zip(flips, v1(list(flips.values()), reference), strict=True))
    assert {name: score for name, score in scores.items() if score <= worst_paraphrase} == {}
