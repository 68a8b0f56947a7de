"""Load new weights into a vLLM model that is running on CPU, straight into its layers."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

DIRECT_MODELS = ("LlamaForCausalLM", "Qwen2ForCausalLM")
"""Models of vLLM whose weights have Hugging Face's layout, except that some projections are joined
along their rows."""


@dataclass(frozen=True)
class _Target:
    """A parameter of vLLM's model, and the weights whose rows are joined in it."""

    layer: Any
    parameter: str
    sources: tuple[str, ...]

    def load(self, state: Mapping[str, Tensor]) -> None:
        held = getattr(self.layer, self.parameter)
        parts = [state[name] for name in self.sources]
        new = (parts[0] if len(parts) == 1 else torch.cat(parts)).to(held.dtype)
        if held.numel():
            # Only the first rows: vLLM pads the vocabulary.
            held[: len(new)].copy_(new)
        else:
            # A linear layer keeps its weight in oneDNN's order alone.
            setattr(self.layer, self.parameter, nn.Parameter(new, requires_grad=False))
        if self.parameter == "weight" and hasattr(self.layer, "cpu_linear"):
            self.layer.quant_method.process_weights_after_loading(self.layer)


class DirectLoader:
    """Load states straight into the layers of a vLLM model.

    vLLM's ``reload_weights`` takes every layer apart and builds it anew. On a small decoder that
    costs several times the work itself (ours). Here only one pass of oneDNN over the linear layers
    is left, which orders the weights for its kernels.
    """

    def __init__(self, targets: list[_Target]):
        self._targets = targets

    @classmethod
    def of(cls, model: Any, names: set[str]) -> DirectLoader | None:
        """Return the loader of a vLLM model; None where it is not known to fit.

        It does not fit another architecture, another device than the CPU, or other names.

        Args:
            model: vLLM's.
            names: of the weights in every state; Hugging Face's, ``lm_head.weight`` included.
        """
        on_cpu = all(parameter.device.type == "cpu" for parameter in model.parameters())
        if type(model).__name__ not in DIRECT_MODELS or not on_cpu:
            return None
        targets: list[_Target] = []
        used: set[str] = set()
        for path, layer in model.named_modules():
            for parameter, _ in layer.named_parameters(recurse=False):
                sources = _sources(model.packed_modules_mapping, path, parameter)
                targets.append(_Target(layer, parameter, sources))
                used.update(sources)
        # With tied embeddings vLLM has no output layer of its own.
        unused = {"lm_head.weight"} if model.config.tie_word_embeddings else set()
        return cls(targets) if used | unused == names else None

    @torch.no_grad()
    def load(self, state: Mapping[str, Tensor]) -> None:
        """Replace all weights with copies of those in ``state``."""
        for target in self._targets:
            target.load(state)


def _sources(joined: Mapping[str, list[str]], path: str, parameter: str) -> tuple[str, ...]:
    """Return Hugging Face's names of the weights in a parameter of the layer at ``path``."""
    parent, _, layer = path.rpartition(".")
    names = [(parent, part, parameter) for part in joined.get(layer, [layer])]
    # A layer at the top of the model has no parent.
    return tuple(".".join(filter(None, name)) for name in names)
