"""RadGraph on random weights, against DyGIE++ by its definition, and F1 by hand."""

from __future__ import annotations

import json
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from tokenizers.implementations import BertWordPieceTokenizer
from torch import Tensor

from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.published.backend import PublishedBackend
from lmrrg.metrics.published.radgraph import (
    Annotation,
    RadGraph,
    radgraph_f1,
    radgraph_tokens,
    spans_of,
)
from lmrrg.metrics.published.weight_files import find
from tests.support.published.oracles import REPORTS, plain_bert
from tests.support.published.weights import (
    ENTITY_LABELS,
    FOLD,
    RELATION_LABELS,
    SPAN_WIDTH,
    pack,
    radgraph_files,
    radgraph_settings,
    write_weights,
)

CPU = torch.device("cpu")


@pytest.mark.parametrize(
    "report", [REPORTS[0], "heart", "Heart , (enlarged)", " ".join(REPORTS[:2])]
)
def test_radgraph_equals_the_definition(weights: Path, report: str) -> None:
    checkpoint, files = (
        find("RadGraph", weights)["radgraph.tar.gz"],
        find("RadGraph encoder", weights),
    )
    ours = RadGraph(checkpoint, files, CPU, budget=256).annotate([report, *REPORTS])[0]
    assert ours == _plain_radgraph(report, files, checkpoint)


def test_radgraph_finds_something_to_compare(weights: Path) -> None:
    model = RadGraph(
        find("RadGraph", weights)["radgraph.tar.gz"],
        find("RadGraph encoder", weights),
        CPU,
        budget=256,
    )
    annotations = model.annotate(REPORTS)
    assert {label for a in annotations for _, label in a.entities} == set(ENTITY_LABELS[1:])
    assert {kind for a in annotations for _, _, kind in a.relations} == set(RELATION_LABELS)
    assert (
        0
        < sum(len(a.entities) for a in annotations)
        < sum(len(spans_of(len(r.split()), SPAN_WIDTH)) for r in REPORTS)
    )


def test_radgraph_reads_long_reports_in_segments(weights: Path) -> None:
    model = RadGraph(
        find("RadGraph", weights)["radgraph.tar.gz"],
        find("RadGraph encoder", weights),
        CPU,
        budget=256,
    )
    first, second = ["heart"] * (FOLD - 2), ["clear", "lungs", "no"]
    whole, head, tail = model._word_embeddings([first + second, first, second])
    torch.testing.assert_close(whole, torch.cat([head, tail]), atol=1e-5, rtol=0)


def _plain_radgraph(report: str, files: dict[str, Path], checkpoint: Path) -> Annotation:
    """Compute DyGIE++ by its definition: build every span vector, score every pair on its own."""
    import io
    import tarfile

    with tarfile.open(checkpoint) as tar:
        w = torch.load(io.BytesIO(tar.extractfile("./weights.th").read()), weights_only=True)
    bert = plain_bert(
        w, "_embedder.token_embedder_bert._matched_embedder.transformer_model.", files
    )
    tokenizer = BertWordPieceTokenizer(str(files["vocab.txt"]), lowercase=True)
    words = radgraph_tokens(report)
    pieces = [tokenizer.encode(word, add_special_tokens=False).ids for word in words]
    ids = [
        tokenizer.token_to_id("[CLS]"),
        *(i for word in pieces for i in word),
        tokenizer.token_to_id("[SEP]"),
    ]

    def net(x: Tensor, name: str) -> Tensor:
        for k in range(2):
            x = torch.relu(
                w[f"{name}._linear_layers.{k}.weight"] @ x + w[f"{name}._linear_layers.{k}.bias"]
            )
        return x

    def linear(x: Tensor, name: str) -> Tensor:
        return w[f"{name}.weight"] @ x + w[f"{name}.bias"]

    with torch.no_grad():
        states = bert(torch.tensor([ids])).last_hidden_state[0]
        ends = np.cumsum([1] + [len(word) for word in pieces])
        hidden = [states[a:b].mean(dim=0) for a, b in pairwise(ends)]
        spans = [(i, j) for i, j in product(range(len(words)), repeat=2) if 0 <= j - i < SPAN_WIDTH]
        width = w["_endpoint_span_extractor._span_width_embedding.weight"]
        vectors = [torch.cat([hidden[i], hidden[j], width[j - i]]) for i, j in spans]
        ner, pruner = (
            "_ner._ner_scorers.radgraph__ner_labels",
            "_relation._mention_pruners.radgraph__relation_labels",
        )
        found = {}
        for span, vector in zip(spans, vectors, strict=True):
            scores = linear(net(vector, f"{ner}.0._module"), f"{ner}.1._module").tolist()
            if max(scores) > 0:
                found[span] = ENTITY_LABELS[1 + scores.index(max(scores))]
        mention = [
            float(linear(net(vector, f"{pruner}._scorer.0._module"), f"{pruner}._scorer.1._module"))
            for vector in vectors
        ]
        kept = sorted(
            sorted(range(len(spans)), key=lambda s: -mention[s])[: int(np.ceil(len(words) * 0.5))]
        )
        place = {span: row for row, span in enumerate(found)}
        relations = []
        for a, b in product(kept, repeat=2):
            pair = torch.cat([vectors[a], vectors[b], vectors[a] * vectors[b]])
            state = net(pair, "_relation._relation_feedforwards.radgraph__relation_labels")
            scores = (
                linear(state, "_relation._relation_scorers.radgraph__relation_labels")
                + mention[a]
                + mention[b]
            )
            if float(scores.max()) > 0 and spans[a] in place and spans[b] in place:
                relations.append(
                    (place[spans[a]], place[spans[b]], RELATION_LABELS[int(scores.argmax())])
                )
    entities = tuple((" ".join(words[i : j + 1]), label) for (i, j), label in found.items())
    return Annotation(entities, tuple(relations))


def test_radgraph_tokens() -> None:
    assert radgraph_tokens("Right-sided (small) effusion:no\nchange.3/4") == [
        "Right-sided", "(", "small", ")", "effusion", ":", "no", "change", ".", "3", "/", "4",
    ]  # fmt: skip


def test_radgraph_levels_by_hand() -> None:
    reference = Annotation(
        (("Heart", "ANAT-DP"), ("enlarged", "OBS-DP"), ("mild", "OBS-DP")), ((1, 0, "located_at"),)
    )
    hypothesis = Annotation(
        (("heart", "ANAT-DP"), ("enlarged", "OBS-DP"), ("mild", "OBS-DP")), ((1, 0, "located_at"),)
    )
    rg_e, rg_er, rg_bar_er, radgraph = radgraph_f1(hypothesis, reference)
    assert rg_e == rg_er == pytest.approx(2 / 3)  # "Heart" and "heart" differ
    assert rg_bar_er == pytest.approx(2 / 3)  # but not as the target of a relation
    assert radgraph == pytest.approx((2 / 3 + 0) / 2)
    assert radgraph_f1(reference, reference) == (1, 1, 1, 1)
    assert radgraph_f1(reference, Annotation((), ())) == (0, 0, 0, 0)
    no_relations = Annotation(reference.entities, ())
    assert radgraph_f1(no_relations, no_relations)[3] == 0.5


def test_radgraph_models_that_we_do_not_compute_are_refused(tmp_path: Path) -> None:
    folder = write_weights(tmp_path)
    archive, files = folder / "RRG_scorers" / "radgraph.tar.gz", radgraph_files()
    settings = radgraph_settings()
    settings["model"]["modules"]["coref"]["coref_prop"] = 2
    pack(archive, files | {"config.json": json.dumps(settings).encode()})
    with pytest.raises(MetricError, match="unsupported_model"):
        PublishedBackend(folder)
    pack(
        archive, {name: content for name, content in files.items() if "relation_labels" not in name}
    )
    with pytest.raises(MetricError, match=r"weights_mismatch.*relation_labels"):
        PublishedBackend(folder)
    archive.write_bytes(b"no archive")
    with pytest.raises(MetricError, match=r"weights_mismatch.*archive"):
        PublishedBackend(folder)
