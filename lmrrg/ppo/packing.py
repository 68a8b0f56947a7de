"""One forward for several reports of the same study.

The samples of a study share images and instruction. A group is laid out as [prompt][report 1][report 2]...: each
report sees the prompt and itself, at the positions it would have alone, so results equal those of separate rows while
the prompt is computed once (ours).
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn.utils.rnn import pad_sequence


@dataclass(frozen=True)
class Packed:
    """G groups of at most L input positions, and where the N valid report tokens are predicted.

    ``embeddings`` [G, L, H]; ``positions`` long [G, L]; ``attention`` additive [G, 1, L, L], or None where plain causal
    attention does the same (one report per group: the padding is last and nothing looks ahead). ``group`` and
    ``column`` long [N] locate the hidden state that predicts each valid token, in row-major order of the mask.
    """

    embeddings: Tensor
    positions: Tensor
    attention: Tensor | None
    group: Tensor
    column: Tensor

    @property
    def first_column(self) -> int:
        """No column before this one is ever read."""
        return int(self.column.min())


def pack(prompts: Sequence[Tensor], tokens: Tensor, mask: Tensor, group: Tensor) -> Packed:
    """Lay out reports behind their prompts.

    The last token of a report predicts nothing that is asked for and is left out.

    Args:
        prompts: embeddings of each group's prompt, G tensors [P_g, H].
        tokens: embeddings of the report tokens [B, T, H].
        mask: bool [B, T], right-padded.
        group: long [B], group of each report.
    """
    lengths, owner = mask.sum(dim=1).tolist(), group.tolist()
    members: list[list[int]] = [[] for _ in prompts]
    for row, where in enumerate(owner):
        members[where].append(row)
    starts = [0] * len(lengths)
    pieces, positions, segments = [], [], []
    for prompt, rows in zip(prompts, members, strict=True):
        width = len(prompt)
        parts, places, labels = [prompt], [torch.arange(width)], [torch.zeros(width, dtype=torch.long)]
        for label, row in enumerate(rows, start=1):
            inputs = max(lengths[row] - 1, 0)
            starts[row] = sum(len(part) for part in parts)
            parts.append(tokens[row, :inputs])
            places.append(torch.arange(width, width + inputs))
            labels.append(torch.full((inputs,), label))
        pieces.append(torch.cat(parts))
        positions.append(torch.cat(places))
        segments.append(torch.cat(labels))
    embeddings = pad_sequence(pieces, batch_first=True)
    widths = torch.tensor([len(prompt) for prompt in prompts])
    owners, steps = mask.cpu().nonzero(as_tuple=True)
    column = torch.where(steps == 0, widths[group.cpu()[owners]] - 1, torch.tensor(starts)[owners] + steps - 1)
    device = tokens.device
    attention = None
    if max(len(rows) for rows in members) > 1:
        attention = _additive(pad_sequence(segments, batch_first=True, padding_value=-1), embeddings)
    return Packed(
        embeddings, _pad_positions(positions).to(device), attention, group.cpu()[owners].to(device), column.to(device)
    )


def _pad_positions(positions: list[Tensor]) -> Tensor:
    """Padding goes on counting: a position that falls back to 0 would be taken for the start of another sequence."""
    length = max(len(row) for row in positions)
    return torch.stack([torch.cat([row, row[-1] + 1 + torch.arange(length - len(row))]) for row in positions])


def _additive(segments: Tensor, like: Tensor) -> Tensor:
    """0 where a position (row) may look, the lowest number elsewhere: causal, at the prompt or its own report."""
    allowed = (segments[:, None, :] == 0) | (segments[:, None, :] == segments[:, :, None])
    allowed &= torch.ones(segments.shape[1], segments.shape[1], dtype=torch.bool).tril()
    lowest = torch.finfo(like.dtype).min
    return torch.where(allowed, 0.0, lowest).to(like.dtype)[:, None].to(like.device)
