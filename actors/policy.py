"""The policy group: DeepSpeed ranks as Ray actors that score and train the report generator."""

from __future__ import annotations

import math
import os
import socket
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import ray
import torch
from ray.actor import ActorHandle
from ray.util.placement_group import PlacementGroup
from torch import Tensor

from actors.placement import actor_options, bundle
from actors.supervision import results
from lmrrg.config import Config
from lmrrg.config_ppo import PPOConfig
from lmrrg.model.checkpoint import full_state, load_checkpoint, save_checkpoint, state_checksum
from lmrrg.model.decoder import add_lora
from lmrrg.ppo.actor_critic import VALUE_HEAD_FILE, ActorCritic, load_value_head, save_value_head
from lmrrg.ppo.batches import Experience, Rollout, rank_microbatches, shuffled_minibatches
from lmrrg.ppo.dump import require_finite
from lmrrg.ppo.errors import PPOError
from lmrrg.ppo.losses import PolicyLoss, kl_loss, loss_shares, policy_loss, value_loss
from lmrrg.ppo.masks import fill

_TAG = "policy"


@dataclass(frozen=True)
class PolicyScores:
    """The policy's view of a rollout before the update: [B, T] each, on CPU, 0 in the padding."""

    log_probs: Tensor
    values: Tensor
    entropy: Tensor


class PolicyWorker:
    """One data-parallel rank. All ranks must be called alike, in the same order."""

    def __init__(self, config: Config, checkpoint_dir: Path, rank: int):
        torch.set_num_threads(config.threads)
        self._config, self._ppo, self._rank = config, config.ppo, rank
        self._checkpoint_dir = Path(checkpoint_dir)
        self._broken = config.run_dir / "ppo" / f"not_finite-rank{rank}.safetensors"

    def address(self) -> tuple[str, int]:
        """Node address and a free port of this rank, for the others to meet at rank 0."""
        with socket.socket() as probe:
            probe.bind(("", 0))
            return ray.util.get_node_ip_address(), probe.getsockname()[1]

    def start(self, master: tuple[str, int]) -> None:
        """Join the process group, load the model and hand it to DeepSpeed."""
        os.environ |= {
            "RANK": str(self._rank),
            "WORLD_SIZE": str(self._ppo.workers),
            "LOCAL_RANK": "0",
            "MASTER_ADDR": master[0],
            "MASTER_PORT": str(master[1]),
        }
        # DeepSpeed reads its accelerator when it is imported, so not before the environment is known.
        import deepspeed
        from deepspeed.ops import __compatible_ops__

        gpu = self._ppo.gpus_per_worker > 0
        if not gpu:
            __compatible_ops__["deepspeed_shm_comm"] = False  # else a C++ build at first use
        deepspeed.init_distributed(
            dist_backend="nccl" if gpu else "gloo", auto_mpi_discovery=False, verbose=False, dist_init_required=True
        )
        torch.manual_seed(self._config.seed)
        generator = load_checkpoint(self._checkpoint_dir)
        decoder = self._config.model.decoder
        if decoder.lora_rank:  # a checkpoint has the adapters of its training merged: PPO gets fresh ones
            add_lora(generator.decoder, decoder.lora_rank, decoder.dropout)
        self._model = ActorCritic(generator, self._ppo.trainable, self._ppo.critic)
        if (self._checkpoint_dir / VALUE_HEAD_FILE).is_file():  # a model that PPO trained before brings its critic
            load_value_head(self._model.value_head, self._checkpoint_dir)
        groups = self._model.parameter_groups(self._learning_rates(self._ppo.learning_rate))
        self._engine, *_ = deepspeed.initialize(
            model=self._model, model_parameters=groups, config=deepspeed_config(self._ppo)
        )
        self._model.eval()

    @torch.no_grad()
    def log_probs(self, rollout: Rollout) -> tuple[Tensor, PolicyScores]:
        """This rank's rows (long [b]) of the rollout, and their scores [b, T]."""
        rows, scores = [], []
        everything = torch.arange(len(rollout))
        for share in rank_microbatches(rollout, everything, self._ppo.microbatch, self._rank, self._ppo.workers):
            output = self._engine(rollout.select(share).to(self._engine.device), entropy=True)
            padding = (0, rollout.ids.shape[1] - output.log_probs.shape[1])
            rows.append(share)
            scores.append([torch.nn.functional.pad(tensor.cpu(), padding) for tensor in output])
        return torch.cat(rows), PolicyScores(*(torch.cat(column) for column in zip(*scores, strict=True)))

    def update(self, experience: Experience, seed: int, learning_rate: float) -> UpdateTotals:
        """Run ``ppo.epochs`` passes over the experience; with learning rate 0 nothing but the critic moves."""
        value_only = learning_rate == 0
        for group, rate in zip(self._engine.optimizer.param_groups, self._learning_rates(learning_rate), strict=False):
            group["lr"] = rate
        totals = UpdateTotals()
        for epoch in range(self._ppo.epochs):
            for rows in shuffled_minibatches(experience.rollout, self._ppo.minibatch, seed + epoch):
                if experience.loss_mask[rows].any():  # else nothing could be scored: nothing to learn, on any rank
                    self._minibatch(experience, rows, value_only, totals)
        return totals

    def state(self) -> tuple[dict[str, Tensor], str] | None:
        """All weights on CPU and their checksum, on rank 0; the other ranks help to gather and return None."""
        with self._gathered():
            if self._rank:
                return None
            state = full_state(self._model.generator)
        return state, state_checksum(state)

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

    def save_model(self, directory: Path, extra: Mapping[str, Any]) -> None:
        """Write a model directory that the engines and the server read, with the value head beside it."""
        with self._gathered():
            if self._rank == 0:
                save_checkpoint(self._model.generator, directory, extra)
                if self._model.critic is None:  # a head on a decoder that the model directory lacks is of no use
                    save_value_head(self._model.value_head, directory)

    def _minibatch(self, experience: Experience, rows: Tensor, value_only: bool, totals: UpdateTotals) -> None:
        mask = experience.loss_mask[rows]
        shares = torch.zeros(experience.loss_mask.shape)
        shares[rows] = loss_shares(mask, self._ppo.aggregation, self._config.rollout.max_new_tokens)
        tokens = float(mask.sum())
        parts = rank_microbatches(experience.rollout, rows, self._ppo.microbatch, self._rank, self._ppo.workers)
        for number, part in enumerate(parts, start=1):
            self._engine.set_gradient_accumulation_boundary(number == len(parts))
            batch = experience.select(part).to(self._engine.device)
            of_part = shares[part, : batch.loss_mask.shape[1]].to(self._engine.device)
            loss = self._loss(batch, of_part, value_only, totals)
            require_finite(loss, batch, self._broken)
            # DeepSpeed averages over ranks, while the shares are already of the minibatch of all of them.
            self._engine.backward(loss * self._ppo.workers, scale_wrt_gas=False)
            if number == len(parts) and self._ppo.zero_stage == 0:
                norm = _grad_norm(self._model)  # without ZeRO in float32 DeepSpeed clips but keeps no norm
            self._engine.step()
        norm = norm if self._ppo.zero_stage == 0 else float(self._engine.get_global_grad_norm())
        require_finite(torch.tensor(norm), experience.select(rows), self._broken)
        totals.step(tokens, norm)

    def _loss(self, batch: Experience, shares: Tensor, value_only: bool, totals: UpdateTotals) -> Tensor:
        ppo, mask = self._ppo, batch.loss_mask
        output = self._engine(batch.rollout, value_only=value_only, entropy=ppo.entropy_weight > 0)
        # The clip protects a critic that is good already; a fresh one would need many iterations to come into range.
        value_clip = math.inf if value_only else ppo.value_clip
        critic = value_loss(output.values, batch.values, batch.returns, mask, shares=shares, clip=value_clip)
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
            loss = loss + kl_loss(output.log_probs, batch.reference, mask, shares=charged, estimator=estimator)
        return loss

    def _learning_rates(self, policy: float) -> tuple[float, float, float]:
        """Of the policy, the value head and a separate critic's decoder."""
        return policy, self._ppo.value_learning_rate, self._ppo.learning_rate

    @contextmanager
    def _gathered(self) -> Iterator[None]:
        """ZeRO-3 spreads the weights over the ranks: hold them whole on rank 0 inside the block."""
        import deepspeed

        with deepspeed.zero.GatheredParameters(list(self._model.parameters()), enabled=self._ppo.zero_stage == 3):
            yield


@dataclass
class UpdateTotals:
    """Statistics of one update, summed over one rank's tokens; ranks add up."""

    sums: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Over tokens."""
    losses: dict[str, float] = field(default_factory=lambda: defaultdict(float))
    """Over optimizer steps."""
    tokens: float = 0.0
    """Tokens of all ranks, over all steps."""
    grad_norms: list[float] = field(default_factory=list)
    first_ratio_error: float = 0.0
    """Largest |ratio - 1| of a token before the first optimizer step."""

    def add(self, actor: PolicyLoss, critic: Tensor) -> None:
        """Add one microbatch."""
        self.losses["policy_loss"] += actor.loss.item()
        self.losses["value_loss"] += critic.item()
        self.sums["clip_fraction"] += actor.clipped.item()
        self.sums["update_kl_per_token"] += actor.approx_kl.item()
        if not self.grad_norms:
            self.first_ratio_error = max(self.first_ratio_error, actor.ratio_error.item())

    def step(self, tokens: float, grad_norm: float) -> None:
        """Note one optimizer step."""
        self.tokens += tokens
        self.grad_norms.append(grad_norm)


@dataclass(frozen=True)
class UpdateReport:
    """What one update did, over all ranks."""

    metrics: dict[str, float]
    """Losses per optimizer step, means over tokens, and the mean and largest gradient norm before clipping."""
    first_ratio_error: float
    """Largest |ratio - 1| of a token before the first optimizer step: 0 up to rounding."""

    @classmethod
    def of(cls, ranks: Sequence[UpdateTotals]) -> UpdateReport:
        """Add up the ranks."""
        lead = ranks[0]
        names = sorted({name for rank in ranks for name in rank.sums})
        means = {name: sum(rank.sums[name] for rank in ranks) / max(lead.tokens, 1.0) for name in names}
        norms = lead.grad_norms or [0.0]
        means |= {name: sum(rank.losses[name] for rank in ranks) / len(norms) for name in sorted(lead.losses)}
        return cls(
            metrics={**means, "grad_norm": sum(norms) / len(norms), "grad_norm_max": max(norms), "steps": len(norms)},
            first_ratio_error=max(rank.first_ratio_error for rank in ranks),
        )


@dataclass(frozen=True)
class PendingScores:
    """Scores that the ranks are working on."""

    shares: list[ray.ObjectRef]
    wait: Callable[[list[ray.ObjectRef]], list[tuple[Tensor, PolicyScores]]]

    def result(self) -> PolicyScores:
        """Wait for the scores [B, T], in the order of the rollout.

        Raises:
            PoolError: ``actors_lost``.
        """
        shares = self.wait(self.shares)
        order = torch.argsort(torch.cat([rows for rows, _ in shares]))
        columns = ([getattr(scores, each.name) for _, scores in shares] for each in fields(PolicyScores))
        return PolicyScores(*(torch.cat(column)[order] for column in columns))


class PolicyGroup:
    """All ranks of the policy as one object.

    Every method that waits raises PoolError ``actors_lost`` when a rank is gone: a rank's part of the optimizer is gone
    with it, so the group cannot be mended, only started again from a training state.

    Args:
        config: uses ``ppo`` and ``threads``.
        checkpoint_dir: the model that training starts from; must be readable on every node.
        placement_group: reservation that holds the ranks' bundles, or None.
        first_bundle: index of the first rank's bundle; the others follow it. None: any bundle that fits.
    """

    def __init__(
        self,
        config: Config,
        checkpoint_dir: Path,
        placement_group: PlacementGroup | None = None,
        *,
        first_bundle: int | None = None,
    ):
        remote: Any = ray.remote(PolicyWorker)
        self._workers: list[ActorHandle] = []
        for rank in range(config.ppo.workers):
            index = -1 if first_bundle is None else first_bundle + rank
            options = actor_options(policy_bundle(config.ppo), placement_group, index)
            options["runtime_env"] = {"env_vars": _environment(config)}
            self._workers.append(remote.options(**options).remote(config, Path(checkpoint_dir), rank))
        self._timeout = config.ppo.timeout_s
        self._started = self._start()

    def start(self) -> None:
        """Wait until every rank has joined and loaded the model."""
        self._wait(self._started)

    def log_probs(self, rollout: ray.ObjectRef) -> PendingScores:
        """Start scoring a rollout (a reference to :class:`Rollout`): one forward without gradient."""
        return PendingScores([worker.log_probs.remote(rollout) for worker in self._workers], self._wait)

    def update(self, experience: Experience, *, seed: int, learning_rate: float) -> UpdateReport:
        """Optimizer steps over the experience; ``seed`` orders its minibatches; at ``learning_rate`` 0 only the critic
        learns."""
        return UpdateReport.of(self._call("update", ray.put(experience), seed, learning_rate))

    def state(self) -> tuple[dict[str, Tensor], str]:
        """All weights on CPU (see :func:`lmrrg.model.checkpoint.full_state`) and their checksum."""
        return self._call("state")[0]

    def save(self, directory: Path) -> None:
        """Write the training state; ``directory`` must be shared by the nodes."""
        self._call("save", directory)

    def load(self, directory: Path) -> None:
        """Continue from a training state.

        Raises:
            PPOError: there is none of this layout.
        """
        self._call("load", directory)

    def save_model(self, directory: Path, extra: Mapping[str, Any]) -> None:
        """Write a model directory, with ``extra`` as provenance."""
        self._call("save_model", directory, extra)

    def close(self) -> None:
        """Stop the ranks."""
        for worker in self._workers:
            ray.kill(worker)

    def _start(self) -> list[ray.ObjectRef]:
        master: ray.ObjectRef = self._workers[0].address.remote()
        return [worker.start.remote(master) for worker in self._workers]

    def _call(self, method: str, *arguments: Any) -> list[Any]:
        return self._wait([getattr(worker, method).remote(*arguments) for worker in self._workers])

    def _wait(self, calls: Sequence[ray.ObjectRef]) -> list[Any]:
        return results("policy", self._workers, calls, self._timeout)


def _grad_norm(model: torch.nn.Module) -> float:
    gradients = [p.grad for p in model.parameters() if p.grad is not None]
    return float(torch.nn.utils.get_total_norm(gradients))


def policy_bundle(ppo: PPOConfig) -> dict[str, float]:
    """What one rank asks of the cluster."""
    return bundle(ppo.cpus_per_worker, ppo.gpus_per_worker)


def deepspeed_config(ppo: PPOConfig) -> dict[str, Any]:
    """DeepSpeed's settings; torch's own AdamW, since the fused one is compiled at first use."""
    return {
        "train_micro_batch_size_per_gpu": ppo.microbatch,
        "gradient_accumulation_steps": ppo.minibatch // (ppo.microbatch * ppo.workers),
        "gradient_clipping": ppo.gradient_clip,
        "zero_optimization": {"stage": ppo.zero_stage},
        "bf16": {"enabled": ppo.precision == "bf16"},
        "optimizer": {"type": "AdamW", "params": {"lr": ppo.learning_rate, "torch_adam": True}},
        "steps_per_print": 1 << 30,
        "wall_clock_breakdown": False,
    }


def _environment(config: Config) -> dict[str, str]:
    env = {"TORCHDYNAMO_DISABLE": "1", "OMP_NUM_THREADS": str(config.threads)}
    # On CPU the accelerator is named, or DeepSpeed looks for one.
    return env if config.ppo.gpus_per_worker else {**env, "DS_ACCELERATOR": "cpu"}
