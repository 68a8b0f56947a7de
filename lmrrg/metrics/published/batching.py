"""Run texts through an encoder in batches of similar length.

Padding then costs little, and it is masked, so it changes nothing.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import torch
from torch import Tensor, nn


class PackedLinear(nn.Module):
    """A linear layer for inference on a CPU with weights in the memory layout of oneDNN's kernel.

    The products are those of ``nn.Linear`` in float32, up to rounding. They are faster, because
    ``nn.Linear`` lets MKL rearrange the weights in every call.
    """

    def __init__(self, layer: nn.Linear):
        super().__init__()
        self.bias = layer.bias
        self._packed = torch.ops.mkldnn._reorder_linear_weight(layer.weight.detach(), None)

    def forward(self, states: Tensor) -> Tensor:
        """Return the layer's output: [..., in] to [..., out]."""
        return torch.ops.mkldnn._linear_pointwise(states, self._packed, self.bias, "none", [], "")


def ready(module: nn.Module, device: torch.device) -> None:
    """Put a module into evaluation mode, on the device, without gradients."""
    module.to(device).eval().requires_grad_(False)


def pack(module: nn.Module) -> None:
    """Replace the linear layers inside an encoder by :class:`PackedLinear`, on a CPU with oneDNN.

    Elsewhere nothing changes.
    """
    on_cpu = all(parameter.device.type == "cpu" for parameter in module.parameters())
    if not (on_cpu and torch.backends.mkldnn.is_available()):
        return
    for parent in list(module.modules()):
        for name, layer in parent.named_children():
            # Exactly nn.Linear: a subclass may compute something else.
            if type(layer) is nn.Linear:
                setattr(parent, name, PackedLinear(layer))


def length_batches(lengths: Sequence[int], budget: int) -> list[list[int]]:
    """Group rows of similar length, so that rows x longest stays within ``budget`` tokens.

    A batch has at least one row, however long it is.

    >>> length_batches([3, 100, 5, 3], budget=12)
    [[0, 3], [2], [1]]
    """
    batches: list[list[int]] = []
    for row in sorted(range(len(lengths)), key=lambda row: (lengths[row], row)):
        # Lengths ascend, so this row would be the longest of the batch.
        if batches and (len(batches[-1]) + 1) * lengths[row] <= budget:
            batches[-1].append(row)
        else:
            batches.append([row])
    return batches


def encode(
    encoder: nn.Module, sequences: Sequence[Sequence[int]], *, padding: int, budget: int
) -> Iterator[tuple[int, Tensor]]:
    """Run token ids through a Hugging Face encoder.

    Yields (row, last hidden states [T, H]), the rows in any order.
    """
    device = next(encoder.parameters()).device
    for rows in length_batches([len(ids) for ids in sequences], budget):
        longest = max(len(sequences[row]) for row in rows)
        ids = torch.full((len(rows), longest), padding, dtype=torch.long)
        mask = torch.zeros((len(rows), longest), dtype=torch.long)
        for line, row in enumerate(rows):
            ids[line, : len(sequences[row])] = torch.as_tensor(sequences[row])
            mask[line, : len(sequences[row])] = 1
        hidden = encoder(input_ids=ids.to(device), attention_mask=mask.to(device)).last_hidden_state
        for line, row in enumerate(rows):
            yield row, hidden[line, : len(sequences[row])]
