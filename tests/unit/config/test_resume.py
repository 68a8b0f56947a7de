"""Which settings bind a stage that continues, and which may change."""

from __future__ import annotations

from collections.abc import Sequence

import pytest
from pydantic import Field

from lmrrg.config.base import FREE, STAGES_KEY, Settings, Stage, enters
from lmrrg.config.description import describe_config
from lmrrg.config.loading import load_config
from lmrrg.config.resume import binding_settings
from lmrrg.config.tree import Config

SOURCE = """
seed
data.source data.labels data.section data.check_views
data.phantom.generator data.phantom.train data.phantom.val data.phantom.test
data.phantom.image_size
"""
MODEL = """
model.image_encoder.name model.image_encoder.weights
model.text_encoder model.regions_file model.instruction
model.extractor_width model.extractor_blocks model.extractor_heads model.extractor_dropout
model.use_indication model.max_indication_tokens model.use_prior model.max_prior_tokens
model.decoder.pretrained model.decoder.architecture model.decoder.hidden_size
model.decoder.layers model.decoder.heads model.decoder.intermediate_size
model.decoder.vocabulary model.decoder.max_positions model.decoder.lora_rank
model.decoder.dropout
model.evidence_words model.evidence_tokens evidence.threshold evidence.precision
data.max_views data.image_size data.max_report_tokens data.train_limit data.polarity
"""
SFT = """
data.eval_limit
sft.workers sft.zero_stage sft.precision sft.epochs sft.minibatch sft.microbatch
sft.learning_rate sft.weight_decay sft.warmup sft.gradient_clip sft.classification_weight
sft.attention_weight sft.uncertain_policy sft.blank_policy
sft.abnormal_sentence_weight sft.class_balance sft.select_by sft.select_studies sft.patience
sft.evidence_dropped sft.evidence_invented
"""
EYE = """
model.image_encoder.name
data.max_views data.image_size data.train_limit data.eval_limit data.polarity
eye.workers eye.epochs eye.minibatch eye.learning_rate eye.head_learning_rate eye.weight_decay
eye.warmup eye.gradient_clip eye.frozen_blocks eye.crop eye.rotation eye.brightness eye.film_weight
eye.largest_positive_weight eye.ema eye.uncertain_policy eye.blank_policy
"""
PPO = """
reward.backend reward.function reward.published_dir reward.published_cache
reward.clip_low reward.clip_high
reward.length_penalty reward.repetition_penalty reward.no_eos_penalty reward.shuffle_control
reward.incoherence_penalty reward.parts.radcliq reward.parts.label_f1 reward.parts.coherence
reward.parts.judge reward.judge.model reward.judge.max_tokens
rollout.dtype rollout.max_sequences rollout.max_new_tokens rollout.temperature
ppo.algorithm ppo.critic ppo.sibling_baseline ppo.studies_per_iteration ppo.samples_per_study
ppo.rollout_ahead ppo.epochs ppo.minibatch ppo.microbatch ppo.microbatch_tokens ppo.workers
ppo.reference_workers ppo.zero_stage ppo.precision ppo.trainable ppo.learning_rate
ppo.learning_rate_end ppo.value_learning_rate ppo.value_warmup_iterations ppo.gradient_clip
ppo.gamma ppo.gae_lambda ppo.clip ppo.dual_clip ppo.value_clip ppo.value_weight
ppo.entropy_weight ppo.aggregation ppo.abnormal_weight ppo.evidence ppo.finding_weight
ppo.credit ppo.credit_weight ppo.reference_sentences
ppo.old_log_probs ppo.correction
ppo.correction_cap ppo.eval_studies ppo.heldout_metric ppo.best_distinct_ratio ppo.mixtures
ppo.best_incoherent_margin
ppo.kl.controller ppo.kl.placement ppo.kl.estimator ppo.kl.wording_weight ppo.kl.initial
ppo.kl.minimum ppo.kl.maximum ppo.kl.target_per_sequence ppo.kl.horizon_episodes
ppo.kl.reward_scale
"""
WHERE_THE_DATA_LIES = "data.path data.images data.ids data.columns data.date_format"
IMAGES_LEFT_OUT = "data.skip_refused_images"


@pytest.mark.parametrize(
    ("stage", "lists"),
    [
        ("data", (SOURCE, WHERE_THE_DATA_LIES, IMAGES_LEFT_OUT)),
        ("eye", (SOURCE, EYE)),
        ("sft", (SOURCE, MODEL, SFT)),
        ("ppo", (SOURCE, MODEL, PPO)),
    ],
)
def test_the_settings_that_bind_a_stage(stage: Stage, lists: Sequence[str]):
    assert set(binding_settings(Config(), stage)) == set(" ".join(lists).split())


def test_the_values_are_those_of_the_run_as_json():
    config = load_config(None, ["ppo.kl.initial=0.2", "model.regions_file=a.yaml"])
    binding = binding_settings(config, "ppo")
    assert binding["ppo.kl.initial"] == 0.2
    assert binding["model.regions_file"] == "a.yaml"
    assert binding["ppo.mixtures"] == []


def test_a_setting_without_a_mark_binds_every_stage_of_its_branch():
    class Branch(Settings):
        plain: int = 1
        free: int = Field(1, json_schema_extra=FREE)

    class Tree(Settings):
        forgotten: int = 1
        open: Branch = Branch()
        marked: Branch = Field(Branch(), json_schema_extra=enters("sft"))

    assert {setting.key: setting.stages for setting in describe_config(Tree)} == {
        "forgotten": {"data", "eye", "sft", "ppo"},
        "open.plain": {"data", "eye", "sft", "ppo"},
        "open.free": set(),
        "marked.plain": {"sft"},
        "marked.free": set(),
    }


def test_every_mark_names_stages_that_exist():
    def marks(model: type[Settings]):
        for info in model.model_fields.values():
            if isinstance(info.json_schema_extra, dict):
                yield from info.json_schema_extra.get(STAGES_KEY, [])
            if isinstance(info.annotation, type) and issubclass(info.annotation, Settings):
                yield from marks(info.annotation)

    assert set(marks(Config)) == {"data", "eye", "sft", "ppo"}
