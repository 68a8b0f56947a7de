"""Settings of clinical quality reinforcement learning."""

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

from lmrrg.config.base import FREE, Precision, Settings, check_batches


class KLConfig(Settings):
    """The penalty for leaving the frozen SFT model, and the controller of its weight (lambda)."""

    controller: Literal["reward", "target", "rllib", "fixed"] = Field(
        "reward",
        description="rule that moves lambda: reward (up while the policy earns less than the SFT "
        "model, down while it earns more), target (towards target_per_sequence), rllib (the same "
        "in RLlib's fixed steps) or fixed",
    )
    placement: Literal["reward", "loss"] = Field(
        "reward", description="where lambda * KL is charged: in the reward or in the loss"
    )
    estimator: Literal["k1", "k2", "k3"] = Field(
        "k1", description="estimator of the KL at each token; in the loss k2 or k3"
    )
    wording_weight: NonNegativeFloat = Field(
        0.0,
        description="fixed weight in the loss of the KL on tokens that carry no finding; 0: off",
    )
    initial: NonNegativeFloat = Field(0.05, description="first lambda, reward per nat")
    minimum: NonNegativeFloat = Field(1e-3, description="smallest lambda, reward per nat")
    maximum: PositiveFloat = Field(1.0, description="largest lambda, reward per nat")
    target_per_sequence: PositiveFloat = Field(
        6.0, description="target, rllib: wanted KL, nats per report"
    )
    horizon_episodes: PositiveFloat = Field(
        2000.0,
        description="target, reward: reports per unit of relative change of lambda; more is slower",
    )
    reward_scale: PositiveFloat = Field(
        1.0, description="reward: difference of rewards that counts as an error of 1"
    )

    @property
    def loss_estimator(self) -> Literal["k1", "k2", "k3"]:
        """Estimator of the KL that the loss charges."""
        return self.estimator if self.placement == "loss" else "k2"

    @model_validator(mode="after")
    def _bounds(self) -> KLConfig:
        if not self.minimum <= self.initial <= self.maximum:
            raise ValueError(
                f"initial {self.initial} must lie in [minimum {self.minimum}, "
                f"maximum {self.maximum}]"
            )
        if self.placement == "loss" and self.estimator == "k1":
            raise ValueError(
                "estimator k1 has no gradient on average: placement loss needs k2 or k3"
            )
        return self


# Free are the settings that only say how long a run goes on, what it writes, and on which machines.
# ``iterations`` is among them so that a run can be made longer: a learning rate that falls then
# falls over the new number of iterations.
class PPOConfig(Settings):
    """Clinical quality reinforcement learning."""

    algorithm: Literal["ppo", "rloo", "grpo"] = Field(
        "ppo",
        description="ppo: GAE with a critic; rloo, grpo: no critic, the other samples of a study "
        "are the baseline",
    )
    critic: Literal["shared", "detached", "separate"] = Field(
        "detached",
        description="ppo: value head on the policy's decoder, on it without a gradient into it, or "
        "on a copy",
    )
    sibling_baseline: bool = Field(
        False,
        description="ppo: subtract the mean reward of the study's other samples before the critic "
        "is used; rloo and grpo always do",
    )
    iterations: PositiveInt = Field(
        40, description="iterations, each a rollout and an update", json_schema_extra=FREE
    )
    studies_per_iteration: PositiveInt = Field(32, description="studies drawn per iteration")
    samples_per_study: PositiveInt = Field(4, description="reports sampled per study")
    rollout_ahead: bool = Field(
        False,
        description="sample the reports of the next iteration during the update, from weights that "
        "are one update older",
    )
    epochs: PositiveInt = Field(2, description="passes over each rollout batch")
    minibatch: PositiveInt = Field(64, description="reports per optimizer step, over all ranks")
    microbatch: PositiveInt = Field(32, description="reports per forward pass of one rank")
    microbatch_tokens: PositiveInt | None = Field(
        None,
        description="positions per forward pass of one rank, prompts included, in place of "
        "microbatch; null: use microbatch",
    )
    workers: PositiveInt = Field(1, description="data-parallel ranks of the policy")
    cpus_per_worker: PositiveFloat = Field(
        1, description="CPUs reserved for each policy rank", json_schema_extra=FREE
    )
    gpus_per_worker: NonNegativeFloat = Field(
        0, description="GPUs reserved for each policy rank", json_schema_extra=FREE
    )
    reference_workers: PositiveInt = Field(
        1,
        description="copies of the frozen SFT model that compute its log-probabilities together; "
        "each reserves as much as a policy rank",
    )
    zero_stage: Literal[0, 1, 2, 3] = Field(1, description="DeepSpeed ZeRO stage")
    precision: Precision = Field(
        "fp32",
        description="number format of the matrix products of policy and reference; weights and "
        "losses are float32",
    )
    trainable: Literal["decoder", "all"] = Field(
        "decoder", description="weights that PPO trains: the decoder's, or the extractor's too"
    )
    learning_rate: PositiveFloat = Field(
        5e-5, description="learning rate of the policy in the first iteration"
    )
    learning_rate_end: float = Field(
        1.0,
        ge=0,
        le=1,
        description="learning rate in the last iteration as a fraction of the first; linear "
        "between",
    )
    value_learning_rate: PositiveFloat = Field(1e-3, description="learning rate of the value head")
    value_warmup_iterations: int = Field(
        2, ge=0, description="first iterations, in which only the value head is trained"
    )
    gradient_clip: PositiveFloat = Field(1.0, description="largest gradient norm")
    gamma: float = Field(1.0, gt=0, le=1, description="discount per token")
    gae_lambda: float = Field(
        0.95, ge=0, le=1, description="lambda of generalised advantage estimation"
    )
    clip: float = Field(0.2, gt=0, lt=1, description="clip range of the probability ratio")
    dual_clip: float | None = Field(
        None,
        gt=1,
        description="bound of the loss at negative advantages, times the advantage; null: off",
    )
    value_clip: PositiveFloat = Field(0.2, description="clip range of the value update")
    value_weight: NonNegativeFloat = Field(0.5, description="weight of the value loss")
    entropy_weight: NonNegativeFloat = Field(
        0.0, description="weight of the entropy bonus, reward per nat"
    )
    aggregation: Literal["token", "sequence", "constant"] = Field(
        "token",
        description="mean of the loss: every token weighs the same, or every report, or every "
        "token whatever the length of the other reports",
    )
    abnormal_weight: float = Field(
        1.0,
        ge=1.0,
        description="how much oftener an abnormal study is visited than a normal one; 1: every "
        "study once in an epoch",
    )
    evidence: Literal["imitated", "eye"] = Field(
        "imitated",
        description="evidence in the prompts of training studies: as the image encoder would give "
        "it for films that it was not trained on (imitated from the validation studies), or what "
        "it gives (eye)",
    )
    finding_weight: PositiveFloat = Field(
        1.0,
        description="weight in the loss of tokens that carry findings; all other tokens have 1",
    )
    credit: Literal["last", "leave_one_out", "prefix"] = Field(
        "last",
        description="what a token is credited with beside the report's reward: nothing (last), "
        "what the report loses without its sentence (leave_one_out), or the reward still to come "
        "after the sentences before it (prefix)",
    )
    credit_weight: NonNegativeFloat = Field(
        1.0, description="weight of the credit of sentences beside the report's own advantage"
    )
    reference_sentences: float = Field(
        0.0,
        ge=0,
        le=1,
        description="fraction of the studies whose samples all miss a finding of the reference in "
        "which the last sample gets the reference's sentence, off-policy, with truncated "
        "importance weights; 0: none (rloo, grpo)",
    )
    old_log_probs: Literal["trainer", "engine"] = Field(
        "trainer",
        description="denominator of the probability ratio: the trainer's own forward pass, or the "
        "log-probabilities of the engine, which saves that pass (rloo, grpo)",
    )
    correction: Literal["none", "token", "sequence"] = Field(
        "token",
        description="importance weights that correct the difference between engine and trainer: of "
        "each token, of each report, or none",
    )
    correction_cap: PositiveFloat = Field(2.0, description="largest importance weight")
    parity_tolerance: PositiveFloat | None = Field(
        None,
        description="mean absolute difference of the log-probabilities of engine and trainer that "
        "stops a run, nats; null: 0.001 for a float32 engine on CPU, 0.01 on a GPU, 0.2 for 16 "
        "bits",
        json_schema_extra=FREE,
    )
    eval_every: PositiveInt = Field(
        10,
        description="iterations between evaluations on validation studies",
        json_schema_extra=FREE,
    )
    eval_studies: PositiveInt = Field(64, description="validation studies of each evaluation")
    heldout_metric: Literal["label_f1", "rouge_l"] = Field(
        "label_f1", description="metric on the validation studies that picks the best checkpoint"
    )
    best_distinct_ratio: NonNegativeFloat = Field(
        0.9,
        description="distinct-report ratio that the best checkpoint must reach, as a fraction of "
        "the SFT model's; 0: any",
    )
    best_incoherent_margin: NonNegativeFloat = Field(
        0.01,
        description="how much more of the reports than of the SFT model's may be incoherent in the "
        "best checkpoint, as a fraction; 1: any",
    )
    mixtures: list[float] = Field(
        [],
        description="fractions of the last policy, between 0 and 1, in averages of its weights and "
        "the SFT model's, which compete to be the best checkpoint",
    )
    dump_every: int = Field(
        0,
        ge=0,
        description="iterations between rollouts that are kept with their texts for rl/replay.py; "
        "0: none",
        json_schema_extra=FREE,
    )
    profile_updates: int = Field(
        0,
        ge=0,
        description="first updates after a start of which a torch trace is written to "
        "ppo/profile in the run folder; 0: none",
        json_schema_extra=FREE,
    )
    checkpoint_every: PositiveInt = Field(
        10, description="iterations between training states", json_schema_extra=FREE
    )
    checkpoint_minutes: PositiveFloat = Field(
        5,
        description="longest time between training states, minutes; so much work a killed run "
        "loses at most, and an iteration",
        json_schema_extra=FREE,
    )
    keep_checkpoints: PositiveInt = Field(
        2, description="newest training states that are kept", json_schema_extra=FREE
    )
    max_restarts: int = Field(
        3,
        ge=0,
        description="losses in a row of a policy rank, reference or node that do not end a run",
        json_schema_extra=FREE,
    )
    timeout_s: PositiveFloat = Field(
        1800,
        description="time after which a policy rank or reference counts as lost, seconds",
        json_schema_extra=FREE,
    )
    resume: bool = Field(
        True,
        description="continue from the run's last training state, if any; false: start again",
        json_schema_extra=FREE,
    )
    kl: KLConfig = KLConfig()

    @property
    def rollout_batch(self) -> int:
        """Reports per iteration."""
        return self.studies_per_iteration * self.samples_per_study

    @property
    def needs_finding_tokens(self) -> bool:
        """Whether the loss treats tokens that carry findings in another way than the rest."""
        return self.finding_weight != 1 or self.kl.wording_weight > 0

    @property
    def credits_sentences(self) -> bool:
        """Whether partial reports are scored to credit each sentence."""
        return self.credit != "last" and self.credit_weight > 0

    @field_validator("mixtures")
    @classmethod
    def _between(cls, fractions: list[float]) -> list[float]:
        if not all(0 < fraction < 1 for fraction in fractions):
            raise ValueError(f"fractions must lie between 0 and 1, not {fractions}")
        return fractions

    @model_validator(mode="after")
    def _baselines(self) -> PPOConfig:
        if self.algorithm != "ppo" and self.samples_per_study < 2:
            raise ValueError(
                f"algorithm {self.algorithm} compares samples: samples_per_study must be 2 or more"
            )
        if self.algorithm == "ppo" and self.sibling_baseline and self.samples_per_study < 2:
            raise ValueError(
                "sibling_baseline compares samples: samples_per_study must be 2 or more"
            )
        if self.credits_sentences and self.samples_per_study < 2:
            raise ValueError(
                f"credit {self.credit} compares samples: samples_per_study must be 2 or more"
            )
        if self.algorithm == "ppo" and self.old_log_probs == "engine":
            raise ValueError(
                "old_log_probs=engine skips the trainer's forward pass, which gives ppo its values"
            )
        return self

    @model_validator(mode="after")
    def _edits(self) -> PPOConfig:
        if not self.reference_sentences:
            return self
        if self.algorithm == "ppo":
            raise ValueError(
                "reference_sentences puts edited reports among the samples that rloo and grpo "
                "compare; the critic of algorithm ppo would learn from them as if it were sampled"
            )
        if self.old_log_probs != "trainer" or self.correction != "token":
            raise ValueError(
                "reference_sentences needs the importance weight of every token: set "
                "old_log_probs=trainer and correction=token"
            )
        if self.samples_per_study < 2:
            raise ValueError(
                "reference_sentences edits one of the samples: samples_per_study must be 2 or more"
            )
        return self

    @model_validator(mode="after")
    def _batches(self) -> PPOConfig:
        # With microbatch_tokens a rank cuts its part by length: any number of reports will do.
        microbatch = 1 if self.microbatch_tokens else self.microbatch
        check_batches("minibatch", self.minibatch, microbatch, self.workers)
        if self.rollout_batch % self.minibatch:
            raise ValueError(
                f"minibatch {self.minibatch} must divide the rollout batch {self.rollout_batch} "
                "(studies_per_iteration x samples_per_study)"
            )
        return self
