"""New weights for a vLLM model that is running on CPU, layer by layer and without a detour."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DIRECT_MODELS = ("LlamaForCausalLM", "Qwen2ForCausalLM")
"""Models of vLLM whose weights lie as Hugging Face's do, but for projections that are joined along their rows."""


@dataclass(frozen=True)
class _Target:
    """A parameter of vLLM's model and the names of the weights that it is made of, joined along the rows."""

    layer: Any
    parameter: str
    sources: tuple[str, ...]

    def load(self, state: Mapping[str, Tensor]) -> None:
        held = getattr(self.layer, self.parameter)
        parts = [state[name] for name in self.sources]
        new = (parts[0] if len(parts) == 1 else torch.cat(parts)).to(held.dtype)
        if held.numel():
            held[: len(new)].copy_(new)  # vLLM pads the vocabulary
        else:  # a linear layer keeps its weight in oneDNN's order alone
            setattr(self.layer, self.parameter, nn.Parameter(new, requires_grad=False))
        if self.parameter == "weight" and hasattr(self.layer, "cpu_linear"):
            self.layer.quant_method.process_weights_after_loading(self.layer)


class DirectLoader:
    """Loads states straight into the layers, where ``reload_weights`` of vLLM first takes every layer apart and builds
    it anew: on a small decoder that costs several times the work itself (ours).

    What is left is one pass of oneDNN over the linear layers, which orders the weights for its kernels.
    """

    def __init__(self, targets: list[_Target]):
        self._targets = targets

    @classmethod
    def of(cls, model: Any, names: set[str]) -> DirectLoader | None:
        """The loader of a vLLM model for states of exactly ``names`` (Hugging Face's, ``lm_head.weight`` included).

        None where it is not known to fit: another architecture, another device than the CPU, names that do not match.
        """
        on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
        if type(model).__name__ not in DIRECT_MODELS or not on_cpu:
            return None
        targets = [
            _Target(layer, parameter, _sources(model.packed_modules_mapping, place, parameter))
            for place, layer in model.named_modules()
            for parameter, _ in layer.named_parameters(recurse=False)
        ]
        used = {name for target in targets for name in target.sources}
        unused = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
        return cls(targets) if used | unused == names else None

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace all weights; the tensors of ``state`` are not kept."""
        for target in self._targets:
            target.load(state)


def _sources(joined: Mapping[str, list[str]], place: str, parameter: str) -> tuple[str, ...]:
    parent, _, layer = place.rpartition(".")
    return tuple(
        ".".join(filter(None, (parent, part, parameter))) for part in joined.get(layer, [layer])
    )
