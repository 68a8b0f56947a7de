"""The published backend on random weights of the published architectures.

It is compared with plain oracles, and what must not matter (batches, order, cache) does not.
"""

from __future__ import annotations

import json
import random
from dataclasses import fields
from itertools import pairwise, product
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer
from tokenizers.implementations import BertWordPieceTokenizer
from torch import Tensor
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

from lmrrg.config.reward import RewardConfig
from lmrrg.metrics.backends import make_backend
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.parts import Parts
from lmrrg.metrics.published.backend import PublishedBackend
from lmrrg.metrics.published.batching import PackedLinear, length_batches
from lmrrg.metrics.published.batching import pack as pack_layers
from lmrrg.metrics.published.bertscore import BASELINE, BertScore, bertscore_f1
from lmrrg.metrics.published.chexbert import CheXbert
from lmrrg.metrics.published.radgraph import (
    Annotation,
    RadGraph,
    radgraph_f1,
    radgraph_tokens,
    spans_of,
)
from lmrrg.metrics.published.weight_files import SOURCES, find, missing_files
from lmrrg.studies import LABELS
from tests.support.published_weights import (
    ENTITY_LABELS,
    FOLD,
    RELATION_LABELS,
    SPAN_WIDTH,
    WORDS,
    pack,
    radgraph_files,
    radgraph_settings,
    write_weights,
)

CPU = torch.device("cpu")


def random_report(rng: random.Random, longest: int = 30) -> str:
    words = [word for word in WORDS if not word.startswith("##")]
    return " ".join(
        rng.choices([*words, "cardiomegaly", "Effusions", "unheard-of"], k=rng.randint(1, longest))
    )


REPORTS = [random_report(random.Random(seed)) for seed in range(24)]
PAIRS = [
    *zip(REPORTS[:12], REPORTS[12:], strict=True),
    (REPORTS[0], REPORTS[0]),
    (REPORTS[1], REPORTS[0]),
]
HYPOTHESES, REFERENCES = [h for h, _ in PAIRS], [r for _, r in PAIRS]


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return write_weights(tmp_path_factory.mktemp("weights"))


@pytest.fixture(scope="module")
def backend(weights: Path) -> PublishedBackend:
    return PublishedBackend(weights)


@pytest.fixture(scope="module")
def parts(backend: PublishedBackend) -> Parts:
    return backend.score(HYPOTHESES, REFERENCES)


def assert_same(first: Parts, second: Parts, rows: list[int] | None = None) -> None:
    for field in fields(Parts):
        expected = getattr(first, field.name)
        np.testing.assert_allclose(
            getattr(second, field.name),
            expected if rows is None else expected[rows],
            atol=1e-5,
            err_msg=field.name,
        )


# What must not matter


def test_batch_of_one_equals_batch_of_all(weights: Path, parts: Parts) -> None:
    single = PublishedBackend(weights, token_budget=1)
    assert_same(parts, single.score(HYPOTHESES, REFERENCES))


def test_one_pair_per_call_equals_all_in_one_call(weights: Path, parts: Parts) -> None:
    backend = PublishedBackend(weights)
    for row, (hypothesis, reference) in enumerate(PAIRS):
        assert_same(parts, backend.score([hypothesis], [reference]), [row])


def test_order_does_not_matter(backend: PublishedBackend, parts: Parts) -> None:
    order = random.Random(1).sample(range(len(PAIRS)), len(PAIRS))
    assert_same(
        parts, backend.score([HYPOTHESES[i] for i in order], [REFERENCES[i] for i in order]), order
    )


def test_the_cache_on_disk_changes_nothing_and_is_used(
    weights: Path, parts: Parts, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    PublishedBackend(weights, cache=tmp_path).score(HYPOTHESES, REFERENCES)
    assert len(list(tmp_path.rglob("*.safetensors"))) == len(set(REFERENCES))
    later = PublishedBackend(weights, cache=tmp_path)
    analysed: list[str] = []
    analyse = later._analyse
    monkeypatch.setattr(later, "_analyse", lambda texts: analysed.extend(texts) or analyse(texts))
    assert_same(parts, later.score(HYPOTHESES, REFERENCES))
    assert sorted(analysed) == sorted(set(HYPOTHESES) - set(REFERENCES))


def test_a_damaged_cache_file_is_replaced(weights: Path, parts: Parts, tmp_path: Path) -> None:
    PublishedBackend(weights, cache=tmp_path).score(HYPOTHESES, REFERENCES)
    damaged = next(tmp_path.rglob("*.safetensors"))
    damaged.write_bytes(damaged.read_bytes()[:100])
    assert_same(parts, PublishedBackend(weights, cache=tmp_path).score(HYPOTHESES, REFERENCES))
    assert len(damaged.read_bytes()) > 100


def test_other_weights_have_another_version_and_share_no_cache(
    weights: Path, parts: Parts, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory
) -> None:
    other = write_weights(tmp_path_factory.mktemp("other"), seed=1)
    first, second = (
        PublishedBackend(weights, cache=tmp_path),
        PublishedBackend(other, cache=tmp_path),
    )
    assert first.version != second.version
    first.score(HYPOTHESES, REFERENCES)
    changed = second.score(HYPOTHESES, REFERENCES)
    assert_same(PublishedBackend(other).score(HYPOTHESES, REFERENCES), changed)
    assert np.abs(changed.bertscore - parts.bertscore).max() > 1e-3


def test_each_text_is_analysed_once(
    backend: PublishedBackend, monkeypatch: pytest.MonkeyPatch
) -> None:
    analysed: list[str] = []
    analyse = backend._analyse
    monkeypatch.setattr(backend, "_analyse", lambda texts: analysed.extend(texts) or analyse(texts))
    backend.score(["heart normal", "heart normal", "lungs clear"], ["lungs clear"] * 3)
    assert sorted(analysed) == ["heart normal", "lungs clear"]


def test_identical_reports_score_one(parts: Parts) -> None:
    assert parts.bertscore[12] == pytest.approx(1, abs=1e-5)
    assert parts.semb[12] == pytest.approx(1, abs=1e-6)
    assert parts.rg_e[12] == parts.rg_er[12] == parts.rg_bar_er[12] == 1


def test_batches_hold_every_row_once_within_the_budget() -> None:
    lengths = [random.Random(seed).randint(1, 90) for seed in range(200)]
    batches = length_batches(lengths, 256)
    assert sorted(row for batch in batches for row in batch) == list(range(200))
    assert all(len(batch) * max(lengths[row] for row in batch) <= 256 for batch in batches)
    assert length_batches([500], 256) == [[0]]


# Plain oracles: one text at a time, every layer, every span


def _plain_bert(weights: dict[str, Tensor], prefix: str, files: dict[str, Path]) -> BertModel:
    model = BertModel(BertConfig.from_json_file(files["config.json"])).eval()
    model.load_state_dict(
        {name.removeprefix(prefix): t for name, t in weights.items() if name.startswith(prefix)}
    )
    return model


def test_bertscore_equals_the_definition(weights: Path) -> None:
    files = find("BERTScore", weights)
    model = RobertaModel(
        RobertaConfig.from_json_file(files["config.json"]), add_pooling_layer=False
    ).eval()
    stored = load_file(files["model.safetensors"])
    model.load_state_dict(
        {name.removeprefix("roberta."): tensor for name, tensor in stored.items()}
    )
    tokenizer = ByteLevelBPETokenizer(
        str(files["vocab.json"]), str(files["merges.txt"]), add_prefix_space=True
    )

    def states(text: str) -> Tensor:
        ids = torch.tensor([[0, *tokenizer.encode(text, add_special_tokens=False).ids, 2]])
        return model(ids, output_hidden_states=True).hidden_states[5][0]

    def f1(hypothesis: str, reference: str) -> float:
        a, b = states(hypothesis), states(reference)
        cosine = torch.nn.functional.cosine_similarity(a[:, None], b[None], dim=-1)
        precision = np.mean([float(cosine[i].max()) for i in range(1, len(a) - 1)])
        recall = np.mean([float(cosine[:, j].max()) for j in range(1, len(b) - 1)])
        return (2 * precision * recall / (precision + recall) - BASELINE) / (1 - BASELINE)

    scorer = BertScore(files, CPU, budget=512)
    with torch.no_grad():
        for hypothesis, reference in PAIRS[:6]:
            ours = bertscore_f1(*scorer.embed([hypothesis, reference]))
            assert ours == pytest.approx(f1(hypothesis, reference), abs=2e-5)


def test_bertscore_does_not_depend_on_the_other_references(
    backend: PublishedBackend, parts: Parts
) -> None:
    """With idf weights of one reference the score would be (0 - b)/(1 - b) = -5.55."""
    alone = backend.score(HYPOTHESES[:1], REFERENCES[:1]).bertscore[0]
    assert alone == pytest.approx(parts.bertscore[0], abs=1e-5)
    assert alone > -BASELINE / (1 - BASELINE) + 0.5


def test_chexbert_equals_the_definition(weights: Path) -> None:
    files = find("CheXbert encoder", weights)
    checkpoint = find("CheXbert", weights)["chexbert.pth"]
    stored = torch.load(checkpoint, weights_only=True)["model_state_dict"]
    model = _plain_bert(stored, "module.bert.", files)
    tokenizer = BertWordPieceTokenizer(str(files["vocab.txt"]), lowercase=True)
    chexbert = CheXbert(checkpoint, files, CPU, budget=256)
    report = "  Heart is\n enlarged , small   effusion . "
    with torch.no_grad():
        ids = torch.tensor([tokenizer.encode(" ".join(report.split())).ids])
        embedding = model(ids).last_hidden_state[0, 0]
        logits = [
            stored[f"module.linear_heads.{k}.weight"] @ embedding
            + stored[f"module.linear_heads.{k}.bias"]
            for k in range(14)
        ]
    torch.testing.assert_close(chexbert.embed([report])[0], embedding, atol=1e-5, rtol=0)
    expected = {
        label: [None, 1, 0, -1][int(row.argmax())]
        for label, row in zip(LABELS, logits, strict=True)
        if int(row.argmax())
    }
    assert chexbert.label([report, "clear", report])[2] == expected


def test_chexbert_reads_512_tokens(weights: Path) -> None:
    chexbert = CheXbert(
        find("CheXbert", weights)["chexbert.pth"],
        find("CheXbert encoder", weights),
        CPU,
        budget=512,
    )
    long = " ".join(["heart"] * 510)
    torch.testing.assert_close(chexbert.embed([long]), chexbert.embed([long + " effusion" * 50]))


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
    bert = _plain_bert(
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


# RadGraph's text and scores


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


# Files


def test_make_backend_gives_the_published_backend(weights: Path, tmp_path: Path) -> None:
    backend = make_backend(
        RewardConfig(backend="published", published_dir=weights, published_cache=tmp_path)
    )
    assert backend.name == "radcliq"


@pytest.mark.parametrize("part", sorted(SOURCES))
def test_a_missing_file_is_named_with_the_way_to_fetch_it(tmp_path: Path, part: str) -> None:
    folder = write_weights(tmp_path)
    assert not any(missing_files(folder).values())
    for path in find(part, folder).values():
        path.unlink()
    command = SOURCES[part].command(folder)
    assert f"--local-dir {folder}" in command
    assert "--local-dir" not in SOURCES[part].command(None)
    assert command in missing_files(folder)[part]
    with pytest.raises(MetricError, match="weights_missing") as error:
        PublishedBackend(folder)
    assert f"`{command}`" in str(error.value)


def test_files_of_the_hugging_face_cache_are_found(
    weights: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = tmp_path / "models--distilroberta-base"
    (repository / "refs").mkdir(parents=True)
    (repository / "refs" / "main").write_text("abc")
    snapshot = repository / "snapshots" / "abc"
    snapshot.mkdir(parents=True)
    for name, path in find("BERTScore", weights).items():
        (snapshot / name).write_bytes(path.read_bytes())
    monkeypatch.setattr("huggingface_hub.constants.HF_HUB_CACHE", str(tmp_path))
    monkeypatch.setattr("huggingface_hub.file_download.HF_HUB_CACHE", str(tmp_path), raising=False)
    assert find("BERTScore", None) == {name: snapshot / name for name in SOURCES["BERTScore"].files}


def test_weights_of_another_architecture_are_refused(tmp_path: Path) -> None:
    folder = write_weights(tmp_path)
    checkpoint = folder / "RRG_scorers" / "chexbert.pth"
    stored = torch.load(checkpoint, weights_only=True)
    del stored["model_state_dict"]["module.bert.encoder.layer.1.output.dense.weight"]
    torch.save(stored, checkpoint)
    with pytest.raises(MetricError, match=r"weights_mismatch.*CheXbert.*layer.1"):
        PublishedBackend(folder)
    torch.save({"weights": {}}, checkpoint)
    with pytest.raises(MetricError, match="model_state_dict"):
        PublishedBackend(folder)


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


def test_packed_layers_give_what_plain_ones_give():
    torch.manual_seed(0)
    encoder = torch.nn.ModuleDict(
        {"outer": torch.nn.Sequential(torch.nn.Linear(12, 20), torch.nn.GELU())}
    )
    states = torch.randn(3, 5, 12)
    plain = encoder["outer"](states)
    pack_layers(encoder)
    assert isinstance(encoder["outer"][0], PackedLinear)
    torch.testing.assert_close(encoder["outer"](states), plain, atol=1e-5, rtol=0)
