"""True batches of texts of similar length through an encoder, so that padding costs little and changes nothing."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer for inference on a CPU whose weights are laid out once as oneDNN's kernel reads them.

    The same float32 products as ``nn.Linear`` (which lets MKL lay the weights out in every call), to rounding.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.bias = layer.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)

    def forward(self, states: Tensor) -> Tensor:
        """[..., in] to [..., out]."""
        return torch.ops.mkldnn._linear_pointwise(states, self._packed, self.bias, "none", [], "")


def ready(module: nn.Module, device: torch.device) -> None:
    """Evaluation mode, on the device; without gradients."""
    module.to(device).eval().requires_grad_(False)


def pack(module: nn.Module) -> None:
    """Replace the linear layers inside an encoder on a CPU; elsewhere, or without oneDNN, nothing changes."""
    on_cpu = all(parameter.device.type == "cpu" for parameter in module.parameters())
    if not (on_cpu and torch.backends.mkldnn.is_available()):
        return
    for parent in list(module.modules()):
        for name, layer in parent.named_children():
            if type(layer) is nn.Linear:
                setattr(parent, name, PackedLinear(layer))


def length_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Rows grouped by similar length, so that rows x longest stays within ``budget`` tokens (one row at least)."""
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        # lengths ascend, so this row would be the longest of the batch
        if batches and (len(batches[-1]) + 1) * lengths[row] <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def encode(
    encoder: nn.Module, sequences: Sequence[Sequence[int]], *, padding: int, budget: int
) -> Iterator[tuple[int, Tensor]]:
    """Run token ids through a Hugging Face encoder; yields (row, last hidden states [T, H]) in any order."""
    device = next(encoder.parameters()).device
    for rows in length_batches([len(ids) for ids in sequences], budget):
        longest = max(len(sequences[row]) for row in rows)
        ids = torch.full((len(rows), longest), padding, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for place, row in enumerate(rows):
            ids[place, : len(sequences[row])] = torch.as_tensor(sequences[row])
            mask[place, : len(sequences[row])] = 1
        hidden = encoder(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        for place, row in enumerate(rows):
            yield row, hidden[place, : len(sequences[row])]
