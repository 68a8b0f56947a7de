"""One forward for several reports of the same study, without a single padded position.

The samples of a study share images and instruction. All prompts and all reports of a batch lie end to end in one row;
only attention sees them apart: a prompt itself, a report its study's prompt and itself, at the positions it would have
alone. Results equal those of separate rows while a prompt is computed once (ours).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn.functional import scaled_dot_product_attention
from transformers import AttentionInterface, PreTrainedModel

from lmrrg.ppo.errors import PPOError

_ATTENTION = "lmrrg_shared_prompt"
_OTHER_FORMULAS = ("softcap", "s_aux", "position_bias")
"""What some decoders ask of their attention beyond the softmax of products."""


@dataclass(frozen=True)
class Layout:
    """Who is who among N positions: G prompts of at most P tokens, B reports of at most T inputs.

    ``prompt`` long [G, P] and ``report`` long [B, T] are positions in the row, 0 in the padding; ``group`` long [B] is
    each report's prompt; ``visible`` bool [B, 1, T, P + T] says what a report's inputs attend to; ``back`` long [N]
    finds the row's positions among prompts [G * P] and reports [B * T], in this order.
    """

    prompt: Tensor
    report: Tensor
    group: Tensor
    visible: Tensor
    back: Tensor


@dataclass(frozen=True)
class Packed:
    """A row of N inputs, and the positions that predict the M valid report tokens.

    ``embeddings`` [1, N, H], ``positions`` long [1, N] and ``predicts`` long [M], in row-major order of the mask.
    """

    embeddings: Tensor
    positions: Tensor
    layout: Layout
    predicts: Tensor


def pack(prompts: Sequence[Tensor], tokens: Tensor, mask: Tensor, group: Tensor) -> Packed:
    """Lay out prompts and reports end to end.

    The last token of a report predicts nothing that is asked for and is left out.

    Args:
        prompts: embeddings of each group's prompt, G tensors [P_g, H].
        tokens: embeddings of the report tokens [B, T, H].
        mask: bool [B, T], right-padded.
        group: long [B], group of each report.
    """
    device = tokens.device
    widths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    asked = torch.arange(int(widths.max()), device=device) < widths[:, None]
    told = mask[:, 1:]
    prompt, report = _places(asked, 0), _places(told, int(widths.sum()))
    steps = torch.arange(told.shape[1], device=device)
    last = prompt[torch.arange(len(prompts), device=device), widths - 1]
    own = (steps[:, None] >= steps).expand(len(mask), -1, -1)
    seen = asked[group][:, None].expand(-1, len(steps), -1)
    of_prompts = torch.arange(asked.shape[1], device=device).expand_as(asked)
    of_reports = widths[group][:, None] + steps
    return Packed(
        embeddings=torch.cat([*prompts, tokens[:, :-1][told]])[None],
        positions=torch.cat([of_prompts[asked], of_reports[told]])[None],
        layout=Layout(
            prompt=prompt,
            report=report,
            group=group,
            visible=torch.cat([seen, own], dim=2)[:, None],
            back=torch.cat([asked.flatten(), told.flatten()]).nonzero()[:, 0],
        ),
        predicts=torch.cat([last[group][:, None], report], dim=1)[mask],
    )


@contextmanager
def packed_attention(decoder: PreTrainedModel) -> Iterator[None]:
    """Inside the block the decoder takes :class:`Packed` rows, with ``layout=`` among its arguments."""
    usual = decoder.config._attn_implementation
    decoder.config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        decoder.config._attn_implementation = usual


def _places(valid: Tensor, start: int) -> Tensor:
    """Number the valid places row by row from ``start``; 0 in the padding, which nobody looks at."""
    numbers = torch.arange(start, start + int(valid.sum()), device=valid.device)
    return torch.zeros_like(valid, dtype=torch.long).masked_scatter(valid, numbers)


def _attend(
    module: nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    layout: Layout,
    scaling: float | None = None,
    **unused: Any,
) -> tuple[Tensor, None]:
    """Attention of a packed row, as transformers calls it: heads [1, h, N, d] to [1, N, h, d].

    Raises:
        PPOError: ``decoder_attention`` when the decoder's attention is of a kind that would silently be another here.
    """
    if any(unused.get(name) is not None for name in _OTHER_FORMULAS):
        raise PPOError(
            "decoder_attention",
            f"{type(module).__name__} asks for one of {', '.join(_OTHER_FORMULAS)}",
        )
    if (window := unused.get("sliding_window")) and window < layout.visible.shape[-1]:
        raise PPOError(
            "decoder_attention",
            f"the decoder sees {window} tokens, fewer than prompt and report have",
        )
    groups = query.shape[1] // key.shape[1]
    query, key, value = (
        query[0],
        *(each[0, :, None].expand(-1, groups, -1, -1).flatten(0, 1) for each in (key, value)),
    )

    def at(heads: Tensor, places: Tensor) -> Tensor:
        return heads.index_select(1, places.flatten()).unflatten(1, places.shape).transpose(0, 1)

    keys, values = at(key, layout.prompt), at(value, layout.prompt)
    steps = torch.arange(layout.prompt.shape[1], device=query.device)
    parts = [_mixed(at(query, layout.prompt), keys, values, steps[:, None] >= steps, scaling)]
    if layout.report.shape[1]:
        keys = torch.cat([keys.index_select(0, layout.group), at(key, layout.report)], dim=2)
        values = torch.cat([values.index_select(0, layout.group), at(value, layout.report)], dim=2)
        parts.append(_mixed(at(query, layout.report), keys, values, layout.visible, scaling))
    rows = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])
    return rows.index_select(0, layout.back)[None], None


def _mixed(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scaling: float | None
) -> Tensor:
    """Values mixed by attention, [B, h, T, d]; ``visible`` bool says where each of T queries looks.

    On CPU as the formula has it: with prompts and reports of a hundred tokens torch's fused kernel takes longer there,
    in bfloat16 three times as long with its backward.
    """
    if query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scaling)
    scaled = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    hidden = torch.zeros(visible.shape, dtype=torch.float32).masked_fill_(~visible, -torch.inf)
    return (scaled @ key.transpose(-1, -2) + hidden).softmax(dim=-1) @ value


AttentionInterface.register(_ATTENTION, _attend)
