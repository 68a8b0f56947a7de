"""Every setting of the system: one typed tree, read from YAML and dotted overrides.

Batch sizes use one vocabulary: an iteration of PPO draws ``studies_per_iteration`` studies and samples
``samples_per_study`` reports for each; their product is the *rollout batch*. The policy takes optimizer steps on
*minibatches* of it, over all ranks together; a *microbatch* is what one rank runs through the model at once.
"""

from __future__ import annotations

import difflib
import os
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any, Literal, get_args

import yaml
from pydantic import (
    BaseModel,
    Field,
    NonNegativeFloat,
    PositiveFloat,
    PositiveInt,
    ValidationError,
    model_validator,
)

from lmrrg.config.base import ConfigError, Precision, Settings, check_batches
from lmrrg.config.data import DataConfig, DataSource, PhantomConfig
from lmrrg.config.model import DecoderConfig, ModelConfig
from lmrrg.config.ppo import PPOConfig
from lmrrg.config.rollout import RolloutConfig
from lmrrg.config.yaml_file import read_yaml
from lmrrg.studies import atomic_writer

__all__ = [
    "Config",
    "ConfigError",
    "DataConfig",
    "DataSource",
    "DecoderConfig",
    "ModelConfig",
    "PPOConfig",
    "PhantomConfig",
    "load_config",
]

_NAME_OR_FOLDER = ("pretrained", "text_encoder")
"""Settings that name a model or the folder it lies in."""


class RayConfig(Settings):
    """The cluster."""

    address: str | None = Field(None, description="cluster to join; null: RAY_ADDRESS or a local one")
    object_store_mb: PositiveInt = Field(512, description="object store of a local cluster, MB")
    checkpoint_storage: str | None = Field(
        None,
        description="store, e.g. s3://bucket/prefix, where SFT checkpoints lie instead of in the run folder, and where "
        "every training state of PPO is copied to",
    )
    preflight_timeout_s: PositiveFloat = Field(60, description="longest wait for the asked resources, seconds")
    placement: Literal["split", "colocated"] = Field(
        "split",
        description="split: every actor reserves its own share; colocated: policy rank k and engine k share GPU k",
    )


class SFTConfig(Settings):
    """Supervised fine-tuning: cross-entropy on report tokens plus the 14-class loss."""

    workers: PositiveInt = Field(1, description="data-parallel ranks")
    cpus_per_worker: PositiveFloat = Field(1, description="CPUs asked for each rank")
    gpus_per_worker: NonNegativeFloat = Field(0, description="GPUs asked for each rank")
    zero_stage: Literal[0, 1, 2, 3] = Field(1, description="DeepSpeed ZeRO stage")
    precision: Precision = Field("fp32", description="type of the matrix products; weights and losses are float32")
    epochs: PositiveInt = Field(10, description="passes over the training studies")
    minibatch: PositiveInt = Field(32, description="studies per optimizer step, over all ranks")
    microbatch: PositiveInt = Field(32, description="studies that one rank runs at once")
    learning_rate: PositiveFloat = Field(5e-4, description="peak learning rate")
    weight_decay: NonNegativeFloat = Field(0.01, description="AdamW weight decay")
    warmup: float = Field(0.05, ge=0.0, le=1.0, description="share of the steps with rising learning rate")
    gradient_clip: PositiveFloat = Field(1.0, description="largest gradient norm")
    classification_weight: NonNegativeFloat = Field(0.5, description="lambda_cls of L = L_LM + lambda_cls L_cls")
    attention_weight: NonNegativeFloat = Field(
        0.0, description="weight of the loss that draws the attention to a phantom's region masks; 0: never read"
    )
    uncertain_policy: Literal["positive", "negative", "ignore"] = Field("positive", description="label -1 in the loss")
    blank_policy: Literal["negative", "ignore"] = Field("negative", description="a class not mentioned, in the loss")
    resume: bool = Field(True, description="continue from the last checkpoint of the run, where there is one")

    @model_validator(mode="after")
    def _batches(self) -> SFTConfig:
        check_batches("minibatch", self.minibatch, self.microbatch, self.workers)
        return self


class RewardConfig(Settings):
    """The RadCliQ reward and its guards."""

    backend: Literal["embedded", "reference"] = Field(
        "embedded", description="embedded: rules, no download; reference: the published weights"
    )
    reference_dir: Path | None = Field(None, description="folder with the weights of the reference backend")
    reference_cache: Path | None = Field(
        Path(".cache/reference"), description="what the reference backend's models said about references; null: off"
    )
    scorers: PositiveInt = Field(1, description="reward actors")
    cpus_per_scorer: PositiveFloat = Field(0.5, description="CPUs asked for each scorer")
    gpus_per_scorer: NonNegativeFloat = Field(0, description="GPUs asked for each scorer; only reference uses them")
    chunk: PositiveInt = Field(32, description="report pairs per call of a scorer")
    timeout_s: PositiveFloat = Field(120, description="a scorer that takes longer is replaced, seconds")
    clip_low: float = Field(-3.0, description="lowest reward")
    clip_high: float = Field(1.5, description="highest reward")
    length_penalty: NonNegativeFloat = Field(0.0, description="per unit of |log(length / reference length)| over log 2")
    repetition_penalty: NonNegativeFloat = Field(0.5, description="times the share of repeated 3-grams")
    no_eos_penalty: NonNegativeFloat = Field(0.5, description="for a report that did not end by itself")
    shuffle_control: bool = Field(False, description="negative control: rewards are shuffled among the studies")

    @model_validator(mode="after")
    def _clip(self) -> RewardConfig:
        if self.clip_low >= self.clip_high:
            raise ValueError(f"clip_low {self.clip_low} must be below clip_high {self.clip_high}")
        return self


class EvaluationConfig(Settings):
    """The final comparison."""

    convention: Literal["r2gen", "raw"] = Field("raw", description="text convention of the NLG metrics")
    vocabulary_threshold: PositiveInt | None = Field(
        None,
        description="r2gen: rarest training word that is kept, occurrences; null: as published for the data set, "
        "10 for MIMIC-CXR, else 3",
    )
    reference_tokens: PositiveInt | None = Field(
        None,
        description="r2gen: references are cut to this many tokens, start token included; null: as published for the "
        "data set, 100 for MIMIC-CXR, else 60",
    )
    uncertain_policy: Literal["positive", "negative"] = Field("positive", description="uncertain labels in the F1")
    bootstrap: PositiveInt = Field(1000, description="bootstrap resamples")
    meteor: bool = Field(True, description="METEOR among the n-gram metrics; it takes seconds per system")
    examples: PositiveInt = Field(6, description="example studies in the run report")


class TrackingConfig(Settings):
    """Where metrics go; JSONL is always written."""

    wandb_mode: Literal["offline", "online", "disabled"] = Field("offline", description="Weights & Biases mode")
    wandb_project: str = Field("lmrrg", description="Weights & Biases project")


class ServeConfig(Settings):
    """The HTTP service."""

    checkpoint: Path | None = Field(None, description="model directory to serve")
    max_upload_mb: PositiveInt = Field(64, description="largest upload, MB")
    decoders: PositiveInt = Field(1, description="child processes per replica that decode uploads")
    decoder_timeout_s: PositiveFloat = Field(20, description="longest time to decode one image, seconds")
    decoder_memory_mb: PositiveInt = Field(2048, description="memory that one image may need in its decoder, MB")
    replicas: PositiveInt = Field(1, description="Serve replicas")


class Config(Settings):
    """One way of running the whole system."""

    name: str = Field("demo", pattern=r"^[A-Za-z0-9][A-Za-z0-9._-]*$", description="run name; its folder's name")
    seed: int = Field(7, ge=0, description="seed of every random generator")
    storage_path: Path = Field(Path("runs"), description="parent of run folders, shared by the nodes")
    threads: PositiveInt = Field(1, description="torch threads per worker process on CPU")
    data: DataConfig = DataConfig()
    model: ModelConfig = ModelConfig()
    ray: RayConfig = RayConfig()
    sft: SFTConfig = SFTConfig()
    reward: RewardConfig = RewardConfig()
    rollout: RolloutConfig = RolloutConfig()
    ppo: PPOConfig = PPOConfig()
    evaluation: EvaluationConfig = EvaluationConfig()
    tracking: TrackingConfig = TrackingConfig()
    serve: ServeConfig = ServeConfig()

    def checkpoint_uri(self, stage: str) -> str | None:
        """``ray.checkpoint_storage/<name>/<stage>``, or None where that is not set; a stage's folders as ``sft/name``.

        What follows a "?" (endpoint and scheme of an S3-like store) stays at the end.
        """
        if not self.ray.checkpoint_storage:
            return None
        root, mark, options = self.ray.checkpoint_storage.partition("?")
        return f"{root.rstrip('/')}/{self.name}/{stage}{mark}{options}"

    @property
    def run_dir(self) -> Path:
        """Folder of this run."""
        return self.storage_path / self.name

    @property
    def is_own_reference(self) -> bool:
        """Whether the policy with its LoRA adapters off is the frozen reference, so that nothing else has to hold it.

        Where PPO moves the visual half too (``ppo.trainable=all``) it is not.
        """
        return self.model.decoder.lora_rank > 0 and self.ppo.trainable == "decoder"

    @property
    def parity_tolerance(self) -> float:
        """Largest mean difference of an engine's log-probs from the trainer's, nats.

        vLLM's float32 attention on a GPU rounds its products to TF32; a forward in 16 bits is some 0.01 nats a
        token off.
        """
        if self.ppo.parity_tolerance is not None:
            return self.ppo.parity_tolerance
        if self.rollout.dtype != "float32":
            return 0.2
        return 0.01 if self.rollout.gpus_per_engine else 1e-3

    @model_validator(mode="after")
    def _combinations(self) -> Config:
        if self.data.source != "phantom" and self.data.path is None:
            raise ValueError(f"data.path is required with data.source={self.data.source}")
        if self.reward.backend == "reference" and self.reward.reference_dir is None:
            raise ValueError("reward.reference_dir is required with reward.backend=reference; see `lmrrg doctor`")
        # The other half is the prompt's.
        for name, tokens in (
            ("rollout.max_new_tokens", self.rollout.max_new_tokens),
            ("data.max_report_tokens", self.data.max_report_tokens),
        ):
            if tokens > self.model.decoder.max_positions // 2:
                raise ValueError(f"{name} may be at most half of model.decoder.max_positions")
        self._check_placement()
        return self

    def _check_placement(self) -> None:
        rollout, ppo = self.rollout, self.ppo
        if rollout.tensor_parallel_size > 1 and rollout.gpus_per_engine != rollout.tensor_parallel_size:
            raise ValueError(
                f"rollout.tensor_parallel_size {rollout.tensor_parallel_size} needs as many rollout.gpus_per_engine, "
                f"not {rollout.gpus_per_engine:g}"
            )
        self._check_weight_transfer()
        trainers = 1 if self.is_own_reference else 2
        shared = trainers * ppo.gpus_per_worker + rollout.gpus_per_engine
        if self.ray.placement == "colocated" and shared > 1 + 1e-6:
            who = "a policy rank" if trainers == 1 else "a policy rank and the reference"
            raise ValueError(
                f"ray.placement=colocated puts {who} ({ppo.gpus_per_worker:g} GPU each) and an engine "
                f"({rollout.gpus_per_engine:g} GPU) on one GPU: together {shared:g}, at most 1"
            )

    def _check_weight_transfer(self) -> None:
        rollout, ppo = self.rollout, self.ppo
        if rollout.weight_transfer == "nccl" and not (ppo.gpus_per_worker and rollout.gpus_per_engine >= 1):
            raise ValueError(
                "rollout.weight_transfer=nccl needs policy ranks on GPUs and engines with GPUs of their own"
            )
        if rollout.weight_transfer == "ipc":
            shared = ppo.gpus_per_worker and 0 < rollout.gpus_per_engine < 1 and self.ray.placement == "colocated"
            if not shared or rollout.engines > ppo.workers:
                raise ValueError(
                    "rollout.weight_transfer=ipc needs ray.placement=colocated with a policy rank on each engine's GPU"
                )


def load_config(path: Path | str | None = None, overrides: Sequence[str] = ()) -> Config:
    """Read YAML settings and apply ``key.sub=value`` overrides (values are YAML).

    ``path`` may name several files, ``configs/iu_xray.yaml,configs/layouts/8gpu_split.yaml``: later ones win. Relative
    paths in the settings lie below ``$LMRRG_HOME`` where it is set: the storage that a cluster's nodes share. So do the
    decoder and the text encoder where a folder of that name is there; else the name is left as it is.

    Raises:
        ConfigError: the file is missing or not a mapping, a key occurs twice or is unknown (the nearest known key is
            named), a value is not allowed, or a combination is impossible.
    """
    origin = str(path) if path else "defaults"
    tree: dict[str, Any] = {}
    for file in str(path).split(",") if path else []:
        _merge(tree, read_yaml(Path(file)))
    for override in overrides:
        _apply_override(tree, override)
    try:
        config = Config.model_validate(tree)
    except ValidationError as error:
        where = origin + (f" with {' '.join(overrides)}" if overrides else "")
        raise ConfigError(_explain(error, where)) from error
    home = os.environ.get("LMRRG_HOME")
    return _rebase(config, Path(home)) if home else config


def save_config(config: Config, path: Path) -> None:
    """Write the resolved tree as YAML, every default included."""
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as out:
        yaml.safe_dump(config.model_dump(mode="json"), out, sort_keys=False)


def describe_config(model: type[BaseModel] = Config, prefix: str = "") -> Iterator[tuple[str, str, str, str]]:
    """Yield (dotted key, type, default, meaning with unit) for every setting, for ``--help`` and the docs."""
    for name, info in model.model_fields.items():
        if isinstance(info.annotation, type) and issubclass(info.annotation, BaseModel):
            yield from describe_config(info.annotation, f"{prefix}{name}.")
        else:
            yield f"{prefix}{name}", _type_name(info.annotation), str(info.default), info.description or ""


def config_help() -> str:
    """The settings as a text table."""
    rows = (f"  {key}  ({kind}; default {default})\n      {text}" for key, kind, default, text in describe_config())
    return "settings, given in the YAML file or as key=value:\n" + "\n".join(rows)


def _merge(tree: dict[str, Any], other: dict[str, Any]) -> None:
    """Put ``other`` into ``tree``, group by group; its values win."""
    for key, value in other.items():
        if isinstance(value, dict) and isinstance(tree.get(key), dict):
            _merge(tree[key], value)
        else:
            tree[key] = value


def _rebase(branch: Any, home: Path) -> Any:
    """The settings with every relative path below ``home``."""
    changed: dict[str, Any] = {}
    for name, value in branch:
        if isinstance(value, Path):
            changed[name] = home / value
        elif isinstance(value, Settings):
            changed[name] = _rebase(value, home)
        elif name in _NAME_OR_FOLDER and _is_folder(value, home):
            changed[name] = str(home / value)
    return branch.model_copy(update=changed)


def _is_folder(model: str | None, home: Path) -> bool:
    """Whether a model's name is that of a folder below ``home``; "minilm" always means the packaged one."""
    return model not in (None, "", "minilm") and (home / model).is_dir()


def _apply_override(tree: dict[str, Any], override: str) -> None:
    key, equals, text = override.partition("=")
    if not equals or not key:
        raise ConfigError(f"override {override!r} is not of the form key=value")
    *branches, leaf = key.split(".")
    for branch in branches:
        tree = tree.setdefault(branch, {})
        if not isinstance(tree, dict):
            raise ConfigError(f"override {override!r}: {branch} is a value, not a group of settings")
    try:
        tree[leaf] = yaml.safe_load(text)
    except yaml.YAMLError as error:
        raise ConfigError(f"override {override!r}: the value is not valid YAML") from error


def _explain(error: ValidationError, where: str) -> str:
    known = [key for key, *_ in describe_config()]
    lines = []
    for problem in error.errors():
        key = ".".join(str(part) for part in problem["loc"])
        if problem["type"] == "extra_forbidden":
            near = difflib.get_close_matches(key, known, n=1)
            siblings = sorted({k.removeprefix(_parent(key)).split(".")[0] for k in known if k.startswith(_parent(key))})
            hint = f"did you mean {near[0]}? " if near else ""
            lines.append(f"{key} is not a setting; {hint}allowed here: {', '.join(siblings)}")
        elif problem["type"] == "value_error":
            lines.append(f"{key or 'config'}: {problem['msg'].removeprefix('Value error, ')}")
        else:
            lines.append(f"{key}: {problem['msg']} (got {problem['input']!r})")
    return f"{where}: " + "; ".join(lines)


def _parent(key: str) -> str:
    return key.rpartition(".")[0] + "." if "." in key else ""


def _type_name(annotation: Any) -> str:
    choices = get_args(annotation)
    if getattr(annotation, "__name__", "") == "Literal" or (choices and not isinstance(choices[0], type)):
        return "|".join(str(choice) for choice in choices)
    return getattr(annotation, "__name__", str(annotation))
