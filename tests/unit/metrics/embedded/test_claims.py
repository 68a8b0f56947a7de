"""Claims: which finding, whether asserted, and each attribute on the finding it belongs to."""

from __future__ import annotations

import pytest

from lmrrg.metrics.embedded.claim_agreement import attribute_likeness, claim_agreement
from lmrrg.metrics.embedded.claims import Claim, claim_lexicon, merge_claims, sentence_claims
from lmrrg.metrics.embedded.sentences import ABSENT, PRESENT, UNCERTAIN, sentences_of


def claims_of(text: str) -> dict[str, Claim]:
    return merge_claims(
        [claim for sentence in sentences_of(text) for claim in sentence_claims(sentence)]
    )


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
    claim = claims_of(text)[finding]
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
    assert claims_of(text)[finding].assertion == assertion


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
    base = claims_of("small left effusion")["effusion"]
    unsaid, other_size, other_side = (
        attribute_likeness(base, claims_of(text)["effusion"])
        for text in ("left effusion", "large left effusion", "small right effusion")
    )
    assert 1 > unsaid > other_size > other_side > 0


def test_the_gravest_relatives_answer_for_each_other_whatever_the_order():
    def affirmed(findings: list[str]) -> dict[str, Claim]:
        nothing = frozenset[str]()
        return {f: Claim(f, PRESENT, nothing, nothing, 0, nothing) for f in findings}

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
