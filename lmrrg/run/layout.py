"""The folder of a run: the path of everything in it."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path


@dataclass(frozen=True)
class RunLayout:
    """Paths inside the folder of one run, ``<storage_path>/<name>``.

    The paths need not exist. ``wandb/`` beside them is made and filled by Weights & Biases.
    """

    root: Path

    @property
    def settings(self) -> Path:
        """All settings, defaults included (YAML)."""
        return self.root / "config.yaml"

    @property
    def record(self) -> Path:
        """Versions, data hash and commands of the run (JSON)."""
        return self.root / "run.json"

    @property
    def studies(self) -> Path:
        """Manifest of the studies (JSONL)."""
        return self.root / "studies.jsonl"

    @property
    def studies_audit(self) -> Path:
        """What the import kept and dropped (JSON)."""
        return self.root / "studies.audit.json"

    @property
    def studies_origin(self) -> Path:
        """What the manifest was made from (JSON)."""
        return self.root / "studies.made_from.json"

    @property
    def lock(self) -> Path:
        """Who works in the folder now (JSON); absent while nobody does."""
        return self.root / "lock.json"

    @property
    def log(self) -> Path:
        """Folder of the log files."""
        return self.root / "log"

    @property
    def report(self) -> Path:
        """The run report (HTML)."""
        return self.root / "report.html"

    def metrics(self, stage: str) -> Path:
        """Return the metrics of a stage (JSONL)."""
        return self.root / "metrics" / f"{stage}.jsonl"

    def stage(self, stage: str) -> Path:
        """Return the folder of a training stage: "eye", "sft" or "ppo"."""
        return self.root / stage

    def best(self, stage: str) -> Path:
        """Return the model directory with the best weights of a training stage."""
        return self.stage(stage) / "best"

    def last(self, stage: str) -> Path:
        """Return the model directory with the last weights of a training stage."""
        return self.stage(stage) / "last"

    def fingerprint(self, stage: str) -> Path:
        """Return the fingerprint of the run that the folder of "eye" or "sft" belongs to (text)."""
        return self.stage(stage) / "fingerprint"

    def stage_settings(self, stage: str) -> Path:
        """Return the settings that the fingerprint stands for (JSON)."""
        return self.stage(stage) / "settings.json"

    @property
    def ppo_start(self) -> Path:
        """Path of the SFT model that PPO started from (text)."""
        return self.stage("ppo") / "sft_checkpoint"

    @property
    def ppo_states(self) -> Path:
        """Folder of the training states of PPO."""
        return self.stage("ppo") / "state"

    @property
    def ppo_rollouts(self) -> Path:
        """Folder of the dumped rollouts."""
        return self.stage("ppo") / "rollouts"

    @property
    def ppo_credited(self) -> Path:
        """Sampled reports of the last iteration with the credit of each sentence (JSON)."""
        return self.stage("ppo") / "credited.json"

    @property
    def ppo_replayed(self) -> Path:
        """Model directory that ``rl/replay.py --train`` writes."""
        return self.stage("ppo") / "replayed"

    def ppo_profile(self, update: int) -> Path:
        """Return the torch trace of a policy update."""
        return self.stage("ppo") / "profile" / f"update{update}.json.gz"

    def ppo_not_finite(self, rank: int) -> Path:
        """Return the batch on which the loss of a policy rank was not finite."""
        return self.stage("ppo") / f"not_finite-rank{rank}.safetensors"

    @property
    def evaluation(self) -> Path:
        """Folder of the final comparison."""
        return self.root / "evaluation"

    @property
    def results(self) -> Path:
        """Results of the final comparison (JSON); the same as a table lies beside it (Markdown)."""
        return self.evaluation / "results.json"

    @property
    def region_attention(self) -> Path:
        """Attention of the regions on the example studies."""
        return self.evaluation / "regions.safetensors"

    def reports(self, system: str) -> Path:
        """Return the generated reports of a system with their scores (JSONL)."""
        return self.evaluation / f"{system}.jsonl"
