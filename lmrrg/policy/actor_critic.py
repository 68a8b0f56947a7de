"""The policy's forward: log-probs of sampled reports, and the value head on the decoder's hidden states."""

from __future__ import annotations

import copy
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple, cast

import torch
from safetensors.torch import load_file, save_file
from torch import Tensor, nn

from lmrrg.config.base import Precision
from lmrrg.model.generator import ReportGenerator
from lmrrg.model.precision import products_in
from lmrrg.policy.batches import Rollout
from lmrrg.policy.packing import pack, packed_attention
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.losses import token_entropy, token_log_probs

VALUE_HEAD_FILE = "value_head.safetensors"


class TokenOutputs(NamedTuple):
    """What the policy says of the tokens of B reports; every tensor is [B, T], 0 in the padding.

    A tuple, because DeepSpeed looks for tensors only in those when it hooks a module's outputs.
    """

    log_probs: Tensor
    values: Tensor
    """Expected return before each token, units of reward."""
    entropy: Tensor | None = None
    """Of the distribution that each token was drawn from, nats."""


@dataclass(frozen=True)
class TokenStates:
    """The decoder at the N valid tokens of a rollout: hidden states [N, H] that predict them, and the logits."""

    hidden: Tensor
    logits: Tensor | None
    """[N, V], where they were asked for."""


def token_states(
    generator: ReportGenerator, rollout: Rollout, precision: Precision, *, logits: bool = True
) -> TokenStates:
    """Run images, prompts and reports through the model; reports of one study share their prompt's computation."""
    with products_in(precision, rollout.ids.device), packed_attention(generator.decoder):
        visual = generator.visual(rollout.features)
        prompts = generator.prompt_embeddings(visual.tokens, rollout.prompts)
        tokens = generator.decoder.get_input_embeddings()(rollout.ids)
        packed = pack(prompts, tokens, rollout.mask, rollout.study)
        output = generator.decoder(
            inputs_embeds=packed.embeddings,
            position_ids=packed.positions,
            layout=packed.layout,
            use_cache=False,
            output_hidden_states=True,
            logits_to_keep=packed.predicts if logits else 1,
        )
    return TokenStates(
        hidden=output.hidden_states[-1][0, packed.predicts],
        logits=output.logits[0] if logits else None,
    )


def report_log_probs(
    generator: ReportGenerator, rollout: Rollout, precision: Precision = "fp32"
) -> Tensor:
    """Log-probs [B, T] of the sampled tokens, float32, 0 in the padding."""
    logits = cast(Tensor, token_states(generator, rollout, precision).logits)
    return spread(_log_probs(logits, rollout), rollout.mask)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Put N values at the N valid places of a mask [B, T]; 0 elsewhere."""
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(
        mask, values
    )


def _log_probs(logits: Tensor, rollout: Rollout) -> Tensor:
    return token_log_probs(logits[None], rollout.ids[rollout.mask][None])[0]


class ActorCritic(nn.Module):
    """The report generator and a linear value head on a decoder's last hidden states (ours).

    The head starts at 0, so that the first advantages are the rewards themselves. Evaluation mode is kept for good:
    with dropout the probability ratio would differ from 1 before any update.

    Args:
        generator: what in its decoder is trainable stays so: all of it, or its LoRA adapters.
        trainable: "decoder", or "all" for the visual half too.
        critic: what the head sits on. "shared": the policy's decoder, which the value loss trains too; "detached": the
            policy's decoder, out of reach of the value loss; "separate": a decoder of its own, at twice the cost.
        precision: of the generator's matrix products; weights, value head and outputs are float32 anyway.
    """

    def __init__(
        self,
        generator: ReportGenerator,
        trainable: str = "decoder",
        critic: str = "detached",
        precision: Precision = "fp32",
    ):
        super().__init__()
        self.generator, self._precision = generator, precision
        self.value_head = nn.Linear(generator.hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        if trainable == "decoder":
            for module in (generator.extractor, generator.projector, generator.classifier):
                module.requires_grad_(False)
        self.critic = copy.deepcopy(generator) if critic == "separate" else None
        self._detached = critic == "detached"
        self.eval()

    def forward(
        self, rollout: Rollout, *, entropy: bool = False, value_only: bool = False
    ) -> TokenOutputs:
        """Log-probs and values of the sampled tokens.

        Args:
            rollout: reports on the model's device.
            entropy: whether the entropy is wanted too.
            value_only: no gradient into the generator (warm-up of the value head).
        """
        with torch.set_grad_enabled(torch.is_grad_enabled() and not value_only):
            states = token_states(self.generator, rollout, self._precision)
            logits = cast(Tensor, states.logits)
            log_probs = spread(_log_probs(logits, rollout), rollout.mask)
            spreads = spread(token_entropy(logits), rollout.mask) if entropy else None
        return TokenOutputs(log_probs, self._values(states.hidden, rollout), spreads)

    def _values(self, hidden: Tensor, rollout: Rollout) -> Tensor:
        if self.critic is not None:
            hidden = token_states(self.critic, rollout, self._precision, logits=False).hidden
        elif self._detached:
            hidden = hidden.detach()
        return spread(self.value_head(hidden.float())[:, 0], rollout.mask)

    def parameter_groups(self, rates: Sequence[float]) -> list[dict[str, object]]:
        """Optimizer groups, each with its learning rate in ``rates``: the generator's trainable weights, the value
        head, and a separate critic's decoder. None decays (ours): decay would pull the policy from the reference
        without any reward for it."""
        parts = [
            self.generator,
            self.value_head,
            *([self.critic] if self.critic is not None else []),
        ]
        return [
            {
                "params": [p for p in part.parameters() if p.requires_grad],
                "lr": rate,
                "weight_decay": 0.0,
            }
            for part, rate in zip(parts, rates, strict=False)
        ]


def save_value_head(head: nn.Linear, directory: Path) -> None:
    """Write ``value_head.safetensors`` into ``directory``."""
    tensors = {
        name: tensor.detach().float().contiguous() for name, tensor in head.state_dict().items()
    }
    save_file(tensors, str(Path(directory) / VALUE_HEAD_FILE))


def load_value_head(head: nn.Linear, directory: Path) -> None:
    """Read it back.

    Raises:
        PPOError: ``value_head_missing``.
    """
    path = Path(directory) / VALUE_HEAD_FILE
    if not path.is_file():
        raise PPOError("value_head_missing", f"{path} does not exist")
    head.load_state_dict(load_file(str(path)))
