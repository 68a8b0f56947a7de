"""The image encoder's evidence reaches the prompts of training, PPO, evaluation and serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch
from transformers import PreTrainedTokenizerBase

from lmrrg.config.model import EvidenceConfig
from lmrrg.config.tree import Config
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.evaluation.evaluate import evaluate_checkpoint
from lmrrg.imaging.reading import read_image
from lmrrg.manifest import write_studies
from lmrrg.model.checkpoint import load_checkpoint, save_checkpoint
from lmrrg.model.evidence import EvidenceError, names_of, noisy_evidence, stated_findings
from lmrrg.run.studies import prepare_studies, studies_of
from lmrrg.studies import LABELS, Split, Study
from lmrrg.vision.files import FeatureFiles, load_features
from lmrrg.vision.study_features import StudyFeatures
from rl.study_pool import StudyPool
from serve_app.reporter import Reporter, UploadedStudy
from serve_app.settings import ServiceSettings
from sft.job import Job, epoch_evidence
from sft.train import run_sft
from sft.worker import RankTrainer
from tests.conftest import SENTENCES
from tests.support.new_model import new_model

POINT = EvidenceConfig(threshold=0.5)


@pytest.fixture
def class_head(monkeypatch: pytest.MonkeyPatch) -> None:
    """Give the packaged encoder a class head: evidence that depends on the film."""

    def see(features: StudyFeatures) -> None:
        if features.evidence is None or features.evidence.isnan().all():
            channels = features.patches[..., : len(LABELS)].float().mean((1, 2))
            # Scaled so that some are above the operating point, and others for other films.
            features.evidence = (200 * channels).frac().abs()

    monkeypatch.setattr(StudyFeatures, "__post_init__", see)
    head = SimpleNamespace(calibration="any")
    monkeypatch.setattr("lmrrg.model.evidence.encoder_info", lambda *_: head)


@pytest.fixture(scope="module")
def config(
    tiny_config: Config, tiny_studies: list[Study], tmp_path_factory: pytest.TempPathFactory
) -> Config:
    folder = tmp_path_factory.mktemp("evidence")
    splits: dict[Split, slice] = {"train": slice(0, 4), "val": slice(4, 6), "test": slice(6, 8)}
    rows = []
    for split, part in splits.items():
        for number, study in enumerate(tiny_studies[part]):
            labels = {"Cardiomegaly": 1} if number else {"Pleural Effusion": -1}
            rows.append(replace(study, split=split, labels=labels))
    write_studies(folder / "given.jsonl", rows)
    decoder = tiny_config.model.decoder.model_copy(update={"max_positions": 512})
    model = {"evidence_words": True, "decoder": decoder}
    data = {"source": "jsonl", "path": folder / "given.jsonl"}
    quick = {"meteor": False, "bootstrap": 50}
    made = tiny_config.model_copy(
        update={
            "storage_path": folder,
            "evidence": POINT,
            "data": tiny_config.data.model_copy(update=data),
            "model": tiny_config.model.model_copy(update=model),
            "evaluation": tiny_config.evaluation.model_copy(update=quick),
        }
    )
    prepare_studies(made, progress=False)
    return made


@pytest.fixture(scope="module")
def checkpoint(config: Config) -> Path:
    folder = config.run_dir / "sft" / "best"
    save_checkpoint(new_model(config, list(SENTENCES) * 3), folder, {})
    return folder


def told(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]) -> list[str]:
    """Return what each prompt says after its heading."""
    texts = [tokenizer.decode(list(ids)) for ids in prompts]
    return [text.partition(" findings : ")[2].removesuffix("\n") for text in texts]


def expected(features: StudyFeatures, threshold: float = POINT.threshold) -> list[str]:
    kept = torch.where(features.evidence >= threshold, features.evidence, 0.0)
    return [" , ".join(names_of(row)) or "none" for row in kept]


class Recorder:
    """Stands in for the vLLM engine: remembers features and prompts, always writes the same."""

    device = "cpu"

    def __init__(self, checkpoint: Path, *_: Any, **__: Any):
        self.model = load_checkpoint(checkpoint)
        self.prompts: list[list[list[int]]] = []

    def generate(self, features: Any, prompts: list[list[int]], **_: Any) -> list[list[Any]]:
        self.prompts.append(prompts)
        return [[SimpleNamespace(text="The lungs are clear.", finished=True)] for _ in prompts]

    def encode(self, features: Any) -> Any:
        return self.model.visual(features)

    def submit(self, tokens: Any, prompts: list[list[int]], seeds: list[int]) -> list[str]:
        self.prompts.append(prompts)
        self.begun = [f"{number}" for number, _ in enumerate(seeds)]
        return self.begun

    def step(self) -> dict[str, Any]:
        tokenizer = self.model.tokenizer
        ids = [*tokenizer.encode("The lungs are clear."), tokenizer.eos_token_id]
        text = tokenizer.decode(ids, skip_special_tokens=True).strip()
        return dict.fromkeys(self.begun, GeneratedReport(ids, [-0.5] * len(ids), text, True))

    def abort(self, names: list[str]) -> None:
        assert not names

    def close(self) -> None:
        pass


def ranks_of(config: Config, monkeypatch: pytest.MonkeyPatch) -> RankTrainer:
    """Return the trainer of an SFT run, stopped before Ray and DeepSpeed start."""
    jobs: list[Job] = []
    for name in ("connect", "warn_of_idle_gpus"):
        monkeypatch.setattr(f"sft.train.{name}", lambda _: None)
    monkeypatch.setattr(
        "sft.train._trainer", lambda job, _: jobs.append(job) or SimpleNamespace(fit=lambda: None)
    )
    monkeypatch.setattr("sft.train.copy_models", lambda *_: Path())
    monkeypatch.setattr(
        "sft.worker.dist", SimpleNamespace(get_rank=lambda: 0, get_world_size=lambda: 1)
    )
    monkeypatch.setattr("sft.worker.deepspeed_engine", lambda *_: None)
    again = {"sft": config.sft.model_copy(update={"resume": False}), "name": "sft-only"}
    run_sft(config.model_copy(update=again))
    return RankTrainer(jobs[-1])


@pytest.mark.usefixtures("class_head")
def test_sft_tells_the_labels_in_training_and_the_encoders_findings_in_validation(
    config: Config, monkeypatch: pytest.MonkeyPatch
):
    ranks = ranks_of(config, monkeypatch)
    tokenizer = ranks.job.tokenizer
    studies = studies_of(config, "train")
    rows = range(len(studies))
    truth = noisy_evidence(stated_findings(studies, "findings"), 0.0, 0.0, 0, 0)
    words = told(tokenizer, ranks.train.batch(rows, None, truth).prompts)
    assert words == ["pleural effusion", *["cardiomegaly"] * 3]
    found = load_features(studies_of(config, "val"), config.data, progress=False)
    assert told(tokenizer, ranks.val.batch([0, 1]).prompts) == expected(found)
    epochs = [epoch_evidence(ranks.train, config, epoch) for epoch in range(40)]
    said = [told(tokenizer, ranks.train.batch(rows, None, noisy).prompts) for noisy in epochs]
    assert any(one != words for one in said)
    assert sum(one == words for one in said) > 8
    assert ranks.model.evidence_thresholds.min() < 1  # from the validation studies


@pytest.mark.usefixtures("class_head")
def test_ppo_imitates_the_encoder_on_training_studies_and_reads_it_on_others(
    config: Config, checkpoint: Path
):
    pools = []
    for split in ("train", "val"):
        branches = (config.data, config.model, checkpoint, config.evidence)
        pools.append(StudyPool(studies_of(config, split), {}, *branches))
    train, val = pools
    rows = range(len(train))
    seen = load_features(train.studies, config.data, progress=False)
    assert told(train.tokenizer, train.take(rows).prompts) == expected(seen)
    train.imitate_evidence(val, 7)
    batch = train.take(rows)
    assert told(train.tokenizer, batch.prompts) == expected(batch.features, 1e-9)
    assert told(train.tokenizer, batch.prompts) != expected(seen)
    assert torch.equal(batch.features.patches, seen.patches)
    again = train.take([2, 0])
    assert again.prompts == [batch.prompts[2], batch.prompts[0]]
    assert train.abnormal_weights(1.0) is None
    assert train.abnormal_weights(3.0) == [1.0, 3.0, 3.0, 3.0]  # the first is only uncertain
    # Each class comes from a validation study that agrees with the training study about it.
    given = load_features(val.studies, config.data, progress=False).evidence
    effusion = LABELS.index("Pleural Effusion")
    for row, study in enumerate(train.studies):
        value = batch.features.evidence[row, effusion]
        agreeing = given[0 if "Pleural Effusion" in (study.labels or {}) else 1, effusion]
        assert value == (agreeing if agreeing >= POINT.threshold else 0)


@pytest.mark.usefixtures("class_head")
def test_another_patients_film_brings_its_own_evidence(
    config: Config, checkpoint: Path, tmp_path: Path
):
    engines: list[Recorder] = []

    def load(directory: Path) -> Recorder:
        engines.append(Recorder(directory))
        return engines[-1]

    points = config.evaluation.model_copy(update={"operating_points": [0.9, 0.1]})
    asked = config.model_copy(update={"evaluation": points})
    results = evaluate_checkpoint(
        checkpoint, config.run_dir / "studies.jsonl", asked, tmp_path / "out.json", load
    )
    assert results["stamp"]["evidence"] == {"threshold": 0.5, "precision": None}
    tokenizer = engines[0].model.tokenizer
    said = [told(tokenizer, prompts) for prompts in engines[0].prompts]
    own, blank, other, *at_points = said
    studies = studies_of(config, config.data.eval_split)
    assert own == expected(load_features(studies, config.data, progress=False))
    assert other == own[::-1]  # of two patients each gets the other's
    assert own != other
    assert blank[0] == blank[1]
    seen = load_features(studies, config.data, progress=False)
    assert at_points == [expected(seen, 0.9), expected(seen, 0.1)]
    curve = results["systems"][0]["operating_points"]
    assert [point["threshold"] for point in curve] == [0.1, 0.9]
    assert "threshold of the evidence" in (tmp_path / "out.md").read_text()


def test_operating_points_need_a_model_that_reads_evidence(
    config: Config, tiny_checkpoint: Path, tmp_path: Path
):
    points = config.evaluation.model_copy(update={"operating_points": [0.5]})
    asked = config.model_copy(update={"evaluation": points})
    manifest = config.run_dir / "studies.jsonl"
    with pytest.raises(EvidenceError, match=r"no_evidence: evaluation\.operating_points"):
        evaluate_checkpoint(tiny_checkpoint, manifest, asked, tmp_path / "out.json", Recorder)


@pytest.mark.usefixtures("class_head")
@pytest.mark.parametrize("threshold", [0.2, 0.8])
def test_the_service_tells_the_evidence_of_the_films(
    config: Config,
    tiny_studies: list[Study],
    checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
    threshold: float,
):
    monkeypatch.setattr("serve_app.reporter.ReportEngine", Recorder)
    point = config.model_copy(update={"evidence": EvidenceConfig(threshold=threshold)})
    reporter: Any = Reporter(checkpoint, ServiceSettings.of(point))
    studies = [replace(study, images=study.images[:1]) for study in tiny_studies[:3]]
    images = [[read_image(study.images[0].path.read_bytes())] for study in studies]
    answers = reporter.write([UploadedStudy(one) for one in images])
    # EOS is no token of the sentence; all others were as probable as the engine said.
    sentences = [sentence for answer in answers for sentence in answer.sentences]
    assert len(sentences) == len(studies)
    assert all(one.uncertainty and one.uncertainty.mean_logprob == -0.5 for one in sentences)
    said = told(reporter._engine.model.tokenizer, reporter._engine.prompts[-1])
    seen = load_features(studies, config.data, progress=False)
    # An uploaded PNG does not say its view, which the evidence does not depend on.
    assert said == expected(seen, threshold)


def test_without_a_class_head_nothing_starts(
    config: Config, checkpoint: Path, monkeypatch: pytest.MonkeyPatch
):
    with pytest.raises(EvidenceError, match="no_evidence"):
        ranks_of(config, monkeypatch)
    branches = (config.data, config.model, checkpoint, config.evidence)
    with pytest.raises(EvidenceError, match="no_evidence"):
        StudyPool(studies_of(config, "train"), {}, *branches)
    monkeypatch.setattr("serve_app.reporter.ReportEngine", Recorder)
    with pytest.raises(EvidenceError, match="no_evidence"):
        Reporter(checkpoint, ServiceSettings.of(config))
    assert FeatureFiles(studies_of(config, "val"), config.data).select([0]).evidence.isnan().all()
