"""Make what the benchmarks run on.

That is the demo's settings, a few phantoms, and a small decoder that writes to the limit.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence
from tqdm import tqdm

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import save_checkpoint
from lmrrg.model.generator import VISUAL_TOKENS, ReportGenerator, build_generator
from lmrrg.model.prompts import prompt_ids, report_ids
from lmrrg.run.studies import prepare_studies, studies_of
from lmrrg.studies import Study
from lmrrg.vision.files import FeatureFiles

ROOT = Path(__file__).resolve().parents[3]
CACHE = ROOT / ".cache" / "benchmarks"
"""Data, checkpoints and virtual environments of the benchmarks; may be deleted at any time."""


def demo_config(name: str, *overrides: str, studies: int = 32) -> Config:
    """Return the settings of configs/demo.yaml on ``studies`` phantoms.

    The run folder is below :data:`CACHE`.
    """
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


def endless_writer(config: Config, *, natural: bool = False) -> Path:
    """Return a checkpoint whose reports run to ``rollout.max_new_tokens``.

    They read like the training reports.

    The decoder is trained for a minute on the reports joined end to end, without EOS, so that every
    system that samples from it works on the same number of tokens. ``natural``: it learns single
    reports with EOS instead, and its reports are as long as those. What stands in front of the
    instruction is random in training, so it does not matter; the visual half stays random.
    """
    prepare_studies(config)
    target = config.run_dir / ("natural" if natural else "endless")
    if target.is_dir():
        return target
    studies = studies_of(config, "train")
    FeatureFiles(studies, config.data)
    texts = [study.report(config.data.section) for study in studies]
    model = build_generator(config.model, config.data, texts, seed=config.seed)
    _train(model, _targets(model, config, studies, natural), config)
    save_checkpoint(model, target, {"stage": "benchmark"})
    return target


def start_ray(config: Config) -> None:
    """Start a local cluster whose workers have the priority of any other process.

    By default Ray makes them nice (15). On a machine that is not quite idle they would then lose to
    whatever they are compared with.
    """
    from actors.placement import connect

    os.environ |= {"RAY_worker_niceness": "0"}
    connect(config.ray)


def _targets(
    model: ReportGenerator, config: Config, studies: Sequence[Study], natural: bool
) -> list[Tensor]:
    """Return token ids to learn.

    These are reports up to their EOS, or cuts of the limit's length from all reports in a row.
    """
    limit = config.rollout.max_new_tokens
    section = config.data.section
    if natural:
        return [
            torch.tensor(report_ids(model.tokenizer, study.report(section), limit))
            for study in studies
        ]
    stream: list[int] = []
    for study in studies:
        # The last id is EOS, which this decoder must never learn.
        stream += report_ids(model.tokenizer, study.report(section) + " ", 10**6)[:-1]
    return list(torch.tensor(stream).unfold(0, limit, 7))


def _train(
    model: ReportGenerator, targets: Sequence[Tensor], config: Config, steps: int = 150
) -> None:
    """Teach the decoder the targets, after the instruction and random vectors or words."""
    random = torch.Generator().manual_seed(config.seed)
    optimizer = torch.optim.AdamW(model.decoder.parameters(), lr=2e-3)
    embed = model.decoder.get_input_embeddings()
    instruction = torch.tensor(prompt_ids(model.tokenizer, config.model, "")).expand(16, -1)
    for step in tqdm(range(steps), desc="benchmark decoder", unit="step"):
        chosen = [targets[i] for i in torch.randint(len(targets), (16,), generator=random).tolist()]
        ids = pad_sequence(chosen, batch_first=True, padding_value=-100)
        words = embed(
            torch.randint(4, model.decoder.config.vocab_size, (16, VISUAL_TOKENS), generator=random)
        )
        vectors = 0.02 * torch.randn(words.shape, generator=random)
        prompt = torch.cat([words if step % 2 else vectors, embed(instruction)], dim=1)
        inputs = torch.cat([prompt, embed(ids[:, :-1].clamp_min(0))], dim=1)
        logits = model.decoder(
            inputs_embeds=inputs, use_cache=False, logits_to_keep=ids.shape[1]
        ).logits
        loss = torch.nn.functional.cross_entropy(logits.flatten(0, 1), ids.flatten())
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
