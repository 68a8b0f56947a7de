"""Run a tiny random decoder of each family through SFT and PPO, and print which stage takes it.

    python benchmarks/decoder_families.py              # all; about a minute each
    python benchmarks/decoder_families.py gpt2 bloom

"refused" stands for the code of the error that the stage says before it starts anything; any other
error ends the benchmark.
"""

from __future__ import annotations

import argparse
import logging
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import ray
from transformers import AutoConfig, AutoModelForCausalLM

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.errors import CodedError
from lmrrg.manifest import read_studies
from lmrrg.model.decoder import train_tokenizer
from lmrrg.run.studies import prepare_studies
from rl.ppo import run_ppo
from sft.train import run_sft

# Heads of 64: the smallest size that every attention kernel of vLLM has.
_SIZE = {
    "hidden_size": 128,
    "intermediate_size": 256,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 2,
    "max_position_embeddings": 512,
}
_FAMILIES: dict[str, dict[str, Any]] = {
    "llama": _SIZE,
    "qwen2": _SIZE,
    "qwen3": _SIZE | {"head_dim": 64},
    "mistral": _SIZE | {"sliding_window": None},
    "gemma": _SIZE | {"head_dim": 64},
    "gemma2": _SIZE | {"head_dim": 64, "sliding_window": 512},
    "gpt2": {"n_embd": 128, "n_layer": 2, "n_head": 2, "n_positions": 512},
    "opt": {
        "hidden_size": 128,
        "word_embed_proj_dim": 128,
        "ffn_dim": 256,
        "num_hidden_layers": 2,
        "num_attention_heads": 2,
        "max_position_embeddings": 512,
    },
    "gpt_neox": _SIZE,
    "bloom": {"hidden_size": 128, "n_layer": 2, "n_head": 2},
}
"""Type of a model in transformers, and the settings that make it tiny."""

_SETTINGS = (
    "data.phantom={train: 16, val: 4, test: 4, image_size: 64}",
    "data.image_size=64",
    "data.max_report_tokens=48",
    "model.extractor_width=64",
    "model.extractor_blocks=1",
    "model.decoder.max_positions=256",
    "sft={epochs: 1, minibatch: 8, microbatch: 8}",
    "rollout={max_new_tokens: 24, max_sequences: 16, kv_cache_mb: 32}",
    "ppo={iterations: 1, studies_per_iteration: 4, samples_per_study: 2, minibatch: 8, "
    "microbatch: 8, value_warmup_iterations: 0, eval_studies: 2}",
    "tracking.wandb_mode=disabled",
)


def main() -> None:
    """Print a table row for each family."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("families", nargs="*", metavar="FAMILY", help=", ".join(_FAMILIES))
    names = parser.parse_args().families or list(_FAMILIES)
    logging.disable(logging.WARNING)  # SFT's own warning of what PPO refuses is in the table
    with tempfile.TemporaryDirectory() as folder:
        for name in names:
            config = _config(Path(folder), name)
            sft = _outcome(lambda: run_sft(config))  # noqa: B023 - called at once
            ppo = _outcome(lambda: run_ppo(config)) if sft == "runs" else "–"  # noqa: B023
            print(f"| {name} | {sft} | {ppo} |", flush=True)
    ray.shutdown()


def _config(folder: Path, family: str) -> Config:
    """Write a tiny random decoder of the family; return the settings of its run."""
    decoder = folder / f"{family}-decoder"
    paths = [f"name={family}", f"storage_path={folder}", f"data.cache_dir={folder / 'cache'}"]
    config = load_config(None, [*_SETTINGS, *paths, f"model.decoder.pretrained={decoder}"])
    studies = read_studies(prepare_studies(config, progress=False))
    tokenizer = train_tokenizer([study.findings for study in studies], 400)
    ids = {
        name: getattr(tokenizer, name) for name in ("pad_token_id", "bos_token_id", "eos_token_id")
    }
    settings = AutoConfig.for_model(family, vocab_size=len(tokenizer), **ids, **_FAMILIES[family])
    AutoModelForCausalLM.from_config(settings).save_pretrained(decoder)
    tokenizer.save_pretrained(decoder)
    return config


def _outcome(stage: Callable[[], object]) -> str:
    try:
        stage()
    except CodedError as error:
        return f"refused: `{error.code}`"
    return "runs"


if __name__ == "__main__":
    main()
