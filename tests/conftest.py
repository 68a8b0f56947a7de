"""Fixtures for every test: small settings, a few studies, a tiny checkpoint with random weights."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.data.phantom.drawn.findings import draw_phantom, sample_findings
from lmrrg.model.checkpoint import save_checkpoint
from lmrrg.studies import Study, StudyImage
from tests.support.new_model import new_model
from tests.support.paths import ROOT


@pytest.fixture(scope="session")
def tiny_config(tmp_path_factory: pytest.TempPathFactory) -> Config:
    """Return settings of a network that runs in milliseconds, in a temporary folder."""
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
            "model.decoder.vocabulary=260",
            "model.decoder.max_positions=160",
            "rollout.kv_cache_mb=16",
            "rollout.max_sequences=16",
            "rollout.max_new_tokens=24",
            "rollout.cpus_per_engine=0.5",
            "ray.object_store_mb=200",
            "tracking.wandb_mode=disabled",
        ],
    )


SENTENCES = (
    "The heart is normal in size.",
    "The heart is moderately enlarged.",
    "There is a small left pleural effusion.",
    "There is a large right pleural effusion.",
    "No pneumothorax is seen.",
    "There is an opacity in the right lower lobe.",
    "The lungs are clear.",
    "A dual lead pacemaker is in place.",
)


def radiograph(seed: int, rows: int = 96, columns: int = 80) -> np.ndarray:
    """Draw an 8-bit chest film, with other findings and another exposure for each seed."""
    streams = np.random.default_rng(seed).spawn(4)
    findings = sample_findings(streams[2])
    film, _ = draw_phantom(streams[0], findings, rows, patient=streams[1])
    relit = np.uint8(255 * film ** np.exp(streams[3].uniform(-0.7, 0.7)))
    return np.asarray(Image.fromarray(relit).resize((columns, rows)))


@pytest.fixture(scope="session")
def tiny_studies(tmp_path_factory: pytest.TempPathFactory) -> list[Study]:
    """Return eight labelled studies with PNG files; every third has a lateral view too."""
    folder = tmp_path_factory.mktemp("studies")
    studies = []
    for number in range(8):
        images = []
        for view in ("PA", "lateral") if number % 3 == 0 else ("PA",):
            path = folder / f"{number}-{view}.png"
            Image.fromarray(radiograph(10 * number + len(view))).save(path)
            images.append(StudyImage(path, view))
        text = " ".join(SENTENCES[(number + k) % len(SENTENCES)] for k in range(2))
        studies.append(
            Study(
                f"s{number}",
                f"p{number}",
                tuple(images),
                findings=text,
                indication="Cough.",
                labels={},
                split="train",
            )
        )
    return studies


@pytest.fixture(scope="session")
def tiny_checkpoint(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a checkpoint with random weights whose tokenizer knows :data:`SENTENCES`."""
    reports = [f"{a} {b}" for a in SENTENCES for b in SENTENCES]
    directory = tmp_path_factory.mktemp("checkpoint") / "model"
    save_checkpoint(new_model(tiny_config, reports), directory, {"stage": "test"})
    return directory


@pytest.fixture(scope="session")
def ray_cluster(tiny_config: Config) -> Iterator[Path]:
    """Start a local Ray with a small object store; yield the folder of its session with the logs.

    All cluster tests use the same one. Its workers can import ``tests``, so that a test may define
    actors of its own.
    """
    import ray

    from actors.placement import connect

    if ray.is_initialized():
        ray.shutdown()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("PYTHONPATH", str(ROOT), prepend=os.pathsep)
        patch.delenv("RAY_ADDRESS", raising=False)
        connect(tiny_config.ray)
        yield Path(ray._private.worker.global_worker.node.get_session_dir_path())
        ray.shutdown()


@pytest.fixture(scope="module")
def served(ray_cluster: Path, tiny_checkpoint: Path, tiny_config: Config) -> Iterator[str]:
    """Start the report service with the tiny checkpoint, and yield its address."""
    from ray import serve

    from lmrrg.config.loading import save_config
    from serve_app.app import app

    settings = tiny_config.run_dir / "serve.yaml"
    port = free_port()
    small = tiny_config.serve.model_copy(update={"max_upload_mb": 2, "port": port})
    save_config(tiny_config.model_copy(update={"serve": small}), settings)
    serve.run(app({"checkpoint": str(tiny_checkpoint), "config": str(settings)}), name="reports")
    yield f"http://127.0.0.1:{port}"
    serve.shutdown()


def free_port() -> int:
    """Return a port that nobody listens on."""
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]
