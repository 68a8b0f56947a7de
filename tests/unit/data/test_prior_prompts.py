"""A prior's report reaches the prompts of training, evaluation and serving."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from transformers import PreTrainedTokenizerBase

from lmrrg.config.tree import Config
from lmrrg.engine.interfaces import GeneratedReport
from lmrrg.evaluation.evaluate import evaluate_checkpoint, evaluate_run
from lmrrg.imaging.reading import read_image
from lmrrg.manifest import write_studies
from lmrrg.model.checkpoint import load_checkpoint, save_checkpoint
from lmrrg.run.studies import prepare_studies, priors_of, studies_of
from lmrrg.studies import Split, Study
from rl.study_pool import StudyPool
from serve_app.reporter import Reporter, UploadedStudy
from serve_app.settings import ServiceSettings
from sft.train import run_sft
from sft.worker import Job, RankTrainer
from tests.conftest import SENTENCES
from tests.support.new_model import new_model

SPLITS: dict[Split, tuple[int, ...]] = {"train": (0, 1, 2), "val": (3, 4), "test": (5, 6, 7)}
"""The first study of each split has the last one as its prior, the others have none."""


@pytest.fixture(scope="module")
def config(
    tiny_config: Config, tiny_studies: list[Study], tmp_path_factory: pytest.TempPathFactory
) -> Config:
    """Make a run with prior reports in its prompts.

    Its limits cut the prior itself out of training and test.
    """
    folder = tmp_path_factory.mktemp("priors")
    rows = []
    for split, numbers in SPLITS.items():
        here = [replace(tiny_studies[number], split=split) for number in numbers]
        here[0] = replace(here[0], patient=here[-1].patient, prior=here[-1].id)
        rows += here
    write_studies(folder / "given.jsonl", rows)
    data = {"source": "jsonl", "path": folder / "given.jsonl", "train_limit": 2, "eval_limit": 2}
    decoder = tiny_config.model.decoder.model_copy(update={"max_positions": 512})
    model = {"use_prior": True, "max_prior_tokens": 200, "decoder": decoder}
    made = tiny_config.model_copy(
        update={
            "storage_path": folder,
            "data": tiny_config.data.model_copy(update=data),
            "model": tiny_config.model.model_copy(update=model),
            "evaluation": tiny_config.evaluation.model_copy(
                update={"meteor": False, "bootstrap": 50}
            ),
        }
    )
    prepare_studies(made, progress=False)
    return made


@pytest.fixture(scope="module")
def checkpoint(config: Config) -> Path:
    """A model that reads prior reports, as both stages of the run leave it."""
    for stage in ("sft", "ppo"):
        save_checkpoint(new_model(config, list(SENTENCES) * 3), config.run_dir / stage / "best", {})
    return config.run_dir / "sft" / "best"


def without(config: Config) -> Config:
    """The same settings, and no prior reports."""
    return config.model_copy(update={"model": config.model.model_copy(update={"use_prior": False})})


def priors_in(tokenizer: PreTrainedTokenizerBase, prompts: Sequence[Sequence[int]]) -> list[str]:
    """What each prompt says after its heading."""
    return [
        tokenizer.decode(list(ids)).partition(" prior report : ")[2].removesuffix("\n")
        for ids in prompts
    ]


class Recorder:
    """Stands in for the vLLM engine: remembers the prompts and always writes the same."""

    device = "cpu"

    def __init__(self, checkpoint: Path, *_: Any, **__: Any):
        self.model = load_checkpoint(checkpoint)
        self.prompts: list[list[list[int]]] = []

    def generate(self, features: Any, prompts: list[list[int]], **_: Any) -> list[list[Any]]:
        self.prompts.append(prompts)
        return [[SimpleNamespace(text="The lungs are clear.", finished=True)] for _ in prompts]

    def encode(self, features: Any) -> Any:
        return self.model.visual(features)

    def submit(self, tokens: Any, prompts: list[list[int]], **_: Any) -> list[str]:
        self.prompts.append(prompts)
        return [str(number) for number in range(len(prompts))]

    def step(self) -> dict[str, Any]:
        report = GeneratedReport([], [], "The lungs are clear.", True)
        return {str(number): report for number in range(len(self.prompts[-1]))}

    def abort(self, names: list[str]) -> None:
        pass

    def close(self) -> None:
        pass


def test_without_the_setting_no_manifest_is_read(config: Config, tmp_path: Path):
    assert priors_of(without(config).model_copy(update={"storage_path": tmp_path})) == {}


def test_sft_reads_the_prior_report(
    config: Config, tiny_studies: list[Study], monkeypatch: pytest.MonkeyPatch
):
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
    for settings, text in ((config, tiny_studies[2].findings), (without(config), "")):
        run_sft(settings.model_copy(update=again))
        ranks, tokenizer = RankTrainer(jobs[-1]), jobs[-1].tokenizer
        assert priors_in(tokenizer, ranks.train.batch([0, 1]).prompts) == [text, ""]
        assert priors_in(tokenizer, ranks.val.batch([0, 1]).prompts) == [
            tiny_studies[4].findings if text else "",
            "",
        ]


def test_ppo_reads_the_prior_report(config: Config, tiny_studies: list[Study], checkpoint: Path):
    tokenizer = load_checkpoint(checkpoint).tokenizer
    for split, prior in (("train", 2), ("val", 4)):
        text = tiny_studies[prior].findings
        batch = ppo_studies(config, split, checkpoint).take([1, 0])
        assert priors_in(tokenizer, batch.prompts) == ["", text]
        plain = ppo_studies(without(config), split, checkpoint).take([1, 0])
        assert priors_in(tokenizer, plain.prompts) == ["", ""]


def ppo_studies(config: Config, split: Split, checkpoint: Path) -> StudyPool:
    """Return two studies of a split as PPO reads them."""
    studies = studies_of(config, split)
    branches = (config.data, config.model, checkpoint, config.evidence)
    return StudyPool(studies, priors_of(config), *branches, limit=2)


@pytest.mark.parametrize("setting", [True, False])
def test_evaluation_shows_a_model_what_it_was_trained_to_read(
    config: Config, tiny_studies: list[Study], checkpoint: Path, tmp_path: Path, setting: bool
):
    """The checkpoint decides, whatever the settings of the evaluation say."""
    engines: list[Recorder] = []

    def load(directory: Path) -> Recorder:
        engines.append(Recorder(directory))
        return engines[-1]

    settings = config if setting else without(config)
    evaluate_checkpoint(
        checkpoint, config.run_dir / "studies.jsonl", settings, tmp_path / "out.json", load
    )
    evaluate_run(settings, load)
    assert len(engines) == 3
    for engine in engines:
        assert len(engine.prompts) == 3, "with the image, a blank one and another one"
        for prompts in engine.prompts:
            assert priors_in(engine.model.tokenizer, prompts) == [tiny_studies[7].findings, ""]


def test_the_service_reads_the_prior_report_that_comes_with_the_images(
    config: Config,
    tiny_studies: list[Study],
    checkpoint: Path,
    tiny_checkpoint: Path,
    monkeypatch: pytest.MonkeyPatch,
):
    monkeypatch.setattr("serve_app.reporter.ReportEngine", Recorder)
    images = [read_image(tiny_studies[0].images[0].path.read_bytes())]
    studies = [UploadedStudy(images, prior=text) for text in ("Large right\neffusion.", " ", "")]
    for directory, read in ((checkpoint, True), (tiny_checkpoint, False)):
        reporter: Any = Reporter(directory, ServiceSettings.of(config))
        written = reporter.write(studies)
        assert [report.prior_used for report in written] == [read, False, False]
        said = priors_in(reporter._engine.model.tokenizer, reporter._engine.prompts[-1])
        assert said == ["Large right effusion." if read else "", "", ""]
