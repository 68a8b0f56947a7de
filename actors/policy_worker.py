"""Run one rank of the policy: a Ray actor that scores and trains the model with DeepSpeed."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import ray
import torch
from ray.actor import ActorHandle
from torch import Tensor

from actors.deepspeed_setup import (
    deepspeed_settings,
    gathered,
    join_process_group,
    set_rendezvous,
    step_optimizer,
    wrap,
)
from actors.weight_sync.host_memory import StoredState
from actors.weight_sync.policy_side import PolicyWeights
from lmrrg.config.model import DecoderConfig
from lmrrg.config.ppo import PPOConfig
from lmrrg.config.rollout import RolloutConfig
from lmrrg.model.checkpoint import full_state, load_checkpoint, load_full_state, save_checkpoint
from lmrrg.model.decoder import adapters_off, add_lora
from lmrrg.model.generator import ReportGenerator
from lmrrg.policy.actor_critic import VALUE_HEAD_FILE, ActorCritic, load_value_head, save_value_head
from lmrrg.policy.batches import (
    Experience,
    PolicyOutputs,
    Rollout,
    rank_microbatches,
    shuffled_minibatches,
)
from lmrrg.policy.experience_file import require_finite
from lmrrg.policy.profiling import traced
from lmrrg.policy.update_report import UpdateTotals
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.losses import kl_loss, loss_shares, policy_loss, value_loss
from lmrrg.ppo.masks import fill
from lmrrg.ppo.mixture import mix
from lmrrg.run.layout import RunLayout

_TAG = "policy"
"""DeepSpeed's name of the checkpoint inside a training state."""

_BETAS = (0.9, 0.999)
"""AdamW's; torch's own default."""


@dataclass(frozen=True)
class PolicySettings:
    """The branches of the settings that a policy rank uses."""

    ppo: PPOConfig
    rollout: RolloutConfig
    """How weights travel, and the longest report."""
    decoder: DecoderConfig
    """Its LoRA adapters and dropout."""
    seed: int
    threads: int
    """torch threads of a rank."""
    files: RunLayout
    """Where traces and batches with a loss that is not finite are written."""


class PolicyWorker:
    """One data-parallel rank. All ranks must be called alike, in the same order.

    Args:
        settings: of the run.
        checkpoint_dir: the model that training starts from.
        rank: from 0.
    """

    def __init__(self, settings: PolicySettings, checkpoint_dir: Path, rank: int):
        torch.set_num_threads(settings.threads)
        self._settings = settings
        self._ppo = settings.ppo
        self._rank = rank
        self._checkpoint_dir = Path(checkpoint_dir)
        self._not_finite = settings.files.ppo_not_finite(rank)
        self._updates = 0

    def address(self) -> tuple[str, int]:
        """Return this node's address and a free port, for the other ranks to meet at rank 0."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def start(self, master: tuple[str, int]) -> None:
        """Join the process group, load the model and hand it to DeepSpeed."""
        set_rendezvous(self._rank, self._ppo.workers, master)
        join_process_group(self._ppo.gpus_per_worker)
        # Every rank draws the same new adapters and value head.
        torch.manual_seed(self._settings.seed)
        generator = load_checkpoint(self._checkpoint_dir)
        decoder = self._settings.decoder
        if decoder.lora_rank:
            # A checkpoint has the adapters of its training merged, so PPO starts with fresh ones.
            add_lora(generator.decoder, decoder.lora_rank, decoder.dropout)
        ppo = self._ppo
        self._model = ActorCritic(generator, ppo.trainable, ppo.critic, ppo.precision)
        if (self._checkpoint_dir / VALUE_HEAD_FILE).is_file():
            # The model comes from an earlier PPO run and brings its critic.
            load_value_head(self._model.value_head, self._checkpoint_dir)
        groups = self._model.parameter_groups(self._learning_rates(ppo.learning_rate))
        self._engine = wrap(self._model, groups, _deepspeed_settings(ppo))
        self._weights = PolicyWeights(self._settings.rollout, self._rank, generator)
        # Dropout stays off, in the update too: old and new log-probs must come from one model.
        self._model.eval()

    def log_probs(self, rollout: Rollout) -> tuple[Tensor, PolicyOutputs]:
        """Return this rank's rows (long [b]) of the rollout and their outputs [b, T]."""
        rows, outputs = self._forward(rollout, entropy=True)
        return rows, PolicyOutputs(*outputs)

    def reference_log_probs(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """Return this rank's rows (long [b]) and their log-probs [b, T] without LoRA adapters."""
        with adapters_off(self._model.generator.decoder):
            rows, outputs = self._forward(rollout, entropy=False)
        return rows, outputs[0]

    def update(self, experience: Experience, seed: int, learning_rate: float) -> UpdateTotals:
        """Make ``ppo.epochs`` passes over the experience.

        Args:
            experience: of the whole rollout; every rank takes its part.
            seed: orders the minibatches.
            learning_rate: of the policy; at 0 only the critic learns.
        """
        value_only = learning_rate == 0
        rates = self._learning_rates(learning_rate)
        # There are fewer groups than rates when the critic has no decoder of its own.
        for group, rate in zip(self._engine.optimizer.param_groups, rates, strict=False):
            group["lr"] = rate
        totals = UpdateTotals()
        with traced(self._trace_path()):
            for epoch in range(self._ppo.epochs):
                for rows in shuffled_minibatches(
                    experience.rollout, self._ppo.minibatch, seed + epoch
                ):
                    # Skipped by all ranks alike where no report of the minibatch has a reward.
                    if experience.loss_mask[rows].any():
                        self._minibatch(experience, rows, value_only, totals)
        return totals

    def state(
        self, same_node: bool, policy_fraction: float, decoder: bool
    ) -> tuple[StoredState | None, str]:
        """Write the weights into host memory; rank 0 returns where they are, and their checksum.

        Args:
            same_node: whether all readers are on this node.
            policy_fraction: below 1 the weights are a mixture with the SFT model.
            decoder: whether the decoder is wanted, or only what is beside it.
        """
        with self._gathered():
            if self._rank:
                return None, ""
            if policy_fraction == 1:
                state = full_state(self._model.generator, copy=False, decoder=decoder)
            else:
                state = self._mixed(load_checkpoint(self._checkpoint_dir), policy_fraction)
            return self._weights.write(state, whole=decoder, same_node=same_node)

    def send_decoder(self, engines: list[ActorHandle], address: tuple[str, int]) -> int | None:
        """Send the decoder from GPU to GPU.

        See :meth:`actors.weight_sync.policy_side.PolicyWeights.send_decoder`.
        """
        with self._gathered():
            return self._weights.send_decoder(engines, address)

    def save(self, directory: Path) -> None:
        """Write weights, optimizer and value head for :meth:`load`; every rank writes its part."""
        self._engine.save_checkpoint(str(directory), tag=_TAG)

    def load(self, directory: Path) -> None:
        """Continue from :meth:`save`, with the same number of ranks and the same ZeRO stage.

        Raises:
            PPOError: ``policy_state_missing``.
        """
        path, _ = self._engine.load_checkpoint(str(directory), tag=_TAG)
        if path is None:
            raise PPOError("policy_state_missing", f"no policy state of this layout in {directory}")

    def save_model(
        self, directory: Path, provenance: Mapping[str, Any], policy_fraction: float
    ) -> None:
        """Write a model directory for engines and server, with the value head beside it.

        A mixture has no value head. Neither has a policy whose critic is a decoder of its own: the
        head would be of no use without that.
        """
        with self._gathered():
            if self._rank:
                return
            if policy_fraction < 1:
                mixture = load_checkpoint(self._checkpoint_dir)
                load_full_state(mixture, self._mixed(mixture, policy_fraction))
                save_checkpoint(mixture, directory, provenance)
                return
            save_checkpoint(self._model.generator, directory, provenance)
            if self._model.critic is None:
                save_value_head(self._model.value_head, directory)

    def _mixed(self, start: ReportGenerator, policy_fraction: float) -> dict[str, Tensor]:
        policy = full_state(self._model.generator, copy=False)
        return mix(full_state(start, copy=False), policy, policy_fraction)

    def _trace_path(self) -> Path | None:
        """Return where the trace of this update goes; None when none is wanted."""
        self._updates += 1
        # Rank 0 alone: the other ranks compute the same on other reports.
        if self._rank or self._updates > self._ppo.profile_updates:
            return None
        return self._settings.files.ppo_profile(self._updates)

    @torch.no_grad()
    def _forward(self, rollout: Rollout, *, entropy: bool) -> tuple[Tensor, list[Tensor]]:
        """Return this rank's rows, and log-probs, values and entropy (if wanted), [b, T] on CPU."""
        width = rollout.ids.shape[1]
        rows: list[Tensor] = []
        outputs: list[list[Tensor]] = []
        for part in self._microbatches(rollout, torch.arange(len(rollout))):
            output = self._engine(rollout.select(part).to(self._engine.device), entropy=entropy)
            # A microbatch is cut to its longest report; the rollout is not.
            padding = (0, width - output.log_probs.shape[1])
            rows.append(part)
            columns = [column.cpu() for column in output if column is not None]
            outputs.append([torch.nn.functional.pad(column, padding) for column in columns])
        return torch.cat(rows), [torch.cat(column) for column in zip(*outputs, strict=True)]

    def _minibatch(
        self, experience: Experience, rows: Tensor, value_only: bool, totals: UpdateTotals
    ) -> None:
        """Take one optimizer step on the experience at ``rows``."""
        ppo = self._ppo
        mask = experience.loss_mask[rows]
        # The weight of every token in the loss, so that parts of the minibatch add up to the whole.
        weights = torch.zeros(experience.loss_mask.shape)
        weights[rows] = loss_shares(mask, ppo.aggregation, self._settings.rollout.max_new_tokens)
        parts = self._microbatches(experience.rollout, rows)
        for number, part in enumerate(parts, start=1):
            self._engine.set_gradient_accumulation_boundary(number == len(parts))
            batch = experience.select(part).to(self._engine.device)
            of_part = weights[part, : batch.loss_mask.shape[1]].to(self._engine.device)
            loss = self._loss(batch, of_part, value_only, totals)
            require_finite(loss, batch, self._not_finite)
            # DeepSpeed averages over the ranks, while the weights are already of the minibatch of
            # all ranks.
            self._engine.backward(loss * ppo.workers, scale_wrt_gas=False)
            if number < len(parts):
                self._engine.step()
        norm = step_optimizer(self._engine, ppo.zero_stage)
        require_finite(torch.tensor(norm), experience.select(rows), self._not_finite)
        totals.step(float(mask.sum()), norm)

    def _loss(
        self, batch: Experience, weights: Tensor, value_only: bool, totals: UpdateTotals
    ) -> Tensor:
        """Return the loss of a microbatch, with token weights [b, T], and add it to ``totals``."""
        ppo = self._ppo
        mask = batch.loss_mask
        output = self._engine(batch.rollout, value_only=value_only, entropy=ppo.entropy_weight > 0)
        # The clip protects a critic that is good already; a fresh one would need many iterations to
        # come into range.
        value_clip = math.inf if value_only else ppo.value_clip
        critic = value_loss(
            output.values, batch.values, batch.returns, mask, shares=weights, clip=value_clip
        )
        actor = policy_loss(
            output.log_probs,
            batch.log_probs,
            batch.advantages,
            mask,
            shares=weights,
            clip=ppo.clip,
            dual_clip=ppo.dual_clip,
            weights=batch.weights,
        )
        totals.add(actor, critic)
        if value_only:
            return critic
        loss = actor.loss + ppo.value_weight * critic
        if output.entropy is not None:
            loss = loss - ppo.entropy_weight * (fill(output.entropy, mask) * weights).sum()
        if batch.reference is not None and batch.kl_weights is not None:
            loss = loss + kl_loss(
                output.log_probs,
                batch.reference,
                mask,
                shares=weights * batch.kl_weights,
                estimator=ppo.kl.loss_estimator,
            )
        return loss

    def _microbatches(self, rollout: Rollout, rows: Tensor) -> list[Tensor]:
        """Return this rank's part of ``rows`` in microbatches."""
        # Every rank has the same number of them, or collective operations would wait for ever.
        ppo = self._ppo
        return rank_microbatches(
            rollout,
            rows,
            ppo.microbatch,
            self._rank,
            ppo.workers,
            tokens=ppo.microbatch_tokens,
            visual_tokens=self._model.generator.visual_tokens,
        )

    def _learning_rates(self, policy: float) -> tuple[float, float, float]:
        """Return the rates of the policy, the value head and a separate critic's decoder."""
        return policy, self._ppo.value_learning_rate, self._ppo.learning_rate

    def _gathered(self) -> AbstractContextManager[None]:
        return gathered(self._model, self._ppo.zero_stage)


def _deepspeed_settings(ppo: PPOConfig) -> dict[str, Any]:
    # With a budget of tokens the number of reports in a microbatch varies; 1 always fits.
    microbatch = 1 if ppo.microbatch_tokens else ppo.microbatch
    return deepspeed_settings(
        workers=ppo.workers,
        minibatch=ppo.minibatch,
        microbatch=microbatch,
        learning_rate=ppo.learning_rate,
        betas=_BETAS,
        gradient_clip=ppo.gradient_clip,
        zero_stage=ppo.zero_stage,
    )
