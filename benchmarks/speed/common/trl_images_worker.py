"""Run TRL's GRPO on the prompts of a report generator, images included.

Run by benchmarks/speed/time_to_reward.py as ``python trl_images_worker.py JOB.json``, in TRL's own
environment, in the same way as trl_worker.py. A text prompt cannot hold an image, so every visual
token of every study becomes a word of the tokenizer, whose embedding is that visual token.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import Any, TextIO

import numpy as np
import torch
from datasets import Dataset
from safetensors.torch import load_file
from torch import Tensor, nn
from transformers import AutoModelForCausalLM, AutoTokenizer, PreTrainedTokenizerBase
from trl_worker import Pace, common_arguments

from lmrrg.config.reward import RewardConfig
from lmrrg.rewards.trl import make_reward


class WordsAndImages(nn.Module):
    """The decoder's embeddings, continued by the visual tokens of all studies, which stay frozen.

    Args:
        words: the decoder's embeddings.
        first: id of the first visual token.
        visual: visual tokens [N, H].
    """

    visual: Tensor

    def __init__(self, words: nn.Embedding, first: int, visual: Tensor):
        super().__init__()
        self.words = words
        self._first = first
        self.register_buffer("visual", visual, persistent=False)

    @property
    def weight(self) -> Tensor:
        """Return the embeddings of the words, for whoever asks for the embedding table."""
        return self.words.weight

    def forward(self, ids: Tensor) -> Tensor:
        """Return the embeddings [..., H] of words and visual tokens."""
        is_visual = ids >= self._first
        words = self.words(ids.masked_fill(is_visual, 0))
        visual = self.visual[(ids - self._first).clamp_min(0)]
        return torch.where(is_visual[..., None], visual, words)


def prompt_texts(tokenizer: PreTrainedTokenizerBase, job: dict[str, Any], tokens: int) -> list[str]:
    """Return the prompt of each study: the words that stand for its visual tokens, and the rest.

    Args:
        tokenizer: the decoder's; it learns the new words.
        job: with the ids of each study's ``prompts``.
        tokens: visual tokens of a study.
    """
    words: list[str] = []
    for study in range(len(job["prompts"])):
        words += [f"<image {study} {number}>" for number in range(tokens)]
    first = len(tokenizer)
    tokenizer.add_tokens(words, special_tokens=True)
    texts: list[str] = []
    for study, ids in enumerate(job["prompts"]):
        start = study * tokens
        text = "".join(words[start : start + tokens]) + tokenizer.decode(ids)
        wanted = [*range(first + start, first + start + tokens), *ids]
        if tokenizer.encode(text, add_special_tokens=False) != wanted:
            raise SystemExit("a prompt is not what its text encodes to")
        texts.append(text)
    return texts


def train(job: dict[str, Any], answers: TextIO) -> None:
    """Train until stdin ends; every answer tells the ``gain``: reward beyond the SFT model's."""
    from trl import GRPOConfig, GRPOTrainer

    tokenizer = AutoTokenizer.from_pretrained(job["decoder"], padding_side="left")
    model = AutoModelForCausalLM.from_pretrained(job["decoder"], dtype=torch.float32)
    visual = load_file(job["visual"])["visual"]
    embeddings = WordsAndImages(
        model.get_input_embeddings(), len(tokenizer), visual.flatten(0, 1).clone()
    )
    prompts = prompt_texts(tokenizer, job, visual.shape[1])
    model.set_input_embeddings(embeddings)
    steps = job["batch"] // job["minibatch"]
    pace = Pace(answers, steps=steps * job["epochs"])
    reward = make_reward(RewardConfig(**job["reward"]), "reference")

    def radcliq(
        completions: list[str], reference: list[str], sft_reward: list[float], **columns: Any
    ) -> list[float | None]:
        rewards = reward(completions, reference=reference)
        gains = [own - old for own, old in zip(rewards, sft_reward, strict=True) if own is not None]
        pace.measured["gain"] = float(np.mean(gains))
        return rewards

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
        # TRL's default. A reference model would not know the visual tokens.
        beta=0.0,
        **(common_arguments(job) | {"seed": job["seed"]}),
    )
    rows = {
        "prompt": prompts,
        "reference": job["references"],
        "sft_reward": job["sft_rewards"],
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
    torch.manual_seed(job["seed"])
    train(job, answers)


if __name__ == "__main__":
    main()
