"""The published backend's files with random weights: the published architectures, very small."""

from __future__ import annotations

import io
import json
import tarfile
from pathlib import Path

import torch
from safetensors.torch import save_file
from tokenizers import ByteLevelBPETokenizer
from torch import Tensor, nn
from transformers import BertConfig, BertModel, RobertaConfig, RobertaModel

_WORDS = (
    "the heart is enlarged normal size small left right pleural effusion effus ##ion ##s no acute "
    "lung lungs clear consolidation in lower lobe of mild with and opacity edema card "
    "##io ##mega ##ly . , ( ) / : a b 1 2 3"
)
WORDS = _WORDS.split()
HIDDEN, FEED_FORWARD, FEATURES, SPAN_WIDTH, FOLD = 32, 24, 20, 6, 64
ENTITY_LABELS = ("", "ANAT-DP", "OBS-DP", "OBS-U", "OBS-DA")
RELATION_LABELS = ("modify", "located_at", "suggestive_of")
_RADGRAPH_ENCODER = "_embedder.token_embedder_bert._matched_embedder.transformer_model."


def write_weights(folder: Path, seed: int = 0) -> Path:
    """Write every file that the backend reads, as ``hf download`` does; return the folder."""
    torch.manual_seed(seed)
    _bert_files(folder / "bert-base-uncased")
    _bert_files(folder / "BiomedNLP-BiomedBERT-base-uncased-abstract")
    scorers = folder / "RRG_scorers"
    scorers.mkdir()
    torch.save({"epoch": 1, "model_state_dict": chexbert_weights()}, scorers / "chexbert.pth")
    _radgraph_archive(scorers / "radgraph.tar.gz")
    _distilroberta(folder / "distilroberta-base")
    return folder


def bert() -> BertModel:
    """Return a BERT with its pooler, as the checkpoints have it."""
    return BertModel(_bert_config())


def chexbert_weights() -> dict[str, Tensor]:
    """Return a state dict like the published one, which a data-parallel model saved."""
    model = nn.Module()
    model.bert = bert()
    model.linear_heads = nn.ModuleList(
        [*(nn.Linear(HIDDEN, 4) for _ in range(13)), nn.Linear(HIDDEN, 2)]
    )
    return {f"module.{name}": tensor for name, tensor in model.state_dict().items()}


def radgraph_weights() -> dict[str, Tensor]:
    """Return a state dict with the names of the published RadGraph model.

    It includes the parts that inference does not use.
    """
    span = 2 * HIDDEN + FEATURES
    weights = {_RADGRAPH_ENCODER + name: tensor for name, tensor in bert().state_dict().items()}
    weights["_endpoint_span_extractor._span_width_embedding.weight"] = 0.4 * torch.randn(
        SPAN_WIDTH, FEATURES
    )
    ner, pruner = (
        "_ner._ner_scorers.radgraph__ner_labels",
        "_relation._mention_pruners.radgraph__relation_labels._scorer",
    )
    for scorer, size in ((ner, len(ENTITY_LABELS) - 1), (pruner, 1)):
        _feed_forward(weights, f"{scorer}.0._module", span)
        _linear(weights, f"{scorer}.1._module", FEED_FORWARD, size)
    weights[f"{ner}.1._module.bias"] -= 1  # some spans are no entity
    _feed_forward(weights, "_relation._relation_feedforwards.radgraph__relation_labels", 3 * span)
    _linear(
        weights,
        "_relation._relation_scorers.radgraph__relation_labels",
        FEED_FORWARD,
        len(RELATION_LABELS),
    )
    weights["_coref._distance_embedding.weight"] = torch.randn(10, FEATURES)
    return weights


def radgraph_settings() -> dict[str, object]:
    """The parts of the published ``config.json`` that inference reads."""
    return {
        "dataset_reader": {
            "max_span_width": SPAN_WIDTH,
            "token_indexers": {"bert": {"max_length": FOLD}},
        },
        "model": {"modules": {"relation": {"spans_per_word": 0.5}, "coref": {"coref_prop": 0}}},
    }


def pack(path: Path, files: dict[str, bytes]) -> None:
    """A gzipped tar file."""
    with tarfile.open(path, "w:gz") as tar:
        for name, content in files.items():
            member = tarfile.TarInfo(f"./{name}")
            member.size = len(content)
            tar.addfile(member, io.BytesIO(content))


def radgraph_files() -> dict[str, bytes]:
    """The content of the published archive."""
    stream = io.BytesIO()
    torch.save(radgraph_weights(), stream)
    return {
        "config.json": json.dumps(radgraph_settings()).encode(),
        "weights.th": stream.getvalue(),
        "vocabulary/non_padded_namespaces.txt": b"*tags\n*labels\n",
        "vocabulary/radgraph__ner_labels.txt": "".join(
            f"{label}\n" for label in ENTITY_LABELS
        ).encode(),
        "vocabulary/radgraph__relation_labels.txt": "".join(
            f"{label}\n" for label in RELATION_LABELS
        ).encode(),
    }


def _radgraph_archive(path: Path) -> None:
    pack(path, radgraph_files())


def _bert_config() -> BertConfig:
    return BertConfig(
        vocab_size=len(WORDS) + 5,
        hidden_size=HIDDEN,
        num_hidden_layers=2,
        num_attention_heads=2,
        intermediate_size=64,
        initializer_range=0.1,
    )


def _bert_files(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(_bert_config().to_json_string())
    (folder / "vocab.txt").write_text(
        "\n".join(["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *WORDS]) + "\n"
    )


def _distilroberta(folder: Path) -> None:
    folder.mkdir()
    tokenizer = ByteLevelBPETokenizer()
    tokenizer.train_from_iterator(
        [" ".join(WORDS)],
        vocab_size=320,
        min_frequency=1,
        special_tokens=["<s>", "<pad>", "</s>", "<unk>", "<mask>"],
    )
    tokenizer.save_model(str(folder))
    config = RobertaConfig(
        vocab_size=tokenizer.get_vocab_size(),
        hidden_size=HIDDEN,
        num_hidden_layers=6,
        num_attention_heads=2,
        intermediate_size=64,
        max_position_embeddings=514,
        type_vocab_size=1,
        initializer_range=0.4,
    )
    (folder / "config.json").write_text(config.to_json_string())
    encoder = RobertaModel(config, add_pooling_layer=False)
    save_file(
        {f"roberta.{name}": tensor for name, tensor in encoder.state_dict().items()},
        folder / "model.safetensors",
    )


def _feed_forward(weights: dict[str, Tensor], name: str, size: int) -> None:
    _linear(weights, f"{name}._linear_layers.0", size, FEED_FORWARD)
    _linear(weights, f"{name}._linear_layers.1", FEED_FORWARD, FEED_FORWARD)


def _linear(weights: dict[str, Tensor], name: str, inputs: int, outputs: int) -> None:
    # Rows without a mean, so that the ReLUs below them do not make every span look alike.
    rows = 0.35 * torch.randn(outputs, inputs)
    weights[f"{name}.weight"] = rows - rows.mean(dim=1, keepdim=True)
    weights[f"{name}.bias"] = 0.2 * torch.randn(outputs)
