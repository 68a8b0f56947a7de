"""The policy's forward: log-probs of sampled reports, and a value head on the hidden states."""

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
    """Outputs of the policy for the tokens of B reports; every tensor is [B, T], 0 in the padding.

    It is a tuple because DeepSpeed, when it hooks a module's outputs, finds tensors only in tuples.
    """

    log_probs: Tensor
    values: Tensor
    """Expected return before each token, units of reward."""
    entropy: Tensor | None = None
    """Entropy of the distribution that each token was drawn from, nats."""


@dataclass(frozen=True)
class TokenStates:
    """The decoder's states that predict the N valid tokens of a rollout."""

    hidden: Tensor
    """Last hidden states [N, H]."""
    logits: Tensor | None
    """[N, V]; None where they were not asked for."""


def token_states(
    generator: ReportGenerator, rollout: Rollout, precision: Precision, *, logits: bool = True
) -> TokenStates:
    """Run images, prompts and reports through the model.

    Reports of one study share the computation of their prompt (:mod:`lmrrg.policy.packing`).
    """
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
            # The logits of all positions would be the largest tensor by far; 1 is the least.
            logits_to_keep=packed.predicts if logits else 1,
        )
    return TokenStates(
        hidden=output.hidden_states[-1][0, packed.predicts],
        logits=output.logits[0] if logits else None,
    )


def report_log_probs(
    generator: ReportGenerator, rollout: Rollout, precision: Precision = "fp32"
) -> Tensor:
    """Return the log-probs [B, T] of the sampled tokens, float32, 0 in the padding."""
    logits = cast(Tensor, token_states(generator, rollout, precision).logits)
    return spread(_log_probs(logits, rollout), rollout.mask)


def spread(values: Tensor, mask: Tensor) -> Tensor:
    """Return [B, T] with N values at the N valid positions of ``mask``, row by row; 0 elsewhere.

    >>> spread(torch.tensor([1.0, 2.0, 3.0]), torch.tensor([[True, False], [True, True]])).tolist()
    [[1.0, 0.0], [2.0, 3.0]]
    """
    return torch.zeros(mask.shape, dtype=values.dtype, device=values.device).masked_scatter(
        mask, values
    )


def _log_probs(logits: Tensor, rollout: Rollout) -> Tensor:
    """Return the log-probs [N] of the rollout's valid tokens under ``logits`` [N, V]."""
    return token_log_probs(logits[None], rollout.ids[rollout.mask][None])[0]


class ActorCritic(nn.Module):
    """The report generator and a linear value head on a decoder's last hidden states (ours).

    The head starts at 0, so that the first advantages are the rewards themselves. The module stays
    in evaluation mode: with dropout the probability ratio would differ from 1 before any update.

    Args:
        generator: what is trainable in its decoder stays so: all of it, or its LoRA adapters.
        trainable: "decoder", or "all" for the visual half too.
        critic: the decoder whose hidden states the head reads. "shared": the policy's, which the
            value loss trains too; "detached": the policy's, without gradient of the value loss;
            "separate": a decoder of its own, at twice the cost.
        precision: of the generator's matrix products; weights, value head and outputs are float32
            in any case.
    """

    def __init__(
        self,
        generator: ReportGenerator,
        trainable: str = "decoder",
        critic: str = "detached",
        precision: Precision = "fp32",
    ):
        super().__init__()
        self.generator = generator
        self._precision = precision
        self.value_head = nn.Linear(generator.hidden_size, 1)
        nn.init.zeros_(self.value_head.weight)
        nn.init.zeros_(self.value_head.bias)
        if trainable == "decoder":
            for module in (generator.extractor, generator.projector, generator.classifier):
                module.requires_grad_(False)
        # Copied after the visual half was frozen, so that it is frozen in the copy too.
        self.critic = copy.deepcopy(generator) if critic == "separate" else None
        self._detached = critic == "detached"
        self.eval()

    def forward(
        self, rollout: Rollout, *, entropy: bool = False, value_only: bool = False
    ) -> TokenOutputs:
        """Return the log-probs and values of the sampled tokens.

        Args:
            rollout: reports on the model's device.
            entropy: whether the entropy is returned too.
            value_only: whether the generator gets no gradient (warm-up of the value head).
        """
        # Gradients are only ever switched off here: scoring runs without them.
        with torch.set_grad_enabled(torch.is_grad_enabled() and not value_only):
            states = token_states(self.generator, rollout, self._precision)
            logits = cast(Tensor, states.logits)
            log_probs = spread(_log_probs(logits, rollout), rollout.mask)
            entropies = spread(token_entropy(logits), rollout.mask) if entropy else None
        return TokenOutputs(log_probs, self._values(states.hidden, rollout), entropies)

    def _values(self, hidden: Tensor, rollout: Rollout) -> Tensor:
        """Return the values [B, T]; ``hidden`` [N, H] is the policy's, for critics that read it."""
        if self.critic is not None:
            hidden = token_states(self.critic, rollout, self._precision, logits=False).hidden
        elif self._detached:
            hidden = hidden.detach()
        # Hidden states are bfloat16 where the products are; the head is float32.
        return spread(self.value_head(hidden.float())[:, 0], rollout.mask)

    def parameter_groups(self, rates: Sequence[float]) -> list[dict[str, object]]:
        """Return the groups of trainable weights for the optimizer, each with its learning rate.

        No weight decays (ours): decay would pull the policy away from the reference without any
        reward for it.

        Args:
            rates: of the generator, the value head, and a separate critic, which may be absent.
        """
        modules: list[nn.Module] = [self.generator, self.value_head]
        if self.critic is not None:
            modules.append(self.critic)
        groups: list[dict[str, object]] = []
        for module, rate in zip(modules, rates, strict=False):
            trainable = [weight for weight in module.parameters() if weight.requires_grad]
            groups.append({"params": trainable, "lr": rate, "weight_decay": 0.0})
        return groups


def save_value_head(head: nn.Linear, directory: Path) -> None:
    """Write ``value_head.safetensors`` into ``directory``."""
    tensors = {
        name: tensor.detach().float().contiguous() for name, tensor in head.state_dict().items()
    }
    save_file(tensors, str(Path(directory) / VALUE_HEAD_FILE))


def load_value_head(head: nn.Linear, directory: Path) -> None:
    """Load the weights that :func:`save_value_head` wrote into ``head``.

    Raises:
        PPOError: ``value_head_missing``.
    """
    path = Path(directory) / VALUE_HEAD_FILE
    if not path.is_file():
        raise PPOError("value_head_missing", f"{path} does not exist")
    head.load_state_dict(load_file(str(path)))
