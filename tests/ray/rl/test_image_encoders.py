"""A model on a Hugging Face image encoder goes through SFT, PPO and the service's Reporter."""

from __future__ import annotations

import shutil
from contextlib import closing
from pathlib import Path

import pytest
import torch

from lmrrg.config.model import ImageEncoderConfig
from lmrrg.config.tree import Config
from lmrrg.imaging.reading import read_image
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.studies import Study
from rl.ppo import run_ppo
from serve_app.reporter import Reporter, UploadedStudy
from serve_app.settings import ServiceSettings
from sft.train import run_sft
from tests.support.ppo.settings import ppo_config
from tests.support.vision.models import write_vision_model

pytestmark = [pytest.mark.cluster, pytest.mark.usefixtures("ray_cluster")]


def test_the_encoder_of_sft_is_that_of_ppo_and_of_the_service(
    tiny_config: Config, tiny_studies: list[Study], tmp_path: Path
) -> None:
    source = write_vision_model("dinov2 with registers", tmp_path / "source")
    encoder = ImageEncoderConfig(name="huggingface", weights=str(source))
    model = tiny_config.model.model_copy(update={"image_encoder": encoder})
    data = tiny_config.data.model_copy(update={"cache_dir": tmp_path / "cache"})
    sft = tiny_config.sft.model_copy(
        update={"epochs": 1, "minibatch": 4, "microbatch": 4, "cpus_per_worker": 0.5}
    )
    base = tiny_config.model_copy(update={"model": model, "data": data, "sft": sft})
    config = ppo_config(base, tmp_path / "runs", iterations=1, value_warmup_iterations=0)
    run_sft(config)
    shutil.rmtree(source)  # from now on the checkpoint's copy has to do
    best = load_checkpoint(run_ppo(config))
    before = load_checkpoint(config.run_dir / "sft" / "best")
    assert best.inputs == before.inputs
    assert best.inputs.encoder_version.startswith("huggingface-")
    assert (best.inputs.patches, best.inputs.patch_width) == (16, 32)
    films = [[read_image(image.path) for image in study.images] for study in tiny_studies[:2]]
    last = config.run_dir / "ppo" / "last"
    with closing(Reporter(last, ServiceSettings.of(config))) as reporter:
        reports = reporter.write([UploadedStudy(images) for images in films])
        assert reporter._engine.model.inputs == before.inputs
    assert len(reports) == 2
    assert all(set(report.probabilities) for report in reports)
    changed = load_checkpoint(last).state_dict()
    assert any(not torch.equal(changed[name], value) for name, value in before.state_dict().items())
