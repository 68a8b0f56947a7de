"""Write the files of the published backend with random weights of the published sizes.

They cost the same time and memory as the true ones, which need not be at hand.
"""

from __future__ import annotations

import json
from pathlib import Path

from common.reports import FINDINGS, NORMAL, PLACES, SIZES, write_reports

WIDTH = 768
"""Hidden size of the encoders."""
FEED_FORWARD = 150
FEATURES = 20
SPAN_WIDTH = 12
"""Longest span of RadGraph, words."""
PIECES = 30522
"""Vocabulary of BERT."""


def write_models(folder: Path) -> None:
    """Write every file that the published backend reads, and an encoder folder for the package."""
    import torch
    from safetensors.torch import save_file
    from transformers import RobertaConfig, RobertaModel

    torch.manual_seed(0)
    for name in ("bert-base-uncased", "BiomedNLP-BiomedBERT-base-uncased-abstract"):
        _bert_folder(folder / name)
    scorers = folder / "RRG_scorers"
    scorers.mkdir()
    heads = torch.nn.ModuleList([torch.nn.Linear(WIDTH, 4 if k < 13 else 2) for k in range(14)])
    state = {f"module.bert.{name}": tensor for name, tensor in _bert().state_dict().items()}
    state |= {f"module.linear_heads.{name}": tensor for name, tensor in heads.state_dict().items()}
    torch.save({"model_state_dict": state}, scorers / "chexbert.pth")
    _radgraph_model(scorers, folder / "BiomedNLP-BiomedBERT-base-uncased-abstract")
    roberta = folder / "distilroberta-base"
    roberta.mkdir()
    config = RobertaConfig(
        vocab_size=50265, num_hidden_layers=6, max_position_embeddings=514, type_vocab_size=1
    )
    (roberta / "config.json").write_text(config.to_json_string())
    _byte_pairs(roberta)
    model = RobertaModel(config, add_pooling_layer=False)
    save_file(
        {f"roberta.{name}": tensor for name, tensor in model.state_dict().items()},
        roberta / "model.safetensors",
    )


def _bert():
    from transformers import BertConfig, BertModel

    return BertModel(BertConfig(vocab_size=PIECES))


def _bert_folder(folder: Path) -> None:
    folder.mkdir()
    (folder / "config.json").write_text(_bert().config.to_json_string())
    text = " ".join((*SIZES, *PLACES, *FINDINGS, *NORMAL, "there is a in ."))
    words: list[str] = []
    for word in sorted(set(text.split())):
        # As in the real vocabulary, a few words are more than one piece.
        words += [word[:4], "##" + word[4:]] if len(word) > 9 else [word]
    known = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *dict.fromkeys([*words, "a", "b"])]
    pieces = [*known, *(f"[unused{k}]" for k in range(PIECES - len(known)))]
    (folder / "vocab.txt").write_text("\n".join(pieces) + "\n")
    (folder / "tokenizer_config.json").write_text(
        json.dumps({"do_lower_case": True, "tokenizer_class": "BertTokenizer"})
    )


def _byte_pairs(folder: Path) -> None:
    from tokenizers import ByteLevelBPETokenizer

    tokenizer = ByteLevelBPETokenizer()
    special = ["<s>", "<pad>", "</s>", "<unk>", "<mask>"]
    tokenizer.train_from_iterator(
        write_reports(8, 1)[1], vocab_size=1000, min_frequency=1, special_tokens=special
    )
    tokenizer.save_model(str(folder))


def _radgraph_model(folder: Path, encoder: Path) -> None:
    """Write the archive, and beside it the same files unpacked, where the package looks."""
    import tarfile

    import torch

    model = folder / "package" / "radgraph"
    (model / "vocabulary").mkdir(parents=True)
    (model / "vocabulary" / "non_padded_namespaces.txt").write_text("*tags\n*labels\n")
    (model / "vocabulary" / "radgraph__ner_labels.txt").write_text(
        "\nANAT-DP\nOBS-DP\nOBS-U\nOBS-DA\n"
    )
    (model / "vocabulary" / "radgraph__relation_labels.txt").write_text(
        "modify\nlocated_at\nsuggestive_of\n"
    )
    (model / "config.json").write_text(json.dumps(_radgraph_settings(encoder)))
    prefix = "_embedder.token_embedder_bert._matched_embedder.transformer_model."
    weights = {
        prefix + name: tensor
        for name, tensor in _bert().state_dict().items()
        if "position_ids" not in name
    }
    torch.save(weights | _radgraph_scorers(), model / "weights.th")
    with tarfile.open(folder / "radgraph.tar.gz", "w:gz", compresslevel=1) as tar:
        for name in ("config.json", "weights.th", "vocabulary"):
            tar.add(model / name, arcname=name)


def _radgraph_settings(encoder: Path) -> dict[str, object]:
    indexer = {"model_name": str(encoder), "max_length": 512}
    return {
        "dataset_reader": {"max_span_width": SPAN_WIDTH, "token_indexers": {"bert": indexer}},
        "model": {
            "type": "dygie",
            "embedder": {"token_embedders": {"bert": indexer}},
            "initializer": {},
            "module_initializer": {},
            "feature_size": FEATURES,
            "max_span_width": SPAN_WIDTH,
            "target_task": "relation",
            "feedforward_params": {"num_layers": 2, "hidden_dims": FEED_FORWARD, "dropout": 0.4},
            "loss_weights": {"ner": 0.2, "relation": 1.0, "coref": 0.0, "events": 0.0},
            "modules": {
                "ner": {},
                "relation": {"spans_per_word": 0.5},
                "coref": {"spans_per_word": 0.3, "max_antecedents": 100, "coref_prop": 0},
                "events": {
                    "trigger_spans_per_word": 0.3,
                    "argument_spans_per_word": 0.8,
                    "loss_weights": {"trigger": 0.2, "arguments": 1.0},
                },
            },
        },
    }


def _radgraph_scorers() -> dict[str, object]:
    """Return random scorers that mark about as many spans as a trained model.

    A negative bias keeps most spans empty.
    """
    import torch

    span = 2 * WIDTH + FEATURES
    hidden = FEED_FORWARD
    weights: dict[str, object] = {
        "_endpoint_span_extractor._span_width_embedding.weight": torch.randn(SPAN_WIDTH, FEATURES),
        "_coref._distance_embedding.weight": torch.randn(10, FEATURES),
        "_events._distance_embedding.weight": torch.randn(10, FEATURES),
    }

    def linear(name: str, inputs: int, outputs: int, bias: float = 0.0) -> None:
        rows = torch.randn(outputs, inputs) * inputs**-0.5
        weights[f"{name}.weight"] = rows - rows.mean(dim=1, keepdim=True)
        weights[f"{name}.bias"] = torch.full((outputs,), bias)

    def feed_forward(name: str, inputs: int) -> None:
        linear(f"{name}._linear_layers.0", inputs, hidden)
        linear(f"{name}._linear_layers.1", hidden, hidden)

    relation = "radgraph__relation_labels"
    for name, outputs, bias in (
        ("_ner._ner_scorers.radgraph__ner_labels", 4, -0.5),
        (f"_relation._mention_pruners.{relation}._scorer", 1, 0.0),
        ("_coref._mention_pruner._scorer", 1, 0.0),
    ):
        feed_forward(f"{name}.0._module", span)
        linear(f"{name}.1._module", hidden, outputs, bias)
    feed_forward(f"_relation._relation_feedforwards.{relation}", 3 * span)
    linear(f"_relation._relation_scorers.{relation}", hidden, 3, -0.5)
    feed_forward("_coref._antecedent_feedforward._module", 3 * span + FEATURES)
    linear("_coref._antecedent_scorer._module", hidden, 1)
    linear("_coref._f_network._linear_layers.0", 2 * span, span)
    return weights
