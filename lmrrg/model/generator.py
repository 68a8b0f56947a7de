"""Build the report generator: visual tokens and a text prompt before a Hugging Face causal LM.

Tensor dimensions: B studies, V views, P patches of a view, R regions (29), T tokens of a report,
L tokens of prompt and report, H the decoder's width.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmrrg.anatomy import REGIONS
from lmrrg.config.data import DataConfig
from lmrrg.config.model import ImageEncoderConfig, ModelConfig
from lmrrg.model.classifier import DiseaseClassifier
from lmrrg.model.decoder import build_decoder, build_tokenizer, check_attention, token_embedding
from lmrrg.model.evidence import FINDINGS, NEVER, PRECISIONS, TABLE, require_evidence
from lmrrg.model.extractor import RegionExtractor
from lmrrg.model.region_queries import region_queries
from lmrrg.studies import LABELS
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.encoder import PACKAGED, encoder_info
from lmrrg.vision.study_features import StudyFeatures

VISUAL_TOKENS = len(REGIONS) + 1
"""R + 1: one for each region, and one for all images of the study together."""


@dataclass(frozen=True)
class VisualInputs:
    """Images and features that the model was built for; others are refused."""

    image_size: int
    max_views: int
    patches: int
    patch_width: int
    encoder_version: str

    @classmethod
    def of(
        cls, image_size: int, max_views: int, encoder: ImageEncoderConfig = PACKAGED
    ) -> VisualInputs:
        """Describe what an image encoder makes of squares of ``image_size`` pixels.

        Raises:
            CodedError, FeatureError: as :func:`~lmrrg.vision.encoder.encoder_info`.
        """
        info = encoder_info(image_size, encoder)
        return cls(image_size, max_views, info.patches, info.width, info.version)


@dataclass(frozen=True)
class Visual:
    """The visual half's output: tokens [B, R + 1, H], disease logits [B, 14], region heat maps.

    With ``model.evidence_tokens`` one token for each of the 13 findings follows the R + 1.
    """

    tokens: Tensor
    disease_logits: Tensor
    attention: Tensor
    """[B, R, V, P]; sums to 1 over a study's views and patches."""


@dataclass(frozen=True)
class ReportForward:
    """The output of a teacher-forced pass over reports.

    ``logits`` [B, T, vocabulary] and ``hidden`` [B, T, H] are those that predict each report token.
    ``disease_logits`` [B, 14] and ``attention`` [B, R, V, P] are as in :class:`Visual`.
    """

    logits: Tensor
    hidden: Tensor
    disease_logits: Tensor
    attention: Tensor


class ReportGenerator(nn.Module):
    """Extractor, projector, disease head and decoder of LM-RRG; ``config`` are its model settings.

    Raises:
        DecoderError: the decoder cannot attend to ``max_positions`` tokens
            (:func:`~lmrrg.model.decoder.check_attention`).
    """

    evidence_thresholds: Tensor
    """[19, 14], of :func:`~lmrrg.model.evidence.precision_table`, where evidence is read."""

    def __init__(
        self,
        config: ModelConfig,
        inputs: VisualInputs,
        queries: Tensor,
        tokenizer: PreTrainedTokenizerBase,
        decoder: PreTrainedModel,
    ) -> None:
        super().__init__()
        check_attention(decoder.config, config.decoder.max_positions)
        self.config = config
        self.inputs = inputs
        self.tokenizer = tokenizer
        self.extractor = RegionExtractor(config, queries, inputs.patches, inputs.patch_width)
        self.classifier = DiseaseClassifier(config.extractor_width)
        self.projector = _projector(config.extractor_width, decoder)
        self.decoder = decoder
        if config.evidence_tokens:
            self.finding_tokens = _finding_tokens(decoder)
        if config.uses_evidence:
            # Until SFT has seen validation studies, no precision is reached.
            self.register_buffer(TABLE, torch.full((PRECISIONS, len(LABELS)), NEVER))

    @property
    def visual_tokens(self) -> int:
        """Return how many tokens :meth:`visual` puts before the prompt."""
        return VISUAL_TOKENS + len(FINDINGS) * self.config.evidence_tokens

    @property
    def hidden_size(self) -> int:
        """Return the width H of the decoder and of the visual tokens."""
        return token_embedding(self.decoder).embedding_dim

    def visual(self, features: StudyFeatures) -> Visual:
        """Compute visual tokens, disease logits and region heat maps of B studies.

        Evidence in the features is that of :func:`~lmrrg.model.evidence.at_thresholds`.

        Raises:
            EvidenceError: ``no_evidence``, the model reads evidence and the features have none.
            FeatureError: ``feature_shape``, the features are not of the model's own encoder and
                image size.
        """
        shape = tuple(features.patches.shape[2:])
        expected = (self.inputs.patches, self.inputs.patch_width)
        if shape != expected:
            raise FeatureError(
                "feature_shape",
                f"patches of shape {shape}, but the model was built for "
                f"{self.inputs.encoder_version} with {expected}",
            )
        regions, overall, attention = self.extractor(
            features.patches, features.views, features.view_mask
        )
        tokens = self.projector(torch.cat([regions, overall[:, None]], dim=1))
        if self.config.evidence_tokens:
            require_evidence(features)
            probability = features.evidence[:, : len(FINDINGS), None]
            tokens = torch.cat([tokens, probability * self.finding_tokens.weight], dim=1)
        return Visual(tokens, self.classifier(regions, overall), attention)

    def prompt_embeddings(
        self, visual_tokens: Tensor, prompt_ids: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """Join visual tokens [B, R + 1, H] and embedded prompts.

        Returns:
            B tensors [R + 1 + tokens of the prompt, H] without padding.
        """
        lengths = [len(ids) for ids in prompt_ids]
        # One look-up for all prompts, split again afterwards.
        joined = [token for ids in prompt_ids for token in ids]
        flat = torch.tensor(joined, dtype=torch.long, device=visual_tokens.device)
        texts = token_embedding(self.decoder)(flat).split(lengths)
        return [
            torch.cat([seen.to(text.dtype), text])
            for seen, text in zip(visual_tokens, texts, strict=True)
        ]

    def report_logits(
        self,
        features: StudyFeatures,
        prompts: Sequence[Sequence[int]],
        report_ids: Tensor,
        report_mask: Tensor,
    ) -> ReportForward:
        """Compute teacher-forced logits: ``logits[:, t]`` predicts ``report_ids[:, t]``.

        No result depends on the padding or on the other rows of the batch.

        Args:
            features: of B studies.
            prompts: token ids of each study's prompt, without the visual tokens.
            report_ids: [B, T], padded on the right.
            report_mask: bool [B, T], True where a report has a token; other ids are ignored.
        """
        visual = self.visual(features)
        rows = self.prompt_embeddings(visual.tokens, prompts)
        prompt_length = max(len(row) for row in rows)
        width = report_ids.shape[1]
        # Prompts are padded on the left, so that all reports start at the same position.
        padding = [prompt_length - len(row) for row in rows]
        prompt = torch.stack(
            [F.pad(row, (0, 0, before, 0)) for row, before in zip(rows, padding, strict=True)]
        )
        safe_ids = torch.where(report_mask, report_ids, self.tokenizer.pad_token_id)
        # The last token predicts nothing that is needed; the prompt's last one predicts the first.
        report = token_embedding(self.decoder)(safe_ids[:, :-1])
        attention, positions = _attention(padding, prompt_length + width - 1, report_ids.device)
        first = prompt_length - 1
        predicting = torch.arange(first, first + width, device=report_ids.device)
        out = self.decoder(
            inputs_embeds=torch.cat([prompt, report], dim=1),
            attention_mask=attention,
            position_ids=positions,
            use_cache=False,
            output_hidden_states=True,
            logits_to_keep=predicting,  # the logits of the prompt would take much memory
        )
        return ReportForward(
            out.logits,
            out.hidden_states[-1][:, predicting],
            visual.disease_logits,
            visual.attention,
        )

    # What a module's call runs; the other name tells what it computes.
    forward = report_logits


def build_generator(
    config: ModelConfig,
    data: DataConfig,
    training_reports: Sequence[str],
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    seed: int,
) -> ReportGenerator:
    """Build a new model; all weights that are not pretrained are random and depend on ``seed``.

    Args:
        config: settings of the network.
        data: image size, views per study, and the cache folder for the region queries.
        training_reports: texts to train a tokenizer on; not used when there is one.
        tokenizer: the decoder's tokenizer; None: that of the pretrained decoder, else a new one.
        seed: seed of the random weights.

    Raises:
        DecoderError, RegionError, FeatureError: a part cannot be built from the settings.
    """
    inputs = VisualInputs.of(data.image_size, data.max_views, config.image_encoder)
    queries = region_queries(config.text_encoder, config.regions_file, data.cache_dir)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = tokenizer or build_tokenizer(config, training_reports)
        return ReportGenerator(config, inputs, queries, words, build_decoder(config.decoder, words))


def _projector(width: int, decoder: PreTrainedModel) -> nn.Sequential:
    """Return the map from region width to decoder width.

    It ends at the scale of the decoder's own token embeddings, the inputs that the decoder knows.
    """
    embedding = token_embedding(decoder)
    hidden = embedding.embedding_dim
    norm = nn.LayerNorm(hidden)
    nn.init.constant_(norm.weight, float(embedding.weight.detach().float().std()))
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), norm)


def _finding_tokens(decoder: PreTrainedModel) -> nn.Embedding:
    """Return one vector for each finding, at the scale of the decoder's token embeddings."""
    words = token_embedding(decoder)
    tokens = nn.Embedding(len(FINDINGS), words.embedding_dim)
    nn.init.normal_(tokens.weight, std=float(words.weight.detach().float().std()))
    return tokens


def _attention(
    padding: list[int], length: int, device: torch.device
) -> tuple[Tensor | None, Tensor]:
    """Return mask, bool [B, 1, L, L], and positions [B, L] of rows padded on the left.

    Args:
        padding: unused tokens at the start of each of the B rows.
        length: tokens of a row, L.

    Returns:
        The mask is ``None`` without left padding: causal attention alone hides the padding on the
        right, and is faster.
    """
    index = torch.arange(length, device=device)
    before = torch.tensor(padding, device=device)[:, None]
    positions = (index - before).clamp_min(0)
    if not any(padding):
        return None, positions
    causal = index[:, None] >= index
    used = index >= before
    # Padding attends to itself: the softmax of an empty row would be NaN.
    own = index[:, None] == index
    return ((causal & used[:, None]) | own)[:, None], positions
