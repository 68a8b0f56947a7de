"""Measure how well one batch's gradient points to the true gradient, for each form of credit.

    python benchmarks/credit.py --run runs/demo [--true 2400] [--batches 8] [key=value ...]

Reports are sampled from the run's SFT model. The true gradient of the expected reward is estimated
from --true reports (REINFORCE with the other samples of a study as baseline, which has no bias).
Then every further batch, as large as one of PPO's iterations, gives one gradient for each form of
credit, with the advantages that PPO would learn from, KL aside. All forms see the same reports.

Prints the cosine between each form's gradient and the true one, mean and range over batches; how
many times as many reports it is worth as the reward alone; and how far the two halves of the true
gradient's own reports agree: below 1 the true gradient is noisy, and all cosines are too small by
one factor.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from lmrrg.config.loading import load_config
from lmrrg.config.ppo import PPOConfig
from lmrrg.config.tree import Config
from lmrrg.engine.report_engine import ReportEngine
from lmrrg.files import atomic_writer
from lmrrg.metrics.reward import RadCliQReward
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.policy.actor_critic import report_log_probs
from lmrrg.policy.batches import PolicyOutputs, rank_microbatches
from lmrrg.ppo.advantages import sibling_advantages
from lmrrg.ppo.credit import token_credits
from lmrrg.ppo.losses import loss_shares, policy_loss
from lmrrg.ppo.masks import fill
from lmrrg.progress import progress_bar
from lmrrg.run.layout import RunLayout
from lmrrg.run.studies import priors_of, studies_of
from rl.credit.sentences import Sentences
from rl.experience import Sample, make_experience, make_sample
from rl.sampling import Scoring
from rl.study_pool import StudyPool, StudySampler, stream_seed

REWARD_ALONE = "last"
FORMS: dict[str, dict[str, object]] = {
    REWARD_ALONE: {"credit": "last"},
    "prefix": {"credit": "prefix", "credit_weight": 1.0},
    "leave_one_out": {"credit": "leave_one_out"},
    "grpo": {"credit": "last", "algorithm": "grpo"},
}
"""Form of credit -> settings of PPO; what is not named is as in the run."""


@dataclass(frozen=True)
class TokenWeights:
    """What each token's log-probability is multiplied by in a loss: [B, T]."""

    advantages: Tensor
    shares: Tensor
    mask: Tensor


class Sampler:
    """Batches of reports of the SFT model, each as large as PPO's.

    Args:
        config: settings of the run.
        checkpoint: the SFT model.
        engine: with the same model.
    """

    def __init__(self, config: Config, checkpoint: Path, engine: ReportEngine):
        self.studies = StudyPool(
            studies_of(config, "train"),
            priors_of(config),
            config.data,
            config.model,
            checkpoint,
            config.evidence,
        )
        self._config = config
        self._engine = engine
        self._order = StudySampler(len(self.studies), config.ppo.studies_per_iteration, config.seed)

    def batch(self, number: int) -> Sample:
        """Return batch ``number``, from 0; the seed of the run decides all of them."""
        visits = self._order.batch(number)
        studies = self.studies.take(visits)
        reports = self._engine.generate(
            studies.features,
            studies.prompts,
            samples=self._config.ppo.samples_per_study,
            temperature=1.0,
            seed=stream_seed(self._config.seed, "credit", number),
        )
        return make_sample(visits, studies, reports, version=0)


class Advantages:
    """Scores batches, and returns what each form of credit would learn from."""

    def __init__(self, config: Config, studies: StudyPool):
        # Whatever is beside the reward in a run's loss is not to be measured here.
        plain = config.ppo.model_dump() | {"algorithm": "rloo", "correction": "none"}
        plain |= {"finding_weight": 1.0, "old_log_probs": "trainer", "reference_sentences": 0.0}
        self._settings = {
            name: PPOConfig.model_validate(plain | own) for name, own in FORMS.items()
        }
        self._scorer = RadCliQReward(config.reward)
        self._studies = studies
        self._longest = config.rollout.max_new_tokens

    def true(self, sample: Sample) -> TokenWeights:
        """Return the weights of REINFORCE with the siblings' mean as baseline."""
        scores = self._scored(sample, None).result()
        rewards = torch.from_numpy(scores.reward)
        valid = torch.from_numpy(scores.valid)
        compared = sibling_advantages(rewards, sample.rollout.study, valid, scaled=False)
        mask = sample.rollout.mask & valid[:, None]
        advantages = fill(compared[:, None].expand(mask.shape), mask)
        # Every report weighs the same per token: the gradient of the mean reward.
        return TokenWeights(advantages, loss_shares(mask, "constant", self._longest), mask)

    def of_forms(self, sample: Sample) -> dict[str, TokenWeights]:
        """Return the weights of every form of :data:`FORMS`."""
        return {name: self._of(sample, ppo) for name, ppo in self._settings.items()}

    def _of(self, sample: Sample, ppo: PPOConfig) -> TokenWeights:
        sentences = Sentences(self._studies.tokenizer, ppo) if ppo.credits_sentences else None
        scoring = self._scored(sample, sentences)
        scores = scoring.result()
        rewards = np.where(scores.valid, scores.reward, np.nan)
        credit = None
        if sentences is not None:
            of_reports = scoring.sentences()
            credits = sentences.credits(rewards, of_reports, sample.rollout.study.tolist())
            credit = token_credits(credits, [one.numbers for one in of_reports])
        log_probs = sample.engine_log_probs
        experience = make_experience(
            sample,
            rewards,
            PolicyOutputs.of_engine(log_probs),
            log_probs,
            0.0,
            ppo,
            None,
            credit,
        )
        shares = loss_shares(experience.loss_mask, ppo.aggregation, self._longest)
        return TokenWeights(experience.advantages, shares, experience.loss_mask)

    def _scored(self, sample: Sample, sentences: Sentences | None) -> Scoring:
        """Return the rewards of a batch, in one piece."""
        size = len(sample.reports) // len(sample.visits)
        groups = [sample.reports[i : i + size] for i in range(0, len(sample.reports), size)]
        with ThreadPoolExecutor(1) as thread:
            # A scorer has the one method of the pool that is used here.
            scoring = Scoring(self._scorer, thread, sample.studies.references, sentences)
            scoring.add(list(range(len(groups))), groups)
        return scoring


def gradients(
    model: torch.nn.Module, sample: Sample, forms: Mapping[str, TokenWeights], ppo: PPOConfig
) -> dict[str, Tensor]:
    """Return the flat gradient of each form's loss in the decoder's weights, float32."""
    weights = [weight for weight in model.decoder.parameters() if weight.requires_grad]
    sums: dict[str, Tensor] = {}
    rows = torch.arange(len(sample.rollout))
    for part in rank_microbatches(sample.rollout, rows, ppo.microbatch):
        log_probs = report_log_probs(model, sample.rollout.select(part))
        width = log_probs.shape[1]
        for name, form in forms.items():
            loss = policy_loss(
                log_probs,
                log_probs.detach(),  # the ratio is 1: the first step of an update
                form.advantages[part, :width],
                form.mask[part, :width],
                shares=form.shares[part, :width],
                clip=ppo.clip,
            ).loss
            found = torch.autograd.grad(loss, weights, retain_graph=True)
            flat = torch.cat([one.flatten() for one in found])
            sums[name] = sums[name] + flat if name in sums else flat
    return sums


def cosine(one: Tensor, other: Tensor) -> float:
    """Return the cosine between two flat gradients."""
    return float(torch.nn.functional.cosine_similarity(one.double(), other.double(), dim=0))


def worth(found: float, plain: float) -> float:
    """Return how many times as many reports the reward alone would need for the cosine ``found``.

    The cosine of a mean of n unbiased gradients is s / sqrt(s^2 + 1 / n), so that
    cosine^2 / (1 - cosine^2) grows as n does.

    >>> round(worth(0.341, 0.238), 1)
    2.2
    """
    return (found**2 / (1 - found**2)) / (plain**2 / (1 - plain**2))


def measure(config: Config, checkpoint: Path, true_reports: int, batches: int) -> dict[str, object]:
    """Return the cosines of every form, batch by batch, and that of the two halves."""
    size = config.ppo.rollout_batch
    halves = max(1, round(true_reports / size / 2))
    with closing(
        ReportEngine(checkpoint, config.rollout, seed=config.seed, threads=config.threads)
    ) as engine:
        sampler = Sampler(config, checkpoint, engine)
        samples = [sampler.batch(number) for number in _bar(2 * halves + batches, "sampling")]
    torch.set_num_threads(config.threads)
    model = load_checkpoint(checkpoint).eval()
    advantages = Advantages(config, sampler.studies)
    half_gradients = []
    for start in (0, halves):
        total = 0.0
        for number in _bar(halves, "true gradient"):
            sample = samples[start + number]
            found = gradients(model, sample, {"true": advantages.true(sample)}, config.ppo)
            total = total + found["true"]
        half_gradients.append(total)
    true = half_gradients[0] + half_gradients[1]
    cosines: dict[str, list[float]] = {name: [] for name in FORMS}
    for number in _bar(batches, "batches"):
        sample = samples[2 * halves + number]
        found = gradients(model, sample, advantages.of_forms(sample), config.ppo)
        for name, gradient in found.items():
            cosines[name].append(cosine(gradient, true))
    return {
        "batch": size,
        "true_reports": 2 * halves * size,
        "halves": cosine(*half_gradients),
        "cosines": cosines,
    }


def _bar(count: int, what: str) -> Iterator[int]:
    yield from progress_bar(range(count), desc=what, unit="batch")


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument(
        "--run", type=Path, default=Path("runs/demo"), help="run whose SFT model is measured"
    )
    parser.add_argument(
        "--true", type=int, default=2400, help="reports of the true gradient (default %(default)s)"
    )
    parser.add_argument(
        "--batches", type=int, default=8, help="measured batches (default %(default)s)"
    )
    parser.add_argument("--out", type=Path, help="write the figures here as JSON")
    parser.add_argument("overrides", nargs="*", metavar="key=value", help="settings that win")
    args = parser.parse_intermixed_args()
    layout = RunLayout(args.run)
    if not layout.best("sft").is_dir():
        raise SystemExit(f"{args.run} has no SFT model; run `python sft/train.py` first")
    config = load_config(layout.settings, args.overrides)
    figures = measure(config, layout.best("sft"), args.true, args.batches)
    print(
        f"batches of {figures['batch']} reports, true gradient of {figures['true_reports']}, whose "
        f"halves agree with cosine {figures['halves']:.3f}"
    )
    plain = float(np.mean(figures["cosines"][REWARD_ALONE]))
    for name, values in figures["cosines"].items():
        mean = float(np.mean(values))
        print(
            f"{name:14} cosine {mean:.3f} ({min(values):.3f} to {max(values):.3f}), worth "
            f"{worth(mean, plain):.2f}x the reports"
        )
    if args.out:
        with atomic_writer(args.out) as out:
            json.dump(figures, out, indent=2)


if __name__ == "__main__":
    main()
