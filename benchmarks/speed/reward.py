"""Report pairs per second of the reward: both backends, cold and cached, 1 and 2 workers, beside `radgraph` itself.

    python benchmarks/speed/reward.py [--studies 16] [--samples 4] [--radgraph DIR ...] [--out FILE.json]

Published weights are not needed: the published backend runs on random weights of the published sizes (three models,
1.2 GB in a temporary folder), which cost the same time. The work is PPO's: several sampled reports per study, scored
against the study's reference. One torch thread per worker; CPU seconds are the figure to compare on a busy machine.

The `radgraph` package needs transformers 4 and runs in a process of its own. Give it the folders to import from:
    pip install --no-deps --target RG radgraph==0.1.18 dotmap appdirs jsonpickle h5py
    pip install --no-deps --target TF transformers==4.46.3 tokenizers==0.20.3 huggingface_hub==0.36.0
    python benchmarks/speed/reward.py --radgraph TF RG
"""

from __future__ import annotations

import argparse
import json
import multiprocessing
import os
import random
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from pathlib import Path

SIZES = ("the", "small", "moderate", "large", "mild", "subtle")
PLACES = (
    "right lower lobe",
    "left lung base",
    "right upper lobe",
    "left costophrenic angle",
    "retrocardiac region",
)
FINDINGS = (
    "opacity",
    "consolidation",
    "effusion",
    "atelectasis",
    "nodule",
    "scarring",
    "interstitial edema",
)
NORMAL = (
    "the heart is normal in size",
    "the mediastinal contours are unremarkable",
    "no pneumothorax is seen",
    "there is no pleural effusion",
    "the visualized bones are intact",
    "pulmonary vascularity is within normal limits",
)
WIDTH, FEED_FORWARD, FEATURES, SPAN_WIDTH, PIECES = 768, 150, 20, 12, 30522


def write_reports(studies: int, samples: int) -> tuple[list[str], list[str]]:
    """(sampled reports, references) of studies x samples pairs, 50 to 70 words each."""
    rng = random.Random(0)

    def report() -> str:
        found = [
            f"there is a {rng.choice(SIZES)} {rng.choice(FINDINGS)} in the {rng.choice(PLACES)}"
            for _ in range(3)
        ]
        sentences = [*found, *rng.sample(NORMAL, 5)]
        rng.shuffle(sentences)
        return " . ".join(sentences) + " ."

    references = [report() for _ in range(studies)]
    return [report() for _ in range(studies * samples)], [
        r for r in references for _ in range(samples)
    ]


# Random weights of the published sizes


def write_models(folder: Path) -> None:
    """Every file that the published backend reads, and an encoder folder that the package can read."""
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
    words = sorted(
        {
            word
            for text in (*SIZES, *PLACES, *FINDINGS, *NORMAL, "there is a in .")
            for word in text.split()
        }
    )
    # As in the real vocabulary, a few words are more than one piece.
    words = [
        piece
        for word in words
        for piece in ([word[:4], "##" + word[4:]] if len(word) > 9 else [word])
    ]
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
    """The archive, and beside it the same files unpacked, where the package looks for them."""
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
    """Random scorers that mark about as many spans as a trained model: a negative bias keeps most spans empty."""
    import torch

    span, hidden = 2 * WIDTH + FEATURES, FEED_FORWARD
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


# Measuring


def timed(call: Callable[[], object]) -> tuple[float, float]:
    """(wall seconds, CPU seconds) of one call."""
    wall, cpu = time.perf_counter(), time.process_time()
    call()
    return time.perf_counter() - wall, time.process_time() - cpu


def measure_worker(task: tuple[str, str, list[str], list[str]]) -> dict[str, tuple[float, float]]:
    """One worker of its own process: cold, then with what the first call left in the caches."""
    kind, folder, hypotheses, references = task
    import torch

    torch.set_num_threads(1)
    score: Callable[[Sequence[str], Sequence[str]], object]
    if kind == "embedded":
        from lmrrg.metrics.embedded.backend import EmbeddedBackend

        score = EmbeddedBackend().score
    else:
        from lmrrg.metrics.published.backend import PublishedBackend

        if kind == "radgraph":
            score = _radgraph_alone(Path(folder))
        else:
            score = PublishedBackend(Path(folder), cache=Path(tempfile.mkdtemp(dir=folder))).score
    score(
        ["no effusion ."], ["the lungs are clear ."]
    )  # rules and kernels are loaded; none of the texts is known
    return {state: timed(lambda: score(hypotheses, references)) for state in ("cold", "cached")}


def _radgraph_alone(folder: Path) -> Callable[[Sequence[str], Sequence[str]], object]:
    """The part of the backend that the package's call path covers, with the backend's handling of repeated texts."""
    import torch

    from lmrrg.metrics.published.radgraph import RadGraph, radgraph_f1
    from lmrrg.metrics.published.weight_files import find

    archive = find("RadGraph", folder)["radgraph.tar.gz"]
    model = RadGraph(archive, find("RadGraph encoder", folder), torch.device("cpu"), budget=1024)
    known: dict = {}

    def score(hypotheses: Sequence[str], references: Sequence[str]) -> list[object]:
        fresh = list(
            dict.fromkeys(text for text in [*references, *hypotheses] if text not in known)
        )
        found = dict(zip(fresh, model.annotate(fresh), strict=True)) | known
        known.update({text: found[text] for text in references})
        return [
            radgraph_f1(found[h], found[r]) for h, r in zip(hypotheses, references, strict=True)
        ]

    return score


def measure(
    kind: str, folder: Path, workers: int, pairs: tuple[list[str], list[str]]
) -> dict[str, tuple[float, float]]:
    """Wall seconds of the slowest worker and CPU seconds of all, by state; pairs are dealt to the workers."""
    hypotheses, references = pairs
    share = -(-len(hypotheses) // workers)
    tasks = [
        (kind, str(folder), hypotheses[start : start + share], references[start : start + share])
        for start in range(0, len(hypotheses), share)
    ]
    with multiprocessing.get_context("spawn").Pool(workers) as pool:
        results = pool.map(measure_worker, tasks, chunksize=1)
    return {
        state: (
            max(result[state][0] for result in results),
            sum(result[state][1] for result in results),
        )
        for state in ("cold", "cached")
    }


def package_process(
    folder: Path, imports: Sequence[str], pairs: tuple[list[str], list[str]]
) -> tuple[float, float, list[list[float]]]:
    """(wall seconds, CPU seconds, three reward levels) of the package's `F1RadGraph`, in a process of its own."""
    environment = os.environ | {"PYTHONPATH": os.pathsep.join(imports), "OMP_NUM_THREADS": "1"}
    command = [
        sys.executable,
        __file__,
        "--package-worker",
        str(folder / "RRG_scorers" / "package"),
    ]
    done = subprocess.run(
        command,
        input=json.dumps(pairs),
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise SystemExit(f"the radgraph package failed:\n{done.stderr[-2000:]}")
    answer = json.loads(done.stdout.splitlines()[-1])
    return *answer["seconds"], answer["rewards"]


def package_worker(folder: str) -> None:
    """In the package's own process: time its call path on the pairs from stdin."""
    import torch
    from radgraph import F1RadGraph

    torch.set_num_threads(1)
    hypotheses, references = json.load(sys.stdin)
    scorer = F1RadGraph(reward_level="all", model_type="radgraph", model_cache_dir=folder, cuda=-1)
    rewards: list[object] = []
    seconds = timed(lambda: rewards.extend(scorer(hyps=hypotheses, refs=references)[1]))
    print("\n" + json.dumps({"seconds": seconds, "rewards": rewards}))


def same_scores(
    folder: Path, pairs: tuple[list[str], list[str]], rewards: Sequence[Sequence[float]]
) -> float:
    """Largest difference between our three RadGraph levels and the package's."""
    from lmrrg.metrics.published.backend import PublishedBackend

    parts = PublishedBackend(folder).score(*pairs)
    ours = (parts.rg_e, parts.rg_er, parts.rg_bar_er)
    return max(
        abs(a - b)
        for level, theirs in zip(ours, rewards, strict=True)
        for a, b in zip(level, theirs, strict=True)
    )


def main() -> None:
    """Run everything and print one table."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("--studies", type=int, default=16, help="references (default %(default)s)")
    parser.add_argument(
        "--samples", type=int, default=4, help="sampled reports per reference (default %(default)s)"
    )
    parser.add_argument(
        "--radgraph",
        nargs="+",
        metavar="DIR",
        help="folders to import radgraph and transformers 4 from",
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("--package-worker", metavar="FOLDER", help=argparse.SUPPRESS)
    args = parser.parse_args()
    if args.package_worker:
        return package_worker(args.package_worker)
    os.environ["OMP_NUM_THREADS"] = "1"
    pairs = write_reports(args.studies, args.samples)
    with tempfile.TemporaryDirectory() as name:
        figures = run(Path(name), pairs, args.radgraph)
    if args.out:
        args.out.write_text(json.dumps(figures, indent=2) + "\n")
    return None


def run(
    folder: Path, pairs: tuple[list[str], list[str]], imports: Sequence[str] | None
) -> list[dict[str, object]]:
    """Measure and print row by row."""
    write_models(folder)
    count = len(pairs[0])
    print(
        f"{count} pairs, {len(set(pairs[1]))} references, {len(pairs[0][0].split())} words in the first report"
    )
    print(f"{'who':34} {'workers':>7} {'state':7} {'pairs/s':>9} {'CPU ms/pair':>12}")
    rows: list[dict[str, object]] = []

    def show(who: str, workers: int, state: str, wall: float, cpu: float) -> None:
        rows.append(
            {
                "who": who,
                "workers": workers,
                "state": state,
                "wall_s": wall,
                "cpu_s": cpu,
                "pairs": count,
            }
        )
        print(
            f"{who:34} {workers:7} {state:7} {count / wall:9.1f} {1000 * cpu / count:12.2f}",
            flush=True,
        )

    for kind, title in (
        ("embedded", "embedded"),
        ("radgraph", "published, RadGraph alone"),
        ("published", "published, all three models"),
    ):
        for workers in (1, 2):
            for state, (wall, cpu) in measure(kind, folder, workers, pairs).items():
                show(title, workers, state, wall, cpu)
    if imports:
        wall, cpu, rewards = package_process(folder, imports, pairs)
        show("radgraph package (its RadGraph)", 1, "cold", wall, cpu)
        difference = same_scores(folder, pairs, rewards)
        print(f"largest difference of rg_e, rg_er, rg_bar_er to the package: {difference:.2g}")
    else:
        print("radgraph package: not compared (see --radgraph in --help)")
    return rows


if __name__ == "__main__":
    main()
