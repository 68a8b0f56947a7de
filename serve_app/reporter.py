"""The model of the HTTP service: from decoded radiographs to a report, without any HTTP."""

from __future__ import annotations

import base64
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
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.engine.report_engine import ReportEngine
from lmrrg.files import directory_hash
from lmrrg.imaging.radiograph import IMAGE_WARNING_CODES, Radiograph
from lmrrg.imaging.reading import to_square
from lmrrg.model.checkpoint import checkpoint_encoder, checkpoint_settings, read_checkpoint_config
from lmrrg.model.evidence import at_thresholds, checkpoint_thresholds
from lmrrg.model.prompts import prompt_ids
from lmrrg.studies import LABELS
from lmrrg.views import choose_views
from lmrrg.vision.files import load_features_from_images
from lmrrg.vision.study_features import StudyFeatures
from serve_app.doubts import abstain_reasons
from serve_app.schemas import ImageInfo, ImageWarning, ModelInfo, RegionHeat, ReportResponse
from serve_app.settings import ServiceSettings


@dataclass(frozen=True)
class UploadedStudy:
    """The images and texts of one study."""

    images: list[Radiograph]
    indication: str = ""
    prior: str = ""
    """The report of the patient's previous study."""
    details: bool = False
    """Whether the answer has previews and heat maps."""


class Reporter:
    """A checkpoint, loaded and warmed up; not thread-safe.

    Args:
        checkpoint: model directory.
        settings: engine, seed and threads; image size and views are the checkpoint's own.

    Raises:
        CheckpointError: the checkpoint cannot be read; ``own_code_refused``, it wants to encode
            images with code that the settings do not name.
        EngineError: its decoder is too short for a report.
        EvidenceError: ``no_evidence`` or ``no_thresholds``.
    """

    def __init__(self, checkpoint: Path, settings: ServiceSettings):
        self._model_info = model_info(checkpoint)
        model, inputs = checkpoint_settings(checkpoint)
        self._encoder = checkpoint_encoder(checkpoint, settings.image_encoder)
        self._thresholds = checkpoint_thresholds(checkpoint, settings.evidence)
        # A report of the configured length must fit into the checkpoint's own decoder.
        longest = min(settings.rollout.max_new_tokens, model.decoder.max_positions // 2)
        rollout = settings.rollout.model_copy(update={"max_new_tokens": longest})
        self._engine = ReportEngine(
            checkpoint, rollout, seed=settings.seed, threads=settings.threads
        )
        self._data = settings.data.model_copy(
            update={"image_size": inputs.image_size, "max_views": inputs.max_views}
        )
        # A first report compiles and allocates what later ones need, so none of them is slow. The
        # image is a ramp because a constant one is refused.
        ramp = np.linspace(0, 1, inputs.image_size, dtype=np.float32)
        self.write(
            [UploadedStudy([Radiograph(np.tile(ramp, (inputs.image_size, 1)), "unknown", "png")])]
        )

    @torch.inference_mode()
    def write(self, studies: Sequence[UploadedStudy]) -> list[ReportResponse]:
        """Write the reports of several studies at once, decoded greedily.

        Of a study with an image that may be no chest film none is generated: the service abstains.

        Raises:
            FeatureError: a study without images.
        """
        started = time.perf_counter()
        model = self._engine.model
        features = load_features_from_images(
            [study.images for study in studies], self._data, self._encoder
        )
        features = at_thresholds(features, model.config, self._thresholds)
        visual = model.visual(features.to(self._engine.device))
        reasons = [abstain_reasons(self._chosen(study)) for study in studies]
        reports = self._reports(studies, features, [not found for found in reasons])
        seconds = round(time.perf_counter() - started, 3)
        responses = []
        for row, (study, report) in enumerate(zip(studies, reports, strict=True)):
            regions = None
            if study.details:
                regions = _regions(visual.attention[row].cpu(), features.view_mask[row])
            response = ReportResponse(
                findings=report.text if report else "",
                abstain=report is None,
                reasons=reasons[row],
                complete=report is None or report.finished,
                probabilities=_probabilities(visual.disease_logits[row].cpu()),
                images=self._images(study),
                images_not_used=max(0, len(study.images) - self._data.max_views),
                indication_used=model.config.use_indication and bool(study.indication.strip()),
                prior_used=model.config.use_prior and bool(study.prior.strip()),
                regions=regions,
                model=self._model_info,
                generated_at=datetime.now(UTC),
                seconds=seconds,
            )
            responses.append(response)
        return responses

    def _reports(
        self, studies: Sequence[UploadedStudy], features: StudyFeatures, wanted: Sequence[bool]
    ) -> list[GeneratedReport | None]:
        """Generate the reports of the studies that are wanted; None stands for each other one."""
        model = self._engine.model
        rows = [row for row, is_wanted in enumerate(wanted) if is_wanted]
        prompts = [
            prompt_ids(
                model.tokenizer,
                model.config,
                studies[row].indication,
                studies[row].prior,
                features.evidence[row],
            )
            for row in rows
        ]
        reports: list[GeneratedReport | None] = [None] * len(studies)
        if rows:
            generated = self._engine.generate(features.select(rows), prompts)
            for row, samples in zip(rows, generated, strict=True):
                reports[row] = samples[0]
        return reports

    def close(self) -> None:
        """Close the engine and free its memory."""
        self._engine.close()

    def _images(self, study: UploadedStudy) -> list[ImageInfo]:
        """Describe the images of a study that the model sees."""
        preview = self._data.image_size if study.details else None
        return [image_info(image, preview) for image in self._chosen(study)]

    def _chosen(self, study: UploadedStudy) -> list[Radiograph]:
        """Return the images of a study that the model sees."""
        return choose_views(study.images, self._data.max_views)


def image_info(image: Radiograph, preview: int | None) -> ImageInfo:
    """Describe an image; ``preview`` is the side of the square to show, None for no picture."""
    warnings = [
        ImageWarning(code=code, message=IMAGE_WARNING_CODES[code]) for code in image.warnings
    ]
    return ImageInfo(
        view=image.view,
        source=image.source,
        burned_in=image.burned_in,
        warnings=warnings,
        preview=_data_url(to_square(image.pixels, preview)) if preview else None,
    )


def model_info(checkpoint: Path) -> ModelInfo:
    """Return the version and the origin of a checkpoint directory.

    The version is a hash over all files, so each of them is read once.

    Raises:
        CheckpointError: it is not a checkpoint.
    """
    settings = read_checkpoint_config(checkpoint)
    decoder = settings["model"]["decoder"]
    # Only plain values fit the schema; a checkpoint may record nested ones.
    provenance = {
        name: value
        for name, value in settings["provenance"].items()
        if isinstance(value, (str, int, float, bool))
    }
    return ModelInfo(
        version=f"sha256:{directory_hash(checkpoint)[:16]}",
        architecture=settings["architecture"],
        decoder=decoder["pretrained"] or decoder["architecture"],
        provenance=provenance,
    )


def _probabilities(logits: torch.Tensor) -> dict[str, float]:
    """Return the probabilities of logits [14] by class."""
    values = logits.sigmoid().tolist()
    return {name: round(value, 4) for name, value in zip(LABELS, values, strict=True)}


def _regions(attention: torch.Tensor, view_mask: torch.Tensor) -> list[RegionHeat]:
    """Return the attention [29, V, P] of the present views [V] as square grids."""
    present = attention[:, view_mask]
    side = round(present.shape[-1] ** 0.5)
    grids = present.reshape(len(REGIONS), -1, side, side).numpy()
    # Rounding keeps the answer small; it has 29 numbers for each patch.
    grids = grids.astype(np.float64).round(5).tolist()
    return [RegionHeat(name=name, heat=heat) for name, heat in zip(REGIONS, grids, strict=True)]


def _data_url(pixels: np.ndarray) -> str:
    """Return an image [H, W] in [0, 1] as a PNG data URL."""
    out = io.BytesIO()
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(out, format="PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
