"""The model of the HTTP service: from decoded radiographs to a report, without any HTTP."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import time
from collections.abc import Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from itertools import count
from pathlib import Path
from typing import Any, Literal

import numpy as np
import torch
from numpy.typing import NDArray
from PIL import Image

from lmrrg.anatomy import REGIONS
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.engine.report_engine import ReportEngine
from lmrrg.files import directory_hash
from lmrrg.imaging.radiograph import IMAGE_WARNING_CODES, Radiograph
from lmrrg.imaging.reading import to_square
from lmrrg.model.checkpoint import (
    CheckpointError,
    checkpoint_encoder,
    checkpoint_settings,
    full_state,
    load_checkpoint,
    read_checkpoint_config,
    state_checksum,
)
from lmrrg.model.evidence import at_thresholds, checkpoint_thresholds
from lmrrg.model.generator import Visual
from lmrrg.model.prompts import prompt_ids
from lmrrg.studies import LABELS
from lmrrg.views import choose_views
from lmrrg.vision.files import load_features_from_images
from lmrrg.vision.study_features import StudyFeatures
from serve_app.doubts import abstain_reasons
from serve_app.schemas import ImageInfo, ImageWarning, ModelInfo, RegionHeat, ReportResponse
from serve_app.sentences import describe_sentences
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


@dataclass(frozen=True)
class _Begun:
    """A study whose report is being written."""

    study: UploadedStudy
    reasons: list[ImageWarning]
    """Why no report is written; empty where one is."""
    probabilities: dict[str, float]
    attention: NDArray[np.float32]
    """[29, V, side, side] of its present views."""
    started: float


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
        self._kind = model_kind(checkpoint)
        model, inputs = checkpoint_settings(checkpoint)
        self._encoder = checkpoint_encoder(checkpoint, settings.image_encoder)
        self._thresholds = checkpoint_thresholds(checkpoint, settings.evidence)
        # A report of the configured length must fit into the checkpoint's own decoder.
        longest = min(settings.rollout.max_new_tokens, model.decoder.max_positions // 2)
        rollout = settings.rollout.model_copy(update={"max_new_tokens": longest})
        self.most_at_once = rollout.max_sequences
        self._engine = ReportEngine(
            checkpoint, rollout, seed=settings.seed, threads=settings.threads
        )
        self._data = settings.data.model_copy(
            update={"image_size": inputs.image_size, "max_views": inputs.max_views}
        )
        self._settings = settings
        self._begun: dict[str, _Begun] = {}
        self._numbers = count()
        # A first report compiles and allocates what later ones need, so none of them is slow.
        self.check()

    def check(self) -> None:
        """Write the report of a made-up image, as proof that the engine works."""
        # A ramp, because a constant image is refused.
        side = self._data.image_size
        ramp = np.tile(np.linspace(0, 1, side, dtype=np.float32), (side, 1))
        self.write([UploadedStudy([Radiograph(ramp, "unknown", "png")])])

    def write(self, studies: Sequence[UploadedStudy]) -> list[ReportResponse]:
        """Write the reports of several studies at once, decoded greedily.

        Of a study with an image that may be no chest film none is generated: the service abstains.

        Raises:
            FeatureError: a study without images.
        """
        names = self.begin(studies)
        written: dict[str, ReportResponse] = {}
        try:
            while len(written) < len(names):
                written |= self.step()
        finally:
            self.abort()
        return [written[name] for name in names]

    @torch.inference_mode()
    def begin(self, studies: Sequence[UploadedStudy]) -> list[str]:
        """Begin the reports of several studies, which join those that are being written.

        Returns:
            A name for each, under which :meth:`step` gives its report.

        Raises:
            FeatureError: a study without images; none has begun then.
        """
        started = time.perf_counter()
        model = self._engine.model
        features = load_features_from_images(
            [study.images for study in studies], self._data, self._encoder
        )
        features = at_thresholds(features, model.config, self._thresholds)
        visual = self._engine.encode(features)
        reasons = [abstain_reasons(self._chosen(study)) for study in studies]
        names = self._submit(studies, features, visual, [not found for found in reasons])
        for row, (name, study) in enumerate(zip(names, studies, strict=True)):
            attention = _attention(visual.attention[row].cpu(), features.view_mask[row])
            probabilities = _probabilities(visual.disease_logits[row].cpu())
            self._begun[name] = _Begun(study, reasons[row], probabilities, attention, started)
        return names

    def step(self) -> dict[str, ReportResponse]:
        """Write the next token of every report that has begun; return those that are finished.

        Studies of which no report is written are among the next that are returned.
        """
        without = [name for name, begun in self._begun.items() if begun.reasons]
        written = {name: self._response(name, None) for name in without}
        if self._begun:
            for name, report in self._engine.step().items():
                written[name] = self._response(name, report)
        return written

    def abort(self) -> None:
        """Give up all reports that are being written."""
        self._engine.abort(list(self._begun))
        self._begun.clear()

    def load(self, checkpoint: Path) -> None:
        """Replace the weights by those of another checkpoint while no report is being written.

        Raises:
            CheckpointError: it cannot be read, or ``other_model``: it differs in more than weights.
        """
        if model_kind(checkpoint) != self._kind:
            raise CheckpointError("other_model", f"{checkpoint} differs in more than its weights")
        state = full_state(load_checkpoint(checkpoint))
        encoder = checkpoint_encoder(checkpoint, self._settings.image_encoder)
        thresholds = checkpoint_thresholds(checkpoint, self._settings.evidence)
        self._engine.update_weights(state, self._engine.version + 1, state_checksum(state))
        self._encoder = encoder
        self._thresholds = thresholds
        self._model_info = model_info(checkpoint)
        self.check()

    def _submit(
        self,
        studies: Sequence[UploadedStudy],
        features: StudyFeatures,
        visual: Visual,
        wanted: Sequence[bool],
    ) -> list[str]:
        """Begin the reports that are wanted; return a name for every study."""
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
        names = [f"none-{next(self._numbers)}" for _ in studies]
        if rows:
            begun = self._engine.submit(visual.tokens[rows], prompts, seeds=[0] * len(rows))
            for row, name in zip(rows, begun, strict=True):
                names[row] = name
        return names

    def close(self) -> None:
        """Close the engine and free its memory."""
        self._engine.close()

    def _response(self, name: str, report: GeneratedReport | None) -> ReportResponse:
        begun = self._begun.pop(name)
        study = begun.study
        config = self._engine.model.config
        return ReportResponse(
            **self._texts(report, begun.attention),
            abstain=report is None,
            reasons=begun.reasons,
            complete=report is None or report.finished,
            probabilities=begun.probabilities,
            images=self._images(study),
            images_not_used=max(0, len(study.images) - self._data.max_views),
            indication_used=config.use_indication and bool(study.indication.strip()),
            prior_used=config.use_prior and bool(study.prior.strip()),
            regions=_regions(begun.attention) if study.details else None,
            model=self._model_info,
            generated_at=datetime.now(UTC),
            seconds=round(time.perf_counter() - begun.started, 3),
        )

    def _texts(
        self, report: GeneratedReport | None, attention: NDArray[np.float32]
    ) -> dict[str, Any]:
        """Return the fields of a response that hold the text and its sentences."""
        # A checkpoint without this entry was made when findings were all that could be learnt.
        section = self._model_info.provenance.get("section", "findings")
        name: Literal["findings", "impression"]
        name = "impression" if section == "impression" else "findings"
        text = report.text if report else ""
        pieces, logprobs = self._tokens(report) if report else ([], [])
        return {
            "findings": text if name == "findings" else "",
            "impression": text if name == "impression" else None,
            "section": section,
            "sentences": describe_sentences(text, name, attention, pieces, logprobs),
        }

    def _tokens(self, report: GeneratedReport) -> tuple[Sequence[str], list[float]]:
        """Return the tokens of a report and their log-probabilities, without special ones."""
        tokenizer = self._engine.model.tokenizer
        special = set(tokenizer.all_special_ids)
        told = zip(report.token_ids, report.logprobs, strict=True)
        kept = [(token, logprob) for token, logprob in told if token not in special]
        pieces = tokenizer.convert_ids_to_tokens([token for token, _ in kept])
        return pieces, [logprob for _, logprob in kept]

    def _images(self, study: UploadedStudy) -> list[ImageInfo]:
        """Describe the images of a study that the model sees."""
        preview = self._data.image_size if study.details else None
        return [image_info(image, preview) for image in self._chosen(study)]

    def _chosen(self, study: UploadedStudy) -> list[Radiograph]:
        """Return the images of a study that the model sees."""
        return choose_views(study.images, self._data.max_views)


def model_kind(checkpoint: Path) -> str:
    """Return a hash of all that a checkpoint holds beside weights and provenance.

    A replica whose checkpoint is replaced by one of the same kind only loads its weights.
    """
    settings = read_checkpoint_config(checkpoint)
    digest = hashlib.sha256(
        json.dumps(
            {name: value for name, value in settings.items() if name != "provenance"},
            sort_keys=True,
        ).encode()
    )
    for path in sorted(checkpoint.rglob("*")):
        if path.is_file() and path.suffix != ".safetensors" and path.parent != checkpoint:
            digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


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


def _attention(attention: torch.Tensor, view_mask: torch.Tensor) -> NDArray[np.float32]:
    """Return the attention [29, V, P] of the present views [V] as square grids."""
    present = attention[:, view_mask].float()
    side = round(present.shape[-1] ** 0.5)
    return present.reshape(len(REGIONS), -1, side, side).numpy()


def _regions(attention: NDArray[np.float32]) -> list[RegionHeat]:
    """Return the attention [29, V, side, side] of every region."""
    # Rounding keeps the answer small; it has 29 numbers for each patch.
    grids = attention.astype(np.float64).round(5).tolist()
    return [RegionHeat(name=name, heat=heat) for name, heat in zip(REGIONS, grids, strict=True)]


def _data_url(pixels: np.ndarray) -> str:
    """Return an image [H, W] in [0, 1] as a PNG data URL."""
    out = io.BytesIO()
    Image.fromarray((pixels * 255).round().astype(np.uint8)).save(out, format="PNG")
    return "data:image/png;base64," + base64.b64encode(out.getvalue()).decode("ascii")
