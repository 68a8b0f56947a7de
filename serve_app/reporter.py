"""From decoded radiographs to a written report: the model behind the HTTP service, without any HTTP."""

from __future__ import annotations

import base64
import hashlib
import io
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path

import numpy as np
import torch
from PIL import Image

from lmrrg.anatomy import REGIONS
from lmrrg.config.tree import Config
from lmrrg.engine.report_engine import ReportEngine
from lmrrg.imaging.radiograph import Radiograph
from lmrrg.imaging.reading import to_square
from lmrrg.model.checkpoint import checkpoint_settings, read_checkpoint_config
from lmrrg.model.prompts import prompt_ids
from lmrrg.studies import LABELS
from lmrrg.views import choose_views
from lmrrg.vision.files import load_features_from_images
from serve_app.schemas import ImageInfo, ModelInfo, RegionHeat, ReportResponse


@dataclass(frozen=True)
class UploadedStudy:
    """The images of one study; ``prior`` is the report of the last one, ``details`` asks for previews and heat maps."""

    images: list[Radiograph]
    indication: str = ""
    prior: str = ""
    details: bool = False


class Reporter:
    """A checkpoint, loaded and warmed up. Not for use by several threads at once.

    Raises:
        CheckpointError: the checkpoint cannot be read.
        EngineError: its decoder is too short for a report.
    """

    def __init__(self, checkpoint: Path, config: Config):
        self._model_info = model_info(checkpoint)
        model, inputs = checkpoint_settings(checkpoint)
        # A report of the configured length must fit into the checkpoint's own decoder.
        longest = min(config.rollout.max_new_tokens, model.decoder.max_positions // 2)
        rollout = config.rollout.model_copy(update={"max_new_tokens": longest})
        self._engine = ReportEngine(checkpoint, rollout, seed=config.seed, threads=config.threads)
        data = config.data.model_copy(
            update={"image_size": inputs.image_size, "max_views": inputs.max_views}
        )
        self._config = config.model_copy(update={"data": data})
        ramp = np.linspace(0, 1, inputs.image_size, dtype=np.float32)
        self.write(
            [UploadedStudy([Radiograph(np.tile(ramp, (inputs.image_size, 1)), "unknown", "png")])]
        )

    @torch.inference_mode()
    def write(self, studies: Sequence[UploadedStudy]) -> list[ReportResponse]:
        """Reports of several studies at once, greedily decoded.

        Raises:
            FeatureError: a study without images.
        """
        started = time.perf_counter()
        model = self._engine.model
        features = load_features_from_images([study.images for study in studies], self._config.data)
        prompts = [
            prompt_ids(model.tokenizer, model.config, study.indication, study.prior)
            for study in studies
        ]
        reports = [samples[0] for samples in self._engine.generate(features, prompts)]
        visual = model.visual(features.to(self._engine.device))
        seconds = round(time.perf_counter() - started, 3)
        return [
            ReportResponse(
                findings=report.text,
                complete=report.finished,
                probabilities=_probabilities(visual.disease_logits[row].cpu()),
                images=self._images(study),
                images_not_used=max(0, len(study.images) - self._config.data.max_views),
                indication_used=model.config.use_indication and bool(study.indication.strip()),
                prior_used=model.config.use_prior and bool(study.prior.strip()),
                regions=_regions(visual.attention[row].cpu(), features.view_mask[row])
                if study.details
                else None,
                model=self._model_info,
                generated_at=datetime.now(UTC),
                seconds=seconds,
            )
            for row, (study, report) in enumerate(zip(studies, reports, strict=True))
        ]

    def close(self) -> None:
        """Free the engine."""
        self._engine.close()

    def _images(self, study: UploadedStudy) -> list[ImageInfo]:
        size = self._config.data.image_size
        return [
            ImageInfo(
                view=image.view,
                source=image.source,
                burned_in=image.burned_in,
                preview=_data_url(to_square(image.pixels, size)) if study.details else None,
            )
            for image in choose_views(study.images, self._config.data.max_views)
        ]


def model_info(checkpoint: Path) -> ModelInfo:
    """Version and origin of a checkpoint directory; reads all of its files once for the hash.

    Raises:
        CheckpointError: it is not a checkpoint.
    """
    settings = read_checkpoint_config(checkpoint)
    digest = hashlib.sha256()
    for path in sorted(p for p in checkpoint.rglob("*") if p.is_file()):
        digest.update(str(path.relative_to(checkpoint)).encode())
        with path.open("rb") as file:
            digest.update(hashlib.file_digest(file, "sha256").digest())
    decoder = settings["model"]["decoder"]
    return ModelInfo(
        version=f"sha256:{digest.hexdigest()[:16]}",
        architecture=settings["architecture"],
        decoder=decoder["pretrained"] or decoder["architecture"],
        provenance={
            k: v
            for k, v in settings["provenance"].items()
            if isinstance(v, (str, int, float, bool))
        },
    )


def _probabilities(logits: torch.Tensor) -> dict[str, float]:
    """Logits [14] to named probabilities."""
    return {name: round(p, 4) for name, p in zip(LABELS, logits.sigmoid().tolist(), strict=True)}


def _regions(attention: torch.Tensor, view_mask: torch.Tensor) -> list[RegionHeat]:
    """Attention [29, V, P] of the views that exist, as square grids."""
    seen = attention[:, view_mask]
    side = round(seen.shape[-1] ** 0.5)
    grids = seen.reshape(len(REGIONS), -1, side, side).numpy().astype(np.float64).round(5).tolist()
    return [RegionHeat(name=name, heat=heat) for name, heat in zip(REGIONS, grids, strict=True)]


def _data_url(pixels: np.ndarray) -> str:
    out = io.BytesIO()
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(out, format="PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
