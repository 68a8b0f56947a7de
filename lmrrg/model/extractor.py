"""Extract region features: region queries attend to the patches of all views (paper section 3.1).

Tensor dimensions: B studies, V views, P patches of a view, C channels of a patch, R regions (29),
D the extractor's width.
"""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from lmrrg.config.model import ModelConfig
from lmrrg.views import VIEWS
from lmrrg.vision.study_features import StudyFeatures


class Attention(nn.Module):
    """Multi-head attention that also returns its weights, for the heat maps; keys can be masked."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.heads = heads
        self.dropout = dropout
        self.query = nn.Linear(width, width)
        self.key_value = nn.Linear(width, 2 * width)
        self.out = nn.Linear(width, width)

    def forward(
        self, queries: Tensor, source: Tensor, mask: Tensor | None = None
    ) -> tuple[Tensor, Tensor]:
        """Attend from queries [B, N, D] to source [B, M, D] where ``mask``, bool [B, M], is True.

        Returns:
            Output [B, N, D], and weights [B, N, M], the mean over the heads.
        """
        q = self._split(self.query(queries))
        k, v = (self._split(part) for part in self.key_value(source).chunk(2, dim=-1))
        scores = q @ k.transpose(-1, -2) / math.sqrt(q.shape[-1])
        if mask is not None:
            # The smallest number, not -inf: a row without any key would become NaN.
            scores = torch.where(mask[:, None, None], scores, torch.finfo(scores.dtype).min)
        weights = scores.softmax(dim=-1)
        mixed = F.dropout(weights, self.dropout, self.training) @ v
        return self.out(mixed.transpose(1, 2).flatten(2)), weights.mean(dim=1)

    def _split(self, x: Tensor) -> Tensor:
        """Reshape [B, N, D] to [B, heads, N, D / heads]."""
        return x.unflatten(-1, (self.heads, -1)).transpose(1, 2)


class ExtractorBlock(nn.Module):
    """Self-attention of the regions, cross-attention to the patches, FFN; pre-norm (**ours**)."""

    def __init__(self, width: int, heads: int, dropout: float) -> None:
        super().__init__()
        self.norms = nn.ModuleList(nn.LayerNorm(width) for _ in range(3))
        self.among = Attention(width, heads, dropout)
        self.across = Attention(width, heads, dropout)
        self.ffn = nn.Sequential(
            nn.Linear(width, 4 * width), nn.GELU(), nn.Linear(4 * width, width)
        )
        self.drop = nn.Dropout(dropout)

    def forward(self, regions: Tensor, patches: Tensor, mask: Tensor) -> tuple[Tensor, Tensor]:
        """Update regions [B, R, D] from patches [B, V*P, D] where ``mask``, bool [B, V*P], is True.

        Returns:
            Regions [B, R, D] and cross-attention [B, R, V*P].
        """
        x = self.norms[0](regions)
        regions = regions + self.drop(self.among(x, x)[0])
        read, weights = self.across(self.norms[1](regions), patches, mask)
        regions = regions + self.drop(read)
        return regions + self.drop(self.ffn(self.norms[2](regions))), weights


class RegionExtractor(nn.Module):
    """Region features and one global feature from the patches of a study's views.

    ``queries`` [R, Q] are the text vectors of the region descriptions. As in the paper they stay
    frozen, and their projection is learned. ``calibrate`` fixes the scale of the frozen image
    features once.
    """

    query_vectors: Tensor
    feature_mean: Tensor
    feature_scale: Tensor

    def __init__(
        self, config: ModelConfig, queries: Tensor, patches: int, patch_width: int
    ) -> None:
        super().__init__()
        width = config.extractor_width
        dropout = config.extractor_dropout
        self.patches = patches
        self.patch_width = patch_width
        # Buffers: part of the checkpoint, but never trained.
        self.register_buffer("query_vectors", _spread(queries))
        self.register_buffer("feature_mean", torch.zeros(patch_width))
        self.register_buffer("feature_scale", torch.ones(patch_width))
        self.query_in = nn.Linear(queries.shape[1], width)
        self.patch_in = nn.Linear(patch_width, width)
        self.position = nn.Embedding(patches, width)
        self.view = nn.Embedding(len(VIEWS), width)
        self.patch_norm = nn.LayerNorm(width)
        self.patch_drop = nn.Dropout(dropout)
        self.blocks = nn.ModuleList(
            ExtractorBlock(width, config.extractor_heads, dropout)
            for _ in range(config.extractor_blocks)
        )
        self.region_norm = nn.LayerNorm(width)
        self.global_out = nn.Sequential(
            nn.Linear(width, width), nn.GELU(), nn.Linear(width, width), nn.LayerNorm(width)
        )

    @torch.no_grad()
    def calibrate(self, features: StudyFeatures) -> None:
        """Set mean and scale of every channel from the unmasked patches of training studies."""
        values = features.patches[features.view_mask].float().flatten(0, -2)
        self.feature_mean.copy_(values.mean(0))
        self.feature_scale.copy_(values.std(0).clamp_min(1e-4))  # some channels never vary

    def forward(
        self, patches: Tensor, views: Tensor, view_mask: Tensor
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Extract features from the tensors of :class:`StudyFeatures`.

        Returns:
            Regions [B, R, D], the global feature [B, D], and attention [B, R, V, P]: the last
            block's cross-attention, which for each region sums to 1 over all views and patches.
        """
        batch, n_views, n_patches, _ = patches.shape
        memory = self._embed(patches, views, view_mask)
        mask = view_mask.repeat_interleave(n_patches, dim=1)
        regions = self.query_in(self.query_vectors.to(memory.dtype)).expand(batch, -1, -1)
        for block in self.blocks:
            regions, weights = block(regions, memory, mask)
        mean = torch.where(mask[..., None], memory, 0.0).sum(1) / mask.sum(1, keepdim=True)
        return (
            self.region_norm(regions),
            self.global_out(mean),
            weights.unflatten(-1, (n_views, n_patches)),
        )

    def _embed(self, patches: Tensor, views: Tensor, view_mask: Tensor) -> Tensor:
        """Embed patches [B, V, P, C] as [B, V*P, D]."""
        # Zeros replace what a masked view holds before it meets a weight: NaN times 0 stays NaN.
        clean = torch.where(view_mask[..., None, None], patches, 0.0).to(self.patch_in.weight.dtype)
        standard = (clean - self.feature_mean) / self.feature_scale
        positions = self.position(torch.arange(self.patches, device=patches.device))
        embedded = self.patch_in(standard) + positions + self.view(views)[:, :, None]
        return self.patch_drop(self.patch_norm(embedded)).flatten(1, 2)


def _spread(queries: Tensor) -> Tensor:
    """Centre the text vectors [R, Q] and scale them to unit variance.

    The vectors of similar sentences lie close together; without their mean they differ more.
    """
    centred = queries - queries.mean(0)
    return centred / centred.std().clamp_min(1e-6)
