"""Claims: which finding, whether asserted, and each attribute on the finding it belongs to."""

from __future__ import annotations

import pytest

from lmrrg.metrics.embedded.claim_agreement import attribute_likeness
from lmrrg.metrics.embedded.claim_agreement import claim_agreement as compare_claims
from lmrrg.metrics.embedded.claim_lexicon import claim_lexicon
from lmrrg.metrics.embedded.claims import Claim, merge_claims, sentence_claims
from lmrrg.metrics.embedded.sentences import ABSENT, PRESENT, UNCERTAIN, sentences_of


def claims_of(text: str) -> dict[str, tuple[Claim, ...]]:
    return merge_claims(
        [claim for sentence in sentences_of(text) for claim in sentence_claims(sentence)]
    )


def claim_agreement(
    hypothesis: dict[str, tuple[Claim, ...]], reference: dict[str, tuple[Claim, ...]]
) -> float:
    return compare_claims(hypothesis, reference).agreement


def claim_of(text: str, finding: str) -> Claim:
    (claim,) = claims_of(text)[finding]
    return claim


@pytest.mark.parametrize(
    ("text", "finding", "sides", "severity"),
    [
        ("small left effusion and large right pneumothorax", "effusion", "l", 2),
        ("small left effusion and large right pneumothorax", "pneumothorax", "r", 4),
        ("opacity in the left lower lobe", "opacity", "l", 0),
        ("bibasilar atelectasis", "atelectasis", "lr", 0),
        ("the heart is mildly enlarged", "cardiomegaly", "", 2),
        ("severe cardiomegaly with tiny effusions", "cardiomegaly", "", 4),
        ("severe cardiomegaly with tiny effusions", "effusion", "", 1),
        ("left pneumonia, right effusion", "effusion", "r", 0),
        (
            "moderate cardiomegaly is stable and there is a small left effusion",
            "cardiomegaly",
            "",
            3,
        ),
        ("moderate cardiomegaly is stable and there is a small left effusion", "effusion", "l", 2),
        ("large pneumothorax on the right and the trachea is to the left", "pneumothorax", "r", 4),
        ("the small right pneumothorax is not significantly changed", "pneumothorax", "r", 2),
    ],
)
def test_attributes_belong_to_their_finding(
    text: str, finding: str, sides: str, severity: int
) -> None:
    claim = claim_of(text, finding)
    assert (claim.sides, claim.severity) == (frozenset(sides), severity)


@pytest.mark.parametrize(
    ("text", "finding", "assertion"),
    [
        ("no pneumothorax", "pneumothorax", ABSENT),
        ("possible pneumonia", "pneumonia", UNCERTAIN),
        ("heart size is normal", "cardiomegaly", ABSENT),
        ("the cardiac silhouette is enlarged", "cardiomegaly", PRESENT),
        ("the lungs are clear", "opacity", ABSENT),
        ("no effusion . small left effusion", "effusion", PRESENT),
    ],
)
def test_assertion_of_a_finding(text: str, finding: str, assertion: int) -> None:
    assert claim_of(text, finding).assertion == assertion


@pytest.mark.parametrize(
    "text",
    [
        "large right, small left effusion",
        "a large effusion on the right and a small one on the left",
        "bilateral effusions, large on the right and small on the left",
        "small left effusion. large right pleural effusion. no pneumothorax",
        "large right and small left effusions",
    ],
)
def test_each_side_keeps_its_own_severity(text: str) -> None:
    found = {("".join(claim.sides), claim.severity) for claim in claims_of(text)["effusion"]}
    assert found == {("r", 4), ("l", 2)}


@pytest.mark.parametrize(
    "text", ["left and right effusions", "effusion on the left. right effusion", "both effusions"]
)
def test_sides_that_differ_in_nothing_else_are_one_claim(text: str) -> None:
    assert claim_of(text, "effusion").sides == {"l", "r"}


def test_two_nodules_are_two_claims_and_one_of_them_is_half_the_truth() -> None:
    text = "nodule in the right upper lobe and nodule in the left lower lobe"
    nodules = claims_of(text)["nodule"]
    assert [(*claim.sides, *claim.zones) for claim in nodules] == [("r", "u"), ("l", "b")]
    swapped, one = (
        claim_agreement(claims_of(other), claims_of(text))
        for other in (
            "nodule in the left upper lobe and nodule in the right lower lobe",
            "nodule in the right upper lobe",
        )
    )
    assert claim_agreement(claims_of(f"{text}. {text}"), claims_of(text)) == 1
    assert max(swapped, one) < 0.7


@pytest.mark.parametrize(
    ("text", "finding", "sizes", "places"),
    [
        ("1.2 cm nodule", "nodule", {12}, ""),
        ("nodule measuring 6 x 8 mm", "nodule", {8}, ""),
        ("ett 4 cm above the carina", "airway_tube", {40}, "carina+"),
        ("the et tube is 2 cm below the carina", "airway_tube", {20}, "carina-"),
        ("endotracheal tube in the right mainstem bronchus", "airway_tube", set(), "bronchus"),
        ("right subclavian catheter tip in the svc", "central_line", set(), "svc"),
        ("the effusion obscures the carina", "effusion", set(), ""),
    ],
)
def test_measures_and_places(text: str, finding: str, sizes: set[float], places: str) -> None:
    claim = claim_of(text, finding)
    assert (set(claim.sizes), "".join(claim.places)) == (sizes, places)


@pytest.mark.parametrize(
    ("truth", "near", "far"),
    [
        ("6 mm nodule", "7 mm nodule", "60 mm nodule"),
        ("1.2 cm nodule", "12 mm nodule", "1.2 mm nodule"),
        ("ng tube in the stomach", "ng tube below the diaphragm", "ng tube in the esophagus"),
        ("picc in the svc", "picc in good position", "picc in the right ventricle"),
        ("two nodules", "nodules", "multiple nodules"),
        ("small right pneumothorax", "right pneumothorax", "small and large right pneumothorax"),
    ],
)
def test_a_wrong_measure_place_or_number_costs_more_than_a_loose_one(
    truth: str, near: str, far: str
) -> None:
    loose, wrong = (claim_agreement(claims_of(text), claims_of(truth)) for text in (near, far))
    assert loose > wrong


def test_tension_is_a_finding_of_its_own() -> None:
    assert {"pneumothorax", "tension"} <= claims_of("left tension pneumothorax").keys()
    assert {"pneumothorax", "effusion"} <= claims_of("small hydropneumothorax").keys()


def test_a_severity_that_contradicts_another_never_helps() -> None:
    truth = claims_of("moderate right pneumothorax")
    for said in ("small", "large", "moderate"):
        alone = claim_agreement(claims_of(f"{said} right pneumothorax"), truth)
        for more in ("small", "large", "moderate"):
            both = claims_of(f"{said} right pneumothorax. {more} right pneumothorax")
            assert claim_agreement(both, truth) <= alone


def test_agreement_is_symmetric_and_falls_with_every_error() -> None:
    truth = claims_of("small left effusion . mild cardiomegaly . no pneumothorax")
    worse = [
        "small left effusion . mild cardiomegaly",
        "small effusion . mild cardiomegaly",
        "small right effusion . mild cardiomegaly",
        "small right effusion",
        "small right effusion . large pneumothorax",
    ]
    found = [claim_agreement(truth, claims_of(text)) for text in worse]
    assert found == sorted(found, reverse=True)
    assert len(set(found)) == len(found)
    assert found == pytest.approx([claim_agreement(claims_of(text), truth) for text in worse])
    assert claim_agreement(truth, truth) == 1


def test_a_near_relative_is_better_than_nothing_and_worse_than_the_finding() -> None:
    truth = claims_of("left lower lobe pneumonia")
    same, kin, none = (
        claim_agreement(truth, claims_of(text))
        for text in ("left lower lobe pneumonia", "left lower lobe opacity", "normal")
    )
    assert same > kin > none


def test_likeness_orders_the_errors() -> None:
    base = claim_of("small left effusion", "effusion")
    unsaid, other_size, other_side = (
        attribute_likeness(base, claim_of(text, "effusion"))
        for text in ("left effusion", "large left effusion", "small right effusion")
    )
    assert 1 > unsaid > other_size > other_side > 0


def test_the_gravest_relatives_answer_for_each_other_whatever_the_order():
    def affirmed(findings: list[str]) -> dict[str, tuple[Claim, ...]]:
        nothing = frozenset[str]()
        return {f: (Claim(f, PRESENT, nothing, nothing, 0, nothing),) for f in findings}

    lexicon = claim_lexicon()
    kins: dict[str, list[str]] = {}
    for finding in sorted(lexicon.kin, key=lambda f: (-lexicon.weight[f], f)):
        kins.setdefault(lexicon.kin[finding], []).append(finding)
    families = [names for names in kins.values() if len(names) > 2]
    assert len(families) > 2
    ours = affirmed([names[0] for names in families])
    theirs = affirmed([f for names in families for f in names[1:]])
    weight = lexicon.weight
    credit = sum(0.45 * weight[names[1]] for names in families)
    total = sum(weight[f] for names in families for f in names)
    expected = 0.5 * (2 * credit + 0.4) / (total + 0.4) + 0.5 / (1 + total - 2 * credit)
    for there in (theirs, dict(reversed(theirs.items()))):
        assert claim_agreement(ours, there) == pytest.approx(expected, abs=1e-12)
        assert claim_agreement(there, ours) == pytest.approx(expected, abs=1e-12)
