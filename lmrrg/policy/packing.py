"""One forward for several reports of the same study, without a single padded position.

The samples of a study share images and instruction. All prompts and all reports of a batch are laid
end to end in one row. Only attention takes them apart: a prompt attends to itself, a report to the
prompt of its study and to itself, at the positions that it would have alone. Results equal those of
separate rows, while each prompt is computed once (ours).
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
"""Arguments by which some decoders ask for more than the softmax of scaled products."""


@dataclass(frozen=True)
class Layout:
    """Where G prompts of at most P tokens, and B reports of at most T inputs, lie in a row of N."""

    prompt: Tensor
    """Positions of each prompt in the row, long [G, P], 0 in the padding."""
    report: Tensor
    """Positions of each report in the row, long [B, T], 0 in the padding."""
    group: Tensor
    """The prompt of each report, long [B]."""
    visible: Tensor
    """Inputs of prompt and report that each input of a report attends to, bool [B, 1, T, P + T]."""
    back: Tensor
    """Index of each row position among prompts [G * P] and then reports [B * T], long [N]."""


@dataclass(frozen=True)
class Packed:
    """A row of N inputs of the decoder."""

    embeddings: Tensor
    """[1, N, H]."""
    positions: Tensor
    """Position of each input in its own sequence, long [1, N]."""
    layout: Layout
    predicts: Tensor
    """Row positions that predict the M valid report tokens, in row-major order of the mask, long
    [M]."""


def pack(prompts: Sequence[Tensor], tokens: Tensor, mask: Tensor, group: Tensor) -> Packed:
    """Lay out prompts and reports end to end.

    The last token of a report is left out, since what it predicts is not wanted.

    Args:
        prompts: embeddings of each group's prompt, G tensors [P_g, H].
        tokens: embeddings of the report tokens [B, T, H].
        mask: bool [B, T], right-padded.
        group: long [B], group of each report.
    """
    device = tokens.device
    widths = torch.tensor([len(prompt) for prompt in prompts], device=device)
    is_prompt = torch.arange(int(widths.max()), device=device) < widths[:, None]  # [G, P]
    is_input = mask[:, 1:]  # [B, T]: a token is an input where another one follows it
    prompt = _number(is_prompt, 0)
    report = _number(is_input, int(widths.sum()))
    steps = torch.arange(is_input.shape[1], device=device)
    # The first token of a report is predicted by the last position of its prompt.
    last = prompt[torch.arange(len(prompts), device=device), widths - 1]
    # A report attends to all of its prompt, and causally to itself.
    sees_prompt = is_prompt[group][:, None].expand(-1, len(steps), -1)
    sees_report = (steps[:, None] >= steps).expand(len(mask), -1, -1)
    prompt_positions = torch.arange(is_prompt.shape[1], device=device).expand_as(is_prompt)
    report_positions = widths[group][:, None] + steps
    return Packed(
        embeddings=torch.cat([*prompts, tokens[:, :-1][is_input]])[None],
        positions=torch.cat([prompt_positions[is_prompt], report_positions[is_input]])[None],
        layout=Layout(
            prompt=prompt,
            report=report,
            group=group,
            visible=torch.cat([sees_prompt, sees_report], dim=2)[:, None],
            back=torch.cat([is_prompt.flatten(), is_input.flatten()]).nonzero()[:, 0],
        ),
        predicts=torch.cat([last[group][:, None], report], dim=1)[mask],
    )


@contextmanager
def packed_attention(decoder: PreTrainedModel) -> Iterator[None]:
    """Let the decoder take :class:`Packed` rows inside the block, with the argument ``layout=``."""
    usual = decoder.config._attn_implementation
    decoder.config._attn_implementation = _ATTENTION
    try:
        yield
    finally:
        decoder.config._attn_implementation = usual


def _number(valid: Tensor, start: int) -> Tensor:
    """Number the valid entries row by row from ``start``; 0 in the padding, which is never used."""
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
    """Compute the attention of a packed row, with heads [1, h, N, d], as [1, N, h, d].

    The signature is that by which transformers calls attention functions.

    Raises:
        PPOError: ``decoder_attention`` when the decoder asks for a kind of attention that would be
            computed wrongly here.
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
    heads_per_key = query.shape[1] // key.shape[1]
    query = query[0]
    key = _repeat_heads(key[0], heads_per_key)
    value = _repeat_heads(value[0], heads_per_key)
    prompt_keys = _gather(key, layout.prompt)
    prompt_values = _gather(value, layout.prompt)
    steps = torch.arange(layout.prompt.shape[1], device=query.device)
    is_causal = steps[:, None] >= steps
    of_prompts = _mixed(
        _gather(query, layout.prompt), prompt_keys, prompt_values, is_causal, scaling
    )
    parts = [of_prompts]
    if layout.report.shape[1]:  # else every report has one token, and none is an input
        keys = [prompt_keys.index_select(0, layout.group), _gather(key, layout.report)]
        values = [prompt_values.index_select(0, layout.group), _gather(value, layout.report)]
        of_reports = _mixed(
            _gather(query, layout.report),
            torch.cat(keys, dim=2),
            torch.cat(values, dim=2),
            layout.visible,
            scaling,
        )
        parts.append(of_reports)
    rows = torch.cat([part.transpose(1, 2).flatten(0, 1) for part in parts])
    return rows.index_select(0, layout.back)[None], None


def _repeat_heads(heads: Tensor, times: int) -> Tensor:
    """Return every head [h, N, d] ``times`` times in a row: query heads may share their keys."""
    return heads[:, None].expand(-1, times, -1, -1).flatten(0, 1)


def _gather(heads: Tensor, places: Tensor) -> Tensor:
    """Return the positions ``places`` (long [B, T]) of heads [h, N, d], as [B, h, T, d]."""
    return heads.index_select(1, places.flatten()).unflatten(1, places.shape).transpose(0, 1)


def _mixed(
    query: Tensor, key: Tensor, value: Tensor, visible: Tensor, scaling: float | None
) -> Tensor:
    """Return values mixed by attention, [B, h, T, d].

    Args:
        query: [B, h, T, d].
        key: [B, h, K, d].
        value: [B, h, K, d].
        visible: which of the K keys each of the T queries attends to, bool.
        scaling: of the products; None: 1 / sqrt(d).
    """
    # On CPU the plain formula: with prompts and reports of a hundred tokens torch's fused kernel
    # takes longer there, in bfloat16 three times as long with its backward.
    if query.device.type != "cpu":
        return scaled_dot_product_attention(query, key, value, attn_mask=visible, scale=scaling)
    scaled = query * (query.shape[-1] ** -0.5 if scaling is None else scaling)
    hidden = torch.zeros(visible.shape, dtype=torch.float32).masked_fill_(~visible, -torch.inf)
    return (scaled @ key.transpose(-1, -2) + hidden).softmax(dim=-1) @ value


AttentionInterface.register(_ATTENTION, _attend)
