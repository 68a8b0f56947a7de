"""The embedded backend as a reward: corner cases, invariances, and errors that must cost."""

from __future__ import annotations

import gc
from dataclasses import fields

import numpy as np
import pytest

from lmrrg.metrics.embedded.analysis import (
    analyses_of_hypotheses,
    analyses_of_references,
    sentence_facts,
)
from lmrrg.metrics.embedded.backend import EmbeddedBackend
from lmrrg.metrics.radcliq import WORST_V1, radcliq_v1

NORMAL = "The heart size is normal. The lungs are clear. No pleural effusion or pneumothorax."
PADDING = (
    " The trachea is midline. Soft tissues are unremarkable. The abdomen is unremarkable. "
    "No free air. No fracture."
)

CASES = {
    "mixed findings": (
        "There is a small left pleural effusion. No pneumothorax. The heart is mildly enlarged. "
        "Patchy right lower lobe opacity is concerning for pneumonia.",
        [
            "Mild cardiomegaly. Small effusion on the left. Right lower lobe patchy opacity, "
            "suspicious for pneumonia. "
            "No evidence of pneumothorax.",
            "The cardiac silhouette is mildly enlarged with a small left effusion. Patchy opacity "
            "in the right lower "
            "lobe may represent pneumonia. No pneumothorax is seen.",
        ],
        {
            "negation": ("There is a small left pleural effusion", "There is no pleural effusion"),
            "negation of a denial": ("No pneumothorax", "There is a pneumothorax"),
            "laterality": ("left", "right"),
            "laterality of the second": ("right lower", "left lower"),
            "severity": ("small", "large"),
            "severity of the heart": ("mildly", "severely"),
            "dropped": ("Patchy right lower lobe opacity is concerning for pneumonia.", ""),
        },
    ),
    "lower case, masked": (
        "small right pleural effusion . no focal consolidation . heart size is normal . xxxx "
        "clips .",
        ["normal heart size . tiny effusion on the right . no consolidation . clips xxxx ."],
        {
            "negation": ("small right pleural", "no pleural"),
            "laterality": ("right", "left"),
            "severity": ("small", "large"),
            "dropped": ("small right pleural effusion .", ""),
            "enlarged": ("heart size is normal", "heart is enlarged"),
        },
    ),
    "course and devices": (
        "Stable moderate cardiomegaly. Mild pulmonary edema. Right PICC tip in the mid SVC. No "
        "pneumothorax.",
        [
            "Moderate enlargement of the heart is unchanged. There is mild edema. "
            "Right-sided PICC terminates in the mid SVC. There is no pneumothorax."
        ],
        {
            "negation": ("Mild pulmonary", "No pulmonary"),
            "laterality": ("Right PICC", "Left PICC"),
            "severity": ("Mild pulmonary", "Severe pulmonary"),
            "dropped": ("Mild pulmonary edema.", ""),
        },
    ),
}


def v1(hypotheses: list[str], reference: str) -> np.ndarray:
    parts = EmbeddedBackend().score(hypotheses, [reference] * len(hypotheses))
    return radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)


def attacks(reference: str, flips: dict[str, tuple[str, str]]) -> dict[str, str]:
    found = {name: reference.replace(old, new) for name, (old, new) in flips.items()}
    sentence = reference.split(".")[1].strip()
    found["repeated sentence"] = f"{reference} {sentence}."
    found["repeated report"] = f"{reference} {reference}"
    found["hallucinated"] = f"{reference} Calcified mass in the left upper lobe."
    found["all-normal template"] = NORMAL
    found["padding"] = reference + PADDING
    found["empty"] = ""
    return found


@pytest.mark.parametrize("case", CASES)
def test_every_paraphrase_beats_every_attack(case: str) -> None:
    reference, paraphrases, flips = CASES[case]
    hostile = attacks(reference, flips)
    assert reference not in hostile.values()
    worst_paraphrase = v1(paraphrases, reference).max()
    scores = dict(zip(hostile, v1(list(hostile.values()), reference), strict=True))
    assert {name: score for name, score in scores.items() if score <= worst_paraphrase} == {}


def test_a_paraphrase_of_a_normal_report_stays_good() -> None:
    paraphrase, wrong = v1(
        ["Normal heart. Clear lungs. No effusion.", "Large left effusion."], NORMAL
    )
    assert paraphrase < -0.5
    assert wrong > 1.5


def test_identical_reports() -> None:
    parts = EmbeddedBackend().score([NORMAL, "No pneumothorax."], [NORMAL, "No pneumothorax."])
    assert parts.radgraph.tolist() == [1, 0.5]
    for part in (
        parts.bertscore,
        parts.semb,
        parts.rg_e,
        parts.rg_er,
        parts.rg_bar_er,
        parts.bleu2,
    ):
        assert part.tolist() == pytest.approx([1, 1])


@pytest.mark.parametrize("pair", [("", NORMAL), (NORMAL, ""), ("", ""), (" . ", NORMAL)])
def test_an_empty_report_is_0_in_every_part(pair: tuple[str, str]) -> None:
    parts = EmbeddedBackend().score([pair[0]], [pair[1]])
    assert {field.name: getattr(parts, field.name)[0] for field in fields(parts)} == dict.fromkeys(
        [field.name for field in fields(parts)], 0.0
    )
    assert radcliq_v1(parts.radgraph, parts.bertscore, parts.semb)[0] == pytest.approx(WORST_V1)


@pytest.mark.parametrize(
    "text",
    [
        "x",
        ".arararar",
        "I'm sorry, I cannot interpret medical images.",
        "lorem ipsum dolor sit amet",
        "Kein Pneumothorax. Herz normal.",
        "Tear of the medial meniscus with a small joint effusion.",
        "Indication: pneumonia.",
    ],
)
def test_an_unreadable_report_scores_like_an_empty_one(text: str) -> None:
    assert v1([text], NORMAL)[0] == pytest.approx(WORST_V1)


def test_words_that_are_none_cost() -> None:
    honest = "Heart size is normal. Lungs are clear. No pleural effusion."
    gibberish = "Blorf znaki qwertu. Opsim dralk venni ulpa."
    clean, littered, typo = v1(
        [honest, f"{honest} {gibberish}", honest.replace("pleural", "plerual")], NORMAL
    )
    assert littered > clean + 0.3
    assert typo < clean + 0.3


def test_abbreviations_and_british_spellings_are_the_words_they_stand_for() -> None:
    worded = "Moderate pulmonary edema. Small right upper lobe pneumothorax."
    short = "Moderate pulmonary oedema. Small RUL PTX."
    assert v1([short], worded)[0] == pytest.approx(v1([worded], worded)[0])


def test_unrelated_reports_are_near_0() -> None:
    parts = EmbeddedBackend().score(
        ["Endotracheal tube above the carina."], ["Scoliosis. Left rib fracture."]
    )
    assert parts.radgraph[0] == 0
    assert parts.bertscore[0] < 0.2
    assert parts.semb[0] < 0.1


def test_batch_order_and_cache_change_nothing() -> None:
    texts = [
        text for reference, paraphrases, _ in CASES.values() for text in (reference, *paraphrases)
    ]
    hypotheses, references = texts, texts[::-1]
    backend = EmbeddedBackend()
    together = backend.score(hypotheses, references)
    for cached in (analyses_of_references, analyses_of_hypotheses, sentence_facts):
        cached.cache_clear()
    backward = backend.score(hypotheses[::-1], references[::-1])
    for field in fields(together):
        alone = [
            getattr(backend.score([h], [r]), field.name)[0]
            for h, r in zip(hypotheses, references, strict=True)
        ]
        assert getattr(together, field.name).tolist() == alone
        assert getattr(backward, field.name)[::-1].tolist() == alone


def test_no_pairs_and_unequal_lists() -> None:
    assert EmbeddedBackend().score([], []).radgraph.shape == (0,)
    with pytest.raises(ValueError, match="shorter"):
        EmbeddedBackend().score([NORMAL], [])


def test_the_cycle_collector_runs_again_afterwards() -> None:
    with pytest.raises(ValueError, match="shorter"):
        EmbeddedBackend().score([NORMAL], [])
    assert gc.isenabled()
