"""The published backend on random weights of the published architectures.

It is compared with plain oracles, and what must not matter (batches, order, cache) does not.
"""

from __future__ import annotations

import random
from dataclasses import fields
from pathlib import Path

import numpy as np
import pytest
import torch
from safetensors.torch import load_file
from tokenizers import ByteLevelBPETokenizer
from tokenizers.implementations import BertWordPieceTokenizer
from torch import Tensor
from transformers import RobertaConfig, RobertaModel

from lmrrg.config.reward import RewardConfig
from lmrrg.metrics.backends import make_backend
from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.parts import Parts
from lmrrg.metrics.published.backend import PublishedBackend
from lmrrg.metrics.published.batching import PackedLinear, length_batches
from lmrrg.metrics.published.batching import pack as pack_layers
from lmrrg.metrics.published.bertscore import BASELINE, BertScore, bertscore_f1
from lmrrg.metrics.published.chexbert import CheXbert
from lmrrg.metrics.published.weight_files import SOURCES, find, missing_files
from lmrrg.studies import LABELS
from tests.support.published.oracles import REPORTS, plain_bert
from tests.support.published.weights import write_weights

CPU = torch.device("cpu")


PAIRS = [
    *zip(REPORTS[:12], REPORTS[12:], strict=True),
    (REPORTS[0], REPORTS[0]),
    (REPORTS[1], REPORTS[0]),
]
HYPOTHESES, REFERENCES = [h for h, _ in PAIRS], [r for _, r in PAIRS]


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
    model = plain_bert(stored, "module.bert.", files)
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
