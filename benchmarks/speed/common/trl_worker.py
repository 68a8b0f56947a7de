"""Run one TRL trainer in TRL's own environment, one iteration for every line on stdin.

The seconds of each iteration go to stdout.

Run by benchmarks/speed/ppo_vs_trl.py as ``python trl_worker.py JOB.json``; everything else TRL
prints goes to stderr.
"""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path
from types import SimpleNamespace
from typing import Any, TextIO

import torch
from datasets import Dataset
from torch import Tensor, nn
from transformers import (
    AutoModelForCausalLM,
    AutoTokenizer,
    LlamaConfig,
    LlamaForSequenceClassification,
    PreTrainedTokenizerBase,
    TrainerCallback,
)

from lmrrg.config.reward import RewardConfig
from lmrrg.metrics.reward import RadCliQReward


class Pace(TrainerCallback):
    """Pause after every iteration of ``steps`` optimizer callbacks until the next line on stdin."""

    def __init__(self, answers: TextIO, steps: int):
        self._answers = answers
        self._steps = steps
        self._done = 0
        self.tokens = 0
        self.measured: dict[str, float] = {}
        """What else the next answer tells."""

    def on_train_begin(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Wait for the first order."""
        self._wait(control)

    def on_step_end(self, args: Any, state: Any, control: Any, **kwargs: Any) -> None:
        """Answer at the end of an iteration."""
        self._done += 1
        if self._done % self._steps == 0:
            seconds = time.perf_counter() - self._started
            answer = {"seconds": seconds, "tokens": self.tokens} | self.measured
            print(json.dumps(answer), file=self._answers, flush=True)
            self._wait(control)

    def _wait(self, control: Any) -> None:
        if not sys.stdin.readline():
            os._exit(0)  # the benchmark is over; there is nothing to save
        self.tokens = 0
        self._started = time.perf_counter()


class RewardModel(nn.Module):
    """The reward function in the shape of the model that TRL's PPO asks for.

    The score stands at every position.
    """

    base_model_prefix = "backbone"

    def __init__(self, job: dict[str, Any], tokenizer: PreTrainedTokenizerBase, pace: Pace):
        super().__init__()
        self._scorer = RadCliQReward(RewardConfig(**job["reward"]))
        self._tokenizer = tokenizer
        self._pace = pace
        self._context = len(job["prompts"][0])
        self._references = {
            tuple(ids): text for ids, text in zip(job["prompts"], job["references"], strict=True)
        }

    def backbone(self, input_ids: Tensor, **kwargs: Any) -> SimpleNamespace:
        """Return the ids themselves: there is nothing to compute."""
        return SimpleNamespace(hidden_states=[input_ids])

    def score(self, ids: Tensor) -> Tensor:
        """Return rewards [B, L, 1] of prompts with reports [B, L]."""
        references = [self._references[tuple(row)] for row in ids[:, : self._context].tolist()]
        rewards = rewards_of(
            self._scorer, self._tokenizer, ids[:, self._context :].tolist(), references, self._pace
        )
        return torch.tensor(rewards)[:, None, None].expand(*ids.shape, 1)


def rewards_of(
    scorer: RadCliQReward,
    tokenizer: PreTrainedTokenizerBase,
    reports: list[list[int]],
    references: list[str],
    pace: Pace,
) -> list[float]:
    """Return the rewards of reports given as token ids."""
    kept = [_without_padding(report, tokenizer) for report in reports]
    pace.tokens += sum(map(len, kept))
    texts = [text.strip() for text in tokenizer.batch_decode(kept, skip_special_tokens=True)]
    finished = [tokenizer.eos_token_id in report for report in kept]
    return scorer.score(texts, references, kept, finished).reward.tolist()


def _without_padding(report: list[int], tokenizer: PreTrainedTokenizerBase) -> list[int]:
    return [i for i in report if i != tokenizer.pad_token_id]


def common_arguments(job: dict[str, Any]) -> dict[str, Any]:
    """Return the settings that both trainers have in common."""
    return {
        "output_dir": job["folder"],
        "use_cpu": True,
        "bf16": job["bf16"],
        "gradient_checkpointing": False,
        "learning_rate": job["learning_rate"],
        "lr_scheduler_type": "constant",
        "max_grad_norm": 1.0,
        "temperature": 1.0,
        "report_to": "none",
        "save_strategy": "no",
        "disable_tqdm": True,
        "seed": 7,
    }


def train_ppo(
    job: dict[str, Any], model: Any, tokenizer: PreTrainedTokenizerBase, answers: TextIO
) -> None:
    """Train with `trl.experimental.ppo`.

    The whole batch is generated at once, without a copy of every sample on screen.
    """
    from trl.experimental.ppo import PPOConfig, PPOTrainer

    pace = Pace(answers, steps=1)
    settings = LlamaConfig.from_pretrained(job["decoder"], num_labels=1)
    critic = LlamaForSequenceClassification.from_pretrained(
        job["decoder"], config=settings, dtype=torch.float32
    )
    arguments = PPOConfig(
        per_device_train_batch_size=job["microbatch"],
        gradient_accumulation_steps=job["batch"] // job["microbatch"],
        num_mini_batches=job["batch"] // job["minibatch"],
        num_ppo_epochs=job["epochs"],
        local_rollout_forward_batch_size=job["batch"],
        response_length=job["new_tokens"],
        num_sample_generations=0,
        stop_token="eos",
        total_episodes=10**6,
        kl_coef=0.05,
        **common_arguments(job),
    )
    PPOTrainer(
        args=arguments,
        processing_class=tokenizer,
        model=model,
        ref_model=AutoModelForCausalLM.from_pretrained(job["decoder"], dtype=torch.float32),
        reward_model=RewardModel(job, tokenizer, pace),
        value_model=critic,
        train_dataset=Dataset.from_dict(
            {"input_ids": [ids for ids in job["prompts"] for _ in range(job["samples"])]}
        ),
        callbacks=[pace],
    ).train()


def train_grpo(
    job: dict[str, Any], model: Any, tokenizer: PreTrainedTokenizerBase, answers: TextIO
) -> None:
    """Train with `trl.GRPOTrainer`, which generates with transformers; its vLLM needs a GPU."""
    from trl import GRPOConfig, GRPOTrainer

    steps = job["batch"] // job["minibatch"]
    pace = Pace(answers, steps=steps * job["epochs"])
    scorer = RadCliQReward(RewardConfig(**job["reward"]))

    def radcliq(
        completion_ids: list[list[int]], reference: list[str], **kwargs: Any
    ) -> list[float]:
        return rewards_of(scorer, tokenizer, completion_ids, reference, pace)

    accumulation = job["minibatch"] // job["microbatch"]
    arguments = GRPOConfig(
        per_device_train_batch_size=job["microbatch"],
        gradient_accumulation_steps=accumulation,
        steps_per_generation=steps * accumulation,
        num_generations=job["samples"],
        num_iterations=job["epochs"],
        max_completion_length=job["new_tokens"],
        max_steps=10**6,
        logging_steps=10**6,
        beta=0.05,
        **common_arguments(job),
    )
    rows = {
        "prompt": [tokenizer.decode(ids) for ids in job["prompts"]],
        "reference": job["references"],
    }
    GRPOTrainer(
        model=model,
        reward_funcs=radcliq,
        args=arguments,
        train_dataset=Dataset.from_dict(rows),
        processing_class=tokenizer,
        callbacks=[pace],
    ).train()


def main() -> None:
    """Read the job and train until stdin ends."""
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # whatever TRL prints is no answer
    job = json.loads(Path(sys.argv[1]).read_text(encoding="utf-8"))
    torch.set_num_threads(job["threads"])
    tokenizer = AutoTokenizer.from_pretrained(job["decoder"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(job["decoder"], dtype=torch.float32)
    {"ppo": train_ppo, "grpo": train_grpo}[job["trainer"]](job, model, tokenizer, answers)


if __name__ == "__main__":
    main()
