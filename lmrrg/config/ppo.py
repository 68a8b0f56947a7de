"""The settings of clinical quality reinforcement learning."""

from __future__ import annotations

from typing import Literal

from pydantic import (
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    field_validator,
    model_validator,
)

from lmrrg.config.base import Precision, Settings, check_batches


class KLConfig(Settings):
    """The penalty for leaving the frozen SFT model, and the controller of its weight."""

    controller: Literal["reward", "target", "rllib", "fixed"] = Field(
        "reward", description="who moves lambda"
    )
    placement: Literal["reward", "loss"] = Field(
        "reward", description="where lambda * KL is charged"
    )
    estimator: Literal["k1", "k2", "k3"] = Field(
        "k1", description="per-token KL estimate; in the loss k2 or k3"
    )
    wording_weight: NonNegativeFloat = Field(
        0.0,
        description="fixed weight of KL (k2, in the loss) on tokens that carry no finding; 0: off",
    )
    initial: NonNegativeFloat = Field(0.05, description="first lambda")
    minimum: NonNegativeFloat = Field(1e-3, description="smallest lambda")
    maximum: PositiveFloat = Field(1.0, description="largest lambda")
    target_per_sequence: PositiveFloat = Field(
        6.0, description="wanted KL, nats per report (target, rllib)"
    )
    horizon_episodes: PositiveFloat = Field(
        2000.0, description="episodes over which lambda moves by e"
    )
    reward_scale: PositiveFloat = Field(
        1.0, description="reward difference that counts as 1 (reward)"
    )

    @property
    def loss_estimator(self) -> Literal["k1", "k2", "k3"]:
        """Estimator of the KL that the loss charges."""
        return self.estimator if self.placement == "loss" else "k2"

    @model_validator(mode="after")
    def _bounds(self) -> KLConfig:
        if not self.minimum <= self.initial <= self.maximum:
            raise ValueError(
                f"initial {self.initial} must lie in [minimum {self.minimum}, maximum {self.maximum}]"
            )
        if self.placement == "loss" and self.estimator == "k1":
            raise ValueError(
                "estimator k1 has no gradient on average: placement loss needs k2 or k3"
            )
        return self


class PPOConfig(Settings):
    """Clinical quality reinforcement learning."""

    algorithm: Literal["ppo", "rloo", "grpo"] = Field(
        "ppo",
        description="ppo: GAE with a critic; rloo, grpo: the other samples of a study are the baseline",
    )
    critic: Literal["shared", "detached", "separate"] = Field(
        "detached",
        description="value head on the policy's decoder, on it without gradient into it, or on a copy",
    )
    sibling_baseline: bool = Field(
        False,
        description="ppo: a report's reward is compared with the study's other samples before the critic sees it; "
        "rloo and grpo do so anyway, and have no use for it",
    )
    iterations: PositiveInt = Field(40, description="rollout + update rounds")
    studies_per_iteration: PositiveInt = Field(32, description="studies drawn per iteration")
    samples_per_study: PositiveInt = Field(4, description="reports sampled per study")
    rollout_ahead: bool = Field(
        False,
        description="sample the next iteration's reports during the update: at most one update behind it",
    )
    epochs: PositiveInt = Field(2, description="passes over each rollout batch")
    minibatch: PositiveInt = Field(64, description="reports per optimizer step, over all ranks")
    microbatch: PositiveInt = Field(32, description="reports that one rank runs at once")
    microbatch_tokens: PositiveInt | None = Field(
        None,
        description="instead of microbatch: positions that one rank runs at once, prompts included",
    )
    workers: PositiveInt = Field(1, description="data-parallel ranks of the policy group")
    cpus_per_worker: PositiveFloat = Field(1, description="CPUs asked for each policy rank")
    gpus_per_worker: NonNegativeFloat = Field(0, description="GPUs asked for each policy rank")
    reference_workers: PositiveInt = Field(
        1,
        description="copies of the frozen reference, which share the scoring; each asks for as much as a policy rank",
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(1, description="DeepSpeed ZeRO stage")
    precision: Precision = Field(
        "fp32",
        description="type of the matrix products of policy and reference; weights and losses are float32",
    )
    trainable: Literal["decoder", "all"] = Field("decoder", description="weights that PPO moves")
    learning_rate: PositiveFloat = Field(
        5e-5, description="learning rate of the policy in the first iteration"
    )
    learning_rate_end: float = Field(
        1.0, ge=0, le=1, description="share of it in the last one; linear between"
    )
    value_learning_rate: PositiveFloat = Field(1e-3, description="learning rate of the value head")
    value_warmup_iterations: int = Field(
        2, ge=0, description="first iterations that train only the value head"
    )
    gradient_clip: PositiveFloat = Field(1.0, description="largest gradient norm")
    gamma: float = Field(1.0, gt=0, le=1, description="discount")
    gae_lambda: float = Field(
        0.95, ge=0, le=1, description="lambda of generalised advantage estimation"
    )
    clip: float = Field(0.2, gt=0, lt=1, description="clip range of the probability ratio")
    dual_clip: float | None = Field(
        None, gt=1, description="lower bound multiple for negative advantages; null: off"
    )
    value_clip: PositiveFloat = Field(0.2, description="clip range of the value update")
    value_weight: NonNegativeFloat = Field(0.5, description="weight of the value loss")
    entropy_weight: NonNegativeFloat = Field(
        0.0, description="weight of the entropy bonus, reward per nat"
    )
    aggregation: Literal["token", "sequence", "constant"] = Field(
        "token",
        description="every token weighs the same, or every report, or every token whatever the batch's lengths",
    )
    finding_weight: PositiveFloat = Field(
        1.0, description="weight of tokens that carry findings, beside 1 for template words; 1: off"
    )
    old_log_probs: Literal["trainer", "engine"] = Field(
        "trainer",
        description="denominator of the probability ratio: from the trainer's forward, or what the engine said when it "
        "sampled, which saves that forward (rloo, grpo)",
    )
    correction: Literal["none", "token", "sequence"] = Field(
        "token", description="weights for engine-trainer mismatch"
    )
    correction_cap: PositiveFloat = Field(2.0, description="largest importance weight")
    parity_tolerance: PositiveFloat | None = Field(
        None,
        description="mean |engine - trainer| log-prob that stops a run, nats; null: 0.001 for a float32 engine on CPU, "
        "0.01 on a GPU, whose attention rounds its products, 0.2 for 16 bits",
    )
    eval_every: PositiveInt = Field(
        10, description="iterations between evaluations on validation studies"
    )
    eval_studies: PositiveInt = Field(64, description="validation studies in each evaluation")
    heldout_metric: Literal["label_f1", "rouge_l"] = Field(
        "label_f1", description="picks the best checkpoint"
    )
    best_distinct_ratio: NonNegativeFloat = Field(
        0.9,
        description="share of the SFT model's distinct-report ratio that the best checkpoint must keep; 0: any",
    )
    mixtures: list[float] = Field(
        [],
        description="shares of the last policy in models mixed from its weights and the SFT model's, which after the "
        "last iteration compete to be the best checkpoint; between 0 and 1",
    )
    dump_every: int = Field(
        0,
        ge=0,
        description="iterations between rollouts that are kept for rl/replay.py, with their texts; 0: none",
    )
    profile_updates: int = Field(
        0,
        ge=0,
        description="first updates after a start whose torch trace goes to run_dir/ppo/profile; 0: none",
    )
    checkpoint_every: PositiveInt = Field(10, description="iterations between checkpoints")
    keep_checkpoints: PositiveInt = Field(
        2, description="training states that are kept, the newest ones"
    )
    max_restarts: int = Field(
        3, ge=0, description="losses of policy, reference or node in a row that a run bears"
    )
    timeout_s: PositiveFloat = Field(
        1800, description="a policy rank or reference that takes longer is lost, seconds"
    )
    resume: bool = Field(
        True, description="continue from the last checkpoint of the run, where there is one"
    )
    kl: KLConfig = KLConfig()

    @property
    def rollout_batch(self) -> int:
        """Reports per iteration."""
        return self.studies_per_iteration * self.samples_per_study

    @property
    def tells_findings(self) -> bool:
        """Whether tokens that carry findings are learnt from in another way than the rest."""
        return self.finding_weight != 1 or self.kl.wording_weight > 0

    @field_validator("mixtures")
    @classmethod
    def _between(cls, shares: list[float]) -> list[float]:
        if not all(0 < share < 1 for share in shares):
            raise ValueError(f"shares must lie between 0 and 1, not {shares}")
        return shares

    @model_validator(mode="after")
    def _batches(self) -> PPOConfig:
        check_batches(
            "minibatch",
            self.minibatch,
            1 if self.microbatch_tokens else self.microbatch,
            self.workers,
        )
        if self.algorithm != "ppo" and self.samples_per_study < 2:
            raise ValueError(
                f"algorithm {self.algorithm} compares samples: samples_per_study must be 2 or more"
            )
        if self.algorithm == "ppo" and self.sibling_baseline and self.samples_per_study < 2:
            raise ValueError(
                "sibling_baseline compares samples: samples_per_study must be 2 or more"
            )
        if self.algorithm == "ppo" and self.old_log_probs == "engine":
            raise ValueError(
                "old_log_probs=engine goes without the trainer's forward, which gives ppo its values"
            )
        if self.rollout_batch % self.minibatch:
            raise ValueError(
                f"minibatch {self.minibatch} must divide the rollout batch {self.rollout_batch} "
                "(studies_per_iteration x samples_per_study)"
            )
        return self
