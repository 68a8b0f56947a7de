"""Fixtures for every test: small settings, small phantom studies, a tiny checkpoint with random weights."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmrrg.config import Config, load_config


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Settings of a network that runs in milliseconds, with every path inside a temporary folder."""
    folder = tmp_path_factory.mktemp("run")
    return load_config(
        None,
        [
            "name=tiny",
            f"storage_path={folder}",
            f"data.cache_dir={folder / 'features'}",
            "data.phantom.train=12",
            "data.phantom.val=4",
            "data.phantom.test=4",
            "data.max_report_tokens=40",
            "model.extractor_width=32",
            "model.extractor_blocks=1",
            "model.extractor_heads=2",
            "model.extractor_dropout=0",
            "model.decoder.hidden_size=64",
            "model.decoder.layers=2",
            "model.decoder.heads=2",
            "model.decoder.intermediate_size=128",
            "model.decoder.vocabulary=200",
            "model.decoder.max_positions=160",
            "rollout.kv_cache_mb=16",
            "rollout.max_sequences=16",
            "rollout.max_new_tokens=24",
            "rollout.cpus_per_engine=0.5",
            "ray.object_store_mb=200",
            "tracking.wandb_mode=disabled",
        ],
    )
