"""Sentences and the regions that their words name."""

from __future__ import annotations

import pytest

from lmrrg.anatomy import REGIONS
from lmrrg.documents import sentence_regions as module
from lmrrg.documents.sentence_regions import sentence_regions
from lmrrg.metrics.embedded.lexicon import read_yaml


@pytest.mark.parametrize(
    ("sentence", "findings", "regions"),
    [
        ("The heart is enlarged.", ("cardiomegaly",), {"cardiac silhouette"}),
        ("Small left effusion.", ("effusion",), {"left costophrenic angle"}),
        ("Right upper lobe opacity.", ("opacity",), {"right upper lung zone"}),
        ("No pneumothorax.", (),
         {"left lung", "right lung", "left apical zone", "right apical zone"}),
        ("Both hila are normal.", (), {"left hilar structures", "right hilar structures"}),
        ("The left clavicle is broken.", (), {"left clavicle"}),
        ("Degenerative changes of the spine.", ("degenerative",), {"spine"}),
        ("Dual lead pacemaker.", ("pacemaker",), set()),
        ("Zzz qqq.", (), set()),
    ],
)  # fmt: skip
def test_a_sentence_is_linked_with_its_regions(sentence, findings, regions) -> None:
    [found] = sentence_regions(sentence)
    assert set(found.regions) == regions
    assert set(findings) <= set(found.findings)
    assert list(found.regions) == sorted(found.regions, key=REGIONS.index)


def test_sentences_are_cut_where_they_end_and_cover_the_text() -> None:
    text = "  Size is 5.5 cm, e.g. small.\nNo effusion; lungs clear!  Last one"
    found = sentence_regions(text)
    parts = [text[each.start : each.end] for each in found]
    assert parts == ["Size is 5.5 cm, e.g.", "small.", "No effusion;", "lungs clear!", "Last one"]
    assert "".join("".join(parts).split()) == "".join(text.split())
    assert sentence_regions("") == []
    assert sentence_regions(" \n ") == []


def test_every_name_of_the_tables_exists() -> None:
    findings = read_yaml("claims.yaml")["findings"]
    assert set(module._REGIONS_OF) <= set(findings)
    places = [place for places in module._REGIONS_OF.values() for place in places]
    places += [place for zone in module._ZONES.values() for place in zone]
    for place in [*places, *module._WORDS]:
        for side in ("left", "right"):
            assert place.format(side=side) in REGIONS
