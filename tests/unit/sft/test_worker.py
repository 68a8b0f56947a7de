"""What chooses the best epoch, and when training ends, without Ray and DeepSpeed."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from pydantic import ValidationError

from lmrrg.config.sft import SFTConfig
from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.model.evidence import stated_findings
from lmrrg.studies import Study
from lmrrg.vision.files import FeatureFiles
from sft.batches import Examples
from sft.greedy_validation import findings_f1, written_findings
from sft.worker import RankTrainer


def rank(sft: SFTConfig, **state: Any) -> Any:
    """Return a rank without model and engine."""
    made = RankTrainer.__new__(RankTrainer)
    vars(made).update({"sft": sft, "best": math.inf, "best_epoch": 0, "rank": 0, "workers": 1})
    vars(made).update(state)
    return made


def test_the_criterion_is_the_loss_or_what_the_reports_lack_of_a_perfect_f1():
    metrics = {"val/nll_per_token": 1.7, "val/clinical_f1": 0.3}
    assert rank(SFTConfig())._criterion(metrics) == 1.7
    assert rank(SFTConfig(select_by="clinical_f1"))._criterion(metrics) == pytest.approx(0.7)


def test_training_ends_when_no_epoch_was_better_for_as_long_as_the_patience():
    impatient = rank(SFTConfig(epochs=10, patience=2), best_epoch=3)
    assert [impatient._is_finished(epochs) for epochs in (3, 4, 5, 10)] == [
        False,
        False,
        True,
        True,
    ]
    patient = rank(SFTConfig(epochs=10), best_epoch=1)
    assert [patient._is_finished(epochs) for epochs in (9, 10)] == [False, True]


def test_a_rank_that_is_finished_trains_no_further(monkeypatch: pytest.MonkeyPatch):
    made = rank(
        SFTConfig(epochs=10, patience=1),
        config=SimpleNamespace(run_dir=Path("unused")),
        best_epoch=2,
    )
    monkeypatch.setattr(made, "_train_epoch", lambda *_: pytest.fail("trained"))
    monkeypatch.setattr("sft.worker.RunTracker", lambda *_: pytest.MonkeyPatch.context())
    made.run(3)


def test_the_clinical_f1_reads_what_the_model_writes(
    tiny_config: Config,
    tiny_studies: list[Study],
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    model = load_checkpoint(tiny_checkpoint)
    files = FeatureFiles(tiny_studies, tiny_config.data, progress=False)
    branches = (tiny_config.data, tiny_config.model)
    examples = Examples(tiny_studies, files, model.tokenizer, *branches)
    studies = [study.__class__(**{**vars(study), "labels": None}) for study in tiny_studies]
    # A model that writes the reference of every other study, and of the rest that all is well.
    wanted = [study.findings if i % 2 else "Clear." for i, study in enumerate(studies)]
    queue = list(wanted)

    def write(_: Any, features: Any, prompts: list[Any], tokens: int) -> list[str]:
        assert len(features) == len(prompts)
        assert tokens == tiny_config.data.max_report_tokens
        return [queue.pop(0) for _ in prompts]

    monkeypatch.setattr("sft.greedy_validation.greedy_reports", write)
    made = rank(
        SFTConfig(select_by="clinical_f1", select_studies=6),
        config=tiny_config,
        model=model,
        val=examples,
        job=SimpleNamespace(val=studies),
    )
    monkeypatch.setattr(made, "_sum_over_ranks", lambda *values: list(values))
    truth = stated_findings(studies[:6], "findings")[:, :13]
    hits = truth[1::2].sum()
    assert 0 < hits < truth.sum()
    expected = float(2 * hits / (truth.sum() + hits))
    assert made._clinical_f1() == {"val/clinical_f1": pytest.approx(expected)}
    assert rank(SFTConfig())._clinical_f1() == {}


def test_the_models_own_reports_are_read_in_order(
    tiny_config: Config, tiny_studies: list[Study], tiny_checkpoint: Path
):
    model = load_checkpoint(tiny_checkpoint)
    files = FeatureFiles(tiny_studies, tiny_config.data, progress=False)
    examples = Examples(tiny_studies, files, model.tokenizer, tiny_config.data, tiny_config.model)
    found = written_findings(model, examples, [2, 0, 1], 8)
    assert found.shape == (3, 13)
    assert torch.equal(found[[1]], written_findings(model, examples, [0], 8))


def test_no_findings_on_either_side_are_no_success():
    nothing = torch.zeros(3, 13, dtype=torch.bool)
    assert findings_f1(nothing, nothing) == 0
    assert findings_f1(~nothing, ~nothing) == 1


def test_clinical_selection_refuses_sharded_weights():
    with pytest.raises(ValidationError, match="zero_stage 2 or lower"):
        SFTConfig(select_by="clinical_f1", zero_stage=3)
