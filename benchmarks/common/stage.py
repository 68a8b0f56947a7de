"""What the benchmarks run on: the demo's settings, a few phantoms, and a small decoder that writes to the limit."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm
from transformers import PreTrainedModel

from lmrrg.config import Config, load_config
from lmrrg.data.sources import prepare_studies, studies_of
from lmrrg.model.checkpoint import load_checkpoint, save_checkpoint
from lmrrg.model.features import FeatureFiles
from lmrrg.model.generator import ReportGenerator, build_generator
from lmrrg.model.prompts import report_ids
from lmrrg.studies import Study

ROOT = Path(__file__).resolve().parents[2]
CACHE = ROOT / ".cache" / "benchmarks"
"""Data, checkpoints and virtual environments of the benchmarks; may be deleted at any time."""


def demo_config(name: str, *overrides: str, studies: int = 32) -> Config:
    """The settings of configs/demo.yaml on ``studies`` phantoms, with a run folder below :data:`CACHE`."""
    small = [
        f"name={name}",
        f"storage_path={CACHE}",
        f"data.cache_dir={CACHE / 'features'}",
        f"data.phantom.train={studies}",
        "data.phantom.val=8",
        "data.phantom.test=1",
        "tracking.wandb_mode=disabled",
    ]
    return load_config(ROOT / "configs" / "demo.yaml", [*small, *overrides])


def endless_writer(config: Config) -> Path:
    """A checkpoint whose reports read like the training reports and run to ``rollout.max_new_tokens``.

    The decoder is trained for a minute on the reports joined end to end, without EOS, so that every system that samples
    from it works on the same number of tokens. Its prompt is 30 random vectors and the instruction; the visual half
    stays random.
    """
    prepare_studies(config)
    target = config.run_dir / "writer"
    if target.is_dir():
        return target
    studies = studies_of(config, "train")
    FeatureFiles(studies, config)
    texts = [study.report(config.data.section) for study in studies]
    model = build_generator(config, texts)
    _train(model, config, studies)
    save_checkpoint(model, target, {"stage": "benchmark"})
    return target


def start_ray(config: Config) -> None:
    """A local cluster whose workers have the priority of any other process; by default Ray makes them nice (15), and
    on a machine that is not quite idle they would lose to whatever they are compared with."""
    from actors.placement import connect

    os.environ |= {"RAY_worker_niceness": "0"}
    connect(config)


def decoder_of(checkpoint: Path) -> PreTrainedModel:
    """The decoder of a checkpoint as a transformers model, in evaluation mode."""
    return load_checkpoint(checkpoint).decoder


def _train(model: ReportGenerator, config: Config, studies: Sequence[Study], steps: int = 150) -> None:
    """Teach the decoder to go on from any place in a stream of reports."""
    limit, width = config.rollout.max_new_tokens, model.hidden_size
    stream = torch.tensor(
        [i for s in studies for i in report_ids(model.tokenizer, s.report(config.data.section) + " ", 10**6)[:-1]]
    )
    random = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=2e-3)
    embed = model.decoder.get_input_embeddings()
    for _ in tqdm(range(steps), desc="benchmark decoder", unit="step"):
        starts = torch.randint(len(stream) - limit, (16,), generator=random)
        ids = torch.stack([stream[start : start + limit] for start in starts.tolist()])
        prompt = 0.02 * torch.randn(len(ids), 40, width, generator=random)
        logits = model.decoder(
            inputs_embeds=torch.cat([prompt, embed(ids[:, :-1])], dim=1), use_cache=False, logits_to_keep=limit
        ).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
