from lmrrg.metrics.embedded.finding_tokens import carries_finding


def marked(pieces: list[str]) -> list[str]:
    return [
        piece for piece, carries in zip(pieces, carries_finding(pieces), strict=True) if carries
    ]


def test_observations_their_attributes_and_negations_are_marked():
    pieces = ["There", "Ġis", "Ġa", "Ġlarge", "Ġleft", "Ġeffusion", "Ġseen", ".", "</s>"]
    assert marked(pieces) == ["Ġlarge", "Ġleft", "Ġeffusion"]


def test_of_what_is_denied_or_normal_only_the_negation_is_marked():
    pieces = [
        "The",
        "Ġheart",
        "Ġis",
        "Ġnormal",
        ".",
        "ĠNo",
        "Ġeffusion",
        ".",
        "ĠRight",
        "Ġnodule",
        ".",
    ]
    assert marked(pieces) == ["ĠNo", "ĠRight", "Ġnodule"]


def test_every_piece_of_a_clinical_word_is_marked_whatever_the_tokenizer():
    assert marked(["▁a", "▁pneu", "mo", "thorax", "▁is", "▁possible"]) == ["▁pneu", "mo", "thorax"]


def test_nothing_to_mark():
    assert carries_finding([]) == []
    assert not any(carries_finding(["Ġthe", "Ġ", "Ċ", "</s>", "é"]))
