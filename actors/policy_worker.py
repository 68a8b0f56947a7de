"""One rank of the policy: a Ray actor that scores and trains the report generator with DeepSpeed."""

from __future__ import annotations

import math
import socket
from collections.abc import Mapping
from contextlib import AbstractContextManager
from pathlib import Path
from typing import TYPE_CHECKING, Any

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
from actors.weight_sync.host_memory import StoredState, WeightBuffers
from lmrrg.config.ppo import PPOConfig
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import full_state, load_checkpoint, load_full_state, save_checkpoint
from lmrrg.model.decoder import adapters_off, add_lora, decoder_weights
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

if TYPE_CHECKING:
    from actors.weight_sync.gpu_sender import WeightSender

_TAG = "policy"

_BETAS = (0.9, 0.999)
"""AdamW's, torch's own default."""


class PolicyWorker:
    """One data-parallel rank. All ranks must be called alike, in the same order."""

    def __init__(self, config: Config, checkpoint_dir: Path, rank: int):
        torch.set_num_threads(config.threads)
        self._config, self._ppo, self._rank = config, config.ppo, rank
        self._checkpoint_dir = Path(checkpoint_dir)
        self._buffers, self._rest_buffers, self._updates = WeightBuffers(), WeightBuffers(), 0
        self._sender: WeightSender | None = None
        self._broken = RunLayout(config.run_dir).ppo_not_finite(rank)

    def address(self) -> tuple[str, int]:
        """Node address and a free port of this rank, for the others to meet at rank 0."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def start(self, master: tuple[str, int]) -> None:
        """Join the process group, load the model and hand it to DeepSpeed."""
        set_rendezvous(self._rank, self._ppo.workers, master)
        join_process_group(self._ppo.gpus_per_worker)
        torch.manual_seed(self._config.seed)
        generator = load_checkpoint(self._checkpoint_dir)
        decoder = self._config.model.decoder
        if (
            decoder.lora_rank
        ):  # a checkpoint has the adapters of its training merged: PPO gets fresh ones
            add_lora(generator.decoder, decoder.lora_rank, decoder.dropout)
        self._model = ActorCritic(
            generator, self._ppo.trainable, self._ppo.critic, self._ppo.precision
        )
        if (
            self._checkpoint_dir / VALUE_HEAD_FILE
        ).is_file():  # a model that PPO trained before brings its critic
            load_value_head(self._model.value_head, self._checkpoint_dir)
        groups = self._model.parameter_groups(self._learning_rates(self._ppo.learning_rate))
        self._engine = wrap(self._model, groups, _settings(self._ppo))
        self._model.eval()

    def log_probs(self, rollout: Rollout) -> tuple[Tensor, PolicyOutputs]:
        """This rank's rows (long [b]) of the rollout, and their scores [b, T]."""
        rows, scores = self._forward(rollout, entropy=True)
        return rows, PolicyOutputs(*scores)

    def reference_log_probs(self, rollout: Rollout) -> tuple[Tensor, Tensor]:
        """This rank's rows (long [b]), and their log-probs [b, T] under the model without its LoRA adapters."""
        with adapters_off(self._model.generator.decoder):
            rows, scores = self._forward(rollout, entropy=False)
        return rows, scores[0]

    def update(self, experience: Experience, seed: int, learning_rate: float) -> UpdateTotals:
        """Run ``ppo.epochs`` passes over the experience; with learning rate 0 nothing but the critic moves."""
        value_only = learning_rate == 0
        for group, rate in zip(
            self._engine.optimizer.param_groups, self._learning_rates(learning_rate), strict=False
        ):
            group["lr"] = rate
        totals = UpdateTotals()
        with traced(self._trace_path()):
            for epoch in range(self._ppo.epochs):
                for rows in shuffled_minibatches(
                    experience.rollout, self._ppo.minibatch, seed + epoch
                ):
                    if experience.loss_mask[
                        rows
                    ].any():  # else nothing could be scored: nothing to learn, on any rank
                        self._minibatch(experience, rows, value_only, totals)
        return totals

    def state(self, shared: bool, share: float, decoder: bool) -> tuple[StoredState | None, str]:
        """Weights and their checksum, on rank 0 (see :meth:`WeightBuffers.write`); the others help to gather."""
        with self._gathered():
            if self._rank:
                return None, ""
            state = (
                full_state(self._model.generator, copy=False, decoder=decoder)
                if share == 1
                else self._mixed(load_checkpoint(self._checkpoint_dir), share)
            )
            return (self._buffers if decoder else self._rest_buffers).write(state, shared=shared)

    def transfer(self, engines: list[ActorHandle], address: tuple[str, int]) -> int | None:
        """Send the decoder from GPU to GPU: see :meth:`actors.weight_sync.gpu_sender.WeightSender.send`."""
        from actors.weight_sync.gpu_sender import (
            WeightSender,  # it needs vLLM, which costs every other run seconds and memory
        )

        with self._gathered():
            if self._sender is None:
                decoder = self._model.generator.decoder
                self._sender = WeightSender(
                    self._config.rollout, self._rank, lambda: decoder_weights(decoder)
                )
            return self._sender.send(engines, address)

    def save(self, directory: Path) -> None:
        """Write weights, optimizer and value head for :meth:`load`; every rank writes its part into ``directory``."""
        self._engine.save_checkpoint(str(directory), tag=_TAG)

    def load(self, directory: Path) -> None:
        """Continue from :meth:`save`, with the same number of ranks and the same ZeRO stage.

        Raises:
            PPOError: ``policy_state_missing``.
        """
        path, _ = self._engine.load_checkpoint(str(directory), tag=_TAG)
        if path is None:
            raise PPOError("policy_state_missing", f"no policy state of this layout in {directory}")

    def save_model(self, directory: Path, extra: Mapping[str, Any], share: float) -> None:
        """Write a model directory that the engines and the server read, with the value head beside it.

        A mixture has no value head, and neither has a policy whose critic is a decoder of its own: the head would be of
        no use without it.
        """
        with self._gathered():
            if self._rank:
                return
            if share < 1:
                mixture = load_checkpoint(self._checkpoint_dir)
                load_full_state(mixture, self._mixed(mixture, share))
                save_checkpoint(mixture, directory, extra)
                return
            save_checkpoint(self._model.generator, directory, extra)
            if self._model.critic is None:
                save_value_head(self._model.value_head, directory)

    def _mixed(self, start: ReportGenerator, share: float) -> dict[str, Tensor]:
        return mix(
            full_state(start, copy=False), full_state(self._model.generator, copy=False), share
        )

    def _trace_path(self) -> Path | None:
        """Where the trace of this update goes; None when none is wanted. Rank 0 stands for all."""
        self._updates += 1
        if self._rank or self._updates > self._ppo.profile_updates:
            return None
        return RunLayout(self._config.run_dir).ppo_profile(self._updates)

    @torch.no_grad()
    def _forward(self, rollout: Rollout, *, entropy: bool) -> tuple[Tensor, list[Tensor]]:
        """This rank's rows of the rollout; log-probs, values and, where asked for, entropy, [b, T] each on CPU."""
        rows, scores = [], []
        for share in self._microbatches(rollout, torch.arange(len(rollout))):
            output = self._engine(rollout.select(share).to(self._engine.device), entropy=entropy)
            padding = (0, rollout.ids.shape[1] - output.log_probs.shape[1])
            rows.append(share)
            scores.append(
                [
                    torch.nn.functional.pad(each.cpu(), padding)
                    for each in output
                    if each is not None
                ]
            )
        return torch.cat(rows), [torch.cat(column) for column in zip(*scores, strict=True)]

    def _minibatch(
        self, experience: Experience, rows: Tensor, value_only: bool, totals: UpdateTotals
    ) -> None:
        mask = experience.loss_mask[rows]
        shares = torch.zeros(experience.loss_mask.shape)
        shares[rows] = loss_shares(mask, self._ppo.aggregation, self._config.rollout.max_new_tokens)
        tokens = float(mask.sum())
        parts = self._microbatches(experience.rollout, rows)
        for number, part in enumerate(parts, start=1):
            self._engine.set_gradient_accumulation_boundary(number == len(parts))
            batch = experience.select(part).to(self._engine.device)
            of_part = shares[part, : batch.loss_mask.shape[1]].to(self._engine.device)
            loss = self._loss(batch, of_part, value_only, totals)
            require_finite(loss, batch, self._broken)
            # DeepSpeed averages over ranks, while the shares are already of the minibatch of all of them.
            self._engine.backward(loss * self._ppo.workers, scale_wrt_gas=False)
            if number < len(parts):
                self._engine.step()
        norm = step_optimizer(self._engine, self._ppo.zero_stage)
        require_finite(torch.tensor(norm), experience.select(rows), self._broken)
        totals.step(tokens, norm)

    def _loss(
        self, batch: Experience, shares: Tensor, value_only: bool, totals: UpdateTotals
    ) -> Tensor:
        ppo, mask = self._ppo, batch.loss_mask
        output = self._engine(batch.rollout, value_only=value_only, entropy=ppo.entropy_weight > 0)
        # The clip protects a critic that is good already; a fresh one would need many iterations to come into range.
        value_clip = math.inf if value_only else ppo.value_clip
        critic = value_loss(
            output.values, batch.values, batch.returns, mask, shares=shares, clip=value_clip
        )
        actor = policy_loss(
            output.log_probs,
            batch.log_probs,
            batch.advantages,
            mask,
            shares=shares,
            clip=ppo.clip,
            dual_clip=ppo.dual_clip,
            weights=batch.weights,
        )
        totals.add(actor, critic)
        if value_only:
            return critic
        loss = actor.loss + ppo.value_weight * critic
        if output.entropy is not None:
            loss = loss - ppo.entropy_weight * (fill(output.entropy, mask) * shares).sum()
        if batch.reference is not None and batch.kl_weights is not None:
            charged = shares * batch.kl_weights
            estimator = ppo.kl.loss_estimator
            loss = loss + kl_loss(
                output.log_probs, batch.reference, mask, shares=charged, estimator=estimator
            )
        return loss

    def _microbatches(self, rollout: Rollout, rows: Tensor) -> list[Tensor]:
        """This rank's; every rank has the same number of them, or collective operations would wait for ever."""
        ppo = self._ppo
        return rank_microbatches(
            rollout, rows, ppo.microbatch, self._rank, ppo.workers, tokens=ppo.microbatch_tokens
        )

    def _learning_rates(self, policy: float) -> tuple[float, float, float]:
        """Of the policy, the value head and a separate critic's decoder."""
        return policy, self._ppo.value_learning_rate, self._ppo.learning_rate

    def _gathered(self) -> AbstractContextManager[None]:
        return gathered(self._model, self._ppo.zero_stage)


def _settings(ppo: PPOConfig) -> dict[str, Any]:
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
