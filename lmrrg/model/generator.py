"""The multimodal report generator: visual tokens and a text prompt in front of a Hugging Face causal LM."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from transformers import PreTrainedModel, PreTrainedTokenizerBase

from lmrrg.anatomy import REGIONS
from lmrrg.config.data import DataConfig
from lmrrg.config.model import ModelConfig
from lmrrg.model.classifier import DiseaseClassifier
from lmrrg.model.decoder import build_decoder, build_tokenizer, check_attention, token_embedding
from lmrrg.model.extractor import RegionExtractor
from lmrrg.model.region_queries import region_queries
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.encoder import encoder_version, feature_shape
from lmrrg.vision.study_features import StudyFeatures

VISUAL_TOKENS = len(REGIONS) + 1


@dataclass(frozen=True)
class VisualInputs:
    """What the model was built to see; features of another shape are refused."""

    image_size: int
    max_views: int
    patches: int
    patch_width: int
    encoder_version: str

    @classmethod
    def of(cls, image_size: int, max_views: int) -> VisualInputs:
        """What the image encoder makes of ``max_views`` squares of ``image_size`` pixels.

        Raises:
            FeatureError: ``image_size`` when the side is no multiple of 32.
        """
        return cls(image_size, max_views, *feature_shape(image_size), encoder_version(image_size))


@dataclass(frozen=True)
class Visual:
    """``tokens`` [B, 30, H] in the decoder's width, ``disease_logits`` [B, 14], ``attention`` [B, 29, V, P]."""

    tokens: Tensor
    disease_logits: Tensor
    attention: Tensor


@dataclass(frozen=True)
class ReportForward:
    """``logits`` [B, T, vocabulary] and ``hidden`` [B, T, H] at the places that predict each report token;
    ``disease_logits`` [B, 14]; ``attention`` [B, 29, V, P] of the regions to the patches.
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

    def __init__(
        self,
        config: ModelConfig,
        inputs: VisualInputs,
        queries: Tensor,
        tokenizer: PreTrainedTokenizerBase,
        decoder: PreTrainedModel,
    ) -> None:
        super().__init__()
        check_attention(decoder, config.decoder.max_positions)
        self.config, self.inputs, self.tokenizer = config, inputs, tokenizer
        self.extractor = RegionExtractor(config, queries, inputs.patches, inputs.patch_width)
        self.classifier = DiseaseClassifier(config.extractor_width)
        self.projector = _projector(config.extractor_width, decoder)
        self.decoder = decoder

    @property
    def hidden_size(self) -> int:
        """Width H of the decoder and of the visual tokens."""
        return token_embedding(self.decoder).embedding_dim

    def visual(self, features: StudyFeatures) -> Visual:
        """Visual tokens, disease logits and region heat maps of B studies.

        Raises:
            FeatureError: ``feature_shape`` when the features are not of the model's own encoder and image size.
        """
        if features.patches.shape[2:] != (self.inputs.patches, self.inputs.patch_width):
            raise FeatureError(
                "feature_shape",
                f"patches of shape {tuple(features.patches.shape[2:])}, but the model was built for "
                f"{self.inputs.encoder_version} with {(self.inputs.patches, self.inputs.patch_width)}",
            )
        regions, overall, attention = self.extractor(
            features.patches, features.views, features.view_mask
        )
        tokens = self.projector(torch.cat([regions, overall[:, None]], dim=1))
        return Visual(tokens, self.classifier(regions, overall), attention)

    def prompt_embeddings(
        self, visual_tokens: Tensor, prompt_ids: Sequence[Sequence[int]]
    ) -> list[Tensor]:
        """Visual tokens [B, 30, H] followed by the embedded prompt: B tensors [30 + len(ids), H], unpadded."""
        lengths = [len(ids) for ids in prompt_ids]
        flat = torch.tensor(
            [i for ids in prompt_ids for i in ids], dtype=torch.long, device=visual_tokens.device
        )
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
        """Teacher-forced logits: ``logits[:, t]`` predicts ``report_ids[:, t]``.

        ``report_ids`` [B, T] is right-padded, ``report_mask`` bool [B, T] says where it counts; ids elsewhere are
        ignored whatever they are. No result depends on the padding or on the other rows of the batch.
        """
        visual = self.visual(features)
        rows = self.prompt_embeddings(visual.tokens, prompts)
        prompt_length, width = max(len(row) for row in rows), report_ids.shape[1]
        padding = [prompt_length - len(row) for row in rows]
        prompt = torch.stack(
            [F.pad(row, (0, 0, before, 0)) for row, before in zip(rows, padding, strict=True)]
        )
        safe_ids = torch.where(report_mask, report_ids, self.tokenizer.pad_token_id)
        report = token_embedding(self.decoder)(safe_ids[:, :-1])
        attention, positions = _attention(padding, prompt_length + width - 1, report_ids.device)
        places = torch.arange(
            prompt_length - 1, prompt_length - 1 + width, device=report_ids.device
        )
        out = self.decoder(
            inputs_embeds=torch.cat([prompt, report], dim=1),
            attention_mask=attention,
            position_ids=positions,
            use_cache=False,
            output_hidden_states=True,
            logits_to_keep=places,
        )
        return ReportForward(
            out.logits, out.hidden_states[-1][:, places], visual.disease_logits, visual.attention
        )

    forward = report_logits


def build_generator(
    config: ModelConfig,
    data: DataConfig,
    training_reports: Sequence[str],
    tokenizer: PreTrainedTokenizerBase | None = None,
    *,
    seed: int,
) -> ReportGenerator:
    """A new model: region queries from their descriptions, extractor and heads at random, and the decoder.

    Without a ``tokenizer``, :func:`~lmrrg.model.decoder.build_tokenizer` makes one of ``training_reports`` (a
    pretrained decoder brings its own). Random weights depend on ``seed`` alone.
    """
    inputs = VisualInputs.of(data.image_size, data.max_views)
    queries = region_queries(config.text_encoder, config.regions_file, data.cache_dir)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        words = tokenizer or build_tokenizer(config, training_reports)
        return ReportGenerator(config, inputs, queries, words, build_decoder(config.decoder, words))


def _projector(width: int, decoder: PreTrainedModel) -> nn.Sequential:
    """Region width to decoder width, ending at the scale of the decoder's own token embeddings."""
    embedding = token_embedding(decoder)
    hidden = embedding.embedding_dim
    norm = nn.LayerNorm(hidden)
    nn.init.constant_(norm.weight, float(embedding.weight.detach().float().std()))
    return nn.Sequential(nn.Linear(width, hidden), nn.GELU(), nn.Linear(hidden, hidden), norm)


def _attention(
    padding: list[int], length: int, device: torch.device
) -> tuple[Tensor | None, Tensor]:
    """Mask bool [B, 1, L, L] and positions [B, L] for rows that start with ``padding`` [B] unused places.

    Without left padding the mask is ``None``: causal attention alone hides the right padding, and is faster. Every
    place may attend to itself, so that no row of the softmax is empty.
    """
    place = torch.arange(length, device=device)
    before = torch.tensor(padding, device=device)[:, None]
    positions = (place - before).clamp_min(0)
    if not any(padding):
        return None, positions
    causal = place[:, None] >= place
    used = place >= before
    own = place[:, None] == place
    return ((causal & used[:, None]) | own)[:, None], positions
