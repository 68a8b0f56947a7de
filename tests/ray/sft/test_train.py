"""Test SFT on a real Ray cluster with real DeepSpeed ranks."""

from __future__ import annotations

import shutil
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch

from lmrrg.config.tree import Config
from lmrrg.model.checkpoint import (
    full_state,
    load_checkpoint,
    read_checkpoint_config,
    state_checksum,
)
from lmrrg.run.studies import prepare_studies, studies_of
from lmrrg.run.tracking import read_metrics
from lmrrg.studies import StudyError
from lmrrg.vision.cache import FeatureError
from lmrrg.vision.files import FeatureFiles
from sft.batches import Examples
from sft.errors import SFTError
from sft.objective import Objective
from sft.ray_train import fit
from sft.train import _trainer, run_sft
from tests.ray.sft.rank_killer import rank_killed_after

pytestmark = pytest.mark.cluster

EPOCHS = 3


def settings(config: Config, name: str, **sft: object) -> Config:
    """Return a run of its own on the phantoms of ``config``: two ranks, ZeRO-1."""
    changes = {
        "workers": 2,
        "cpus_per_worker": 0.5,
        "epochs": EPOCHS,
        "minibatch": 4,
        "microbatch": 2,
        **sft,
    }
    run = config.model_copy(update={"name": name, "sft": config.sft.model_copy(update=changes)})
    # The phantoms are drawn once and copied: the manifest names its images relative to itself.
    shutil.copytree(prepare_studies(config, progress=False).parent, run.run_dir, dirs_exist_ok=True)
    return run


def history(config: Config) -> list[dict[str, float]]:
    """Return the losses of every logged step."""
    lines = read_metrics(config.run_dir, "sft")
    return [
        {k: v for k, v in line.items() if "nll" in k or "disease" in k or k == "step"}
        for line in lines
    ]


def assert_same_history(one: Config, other: Config, tolerance: float) -> None:
    assert len(history(one)) == len(history(other)) > EPOCHS
    for a, b in zip(history(one), history(other), strict=True):
        assert a == pytest.approx(b, rel=tolerance), "the two runs went apart"


@pytest.fixture(scope="module")
def config(tiny_config: Config, tmp_path_factory: pytest.TempPathFactory) -> Config:
    return tiny_config.model_copy(
        update={"storage_path": tmp_path_factory.mktemp("sft"), "name": "phantoms"}
    )


@pytest.fixture(scope="module")
def finished(config: Config, ray_cluster: Path) -> Config:
    """Run two ranks from start to end."""
    run = settings(config, "base")
    assert run_sft(run) == run.run_dir / "sft" / "best"
    return run


def test_the_best_checkpoint_is_what_was_validated(finished: Config):
    best = finished.run_dir / "sft" / "best"
    provenance = read_checkpoint_config(best)["provenance"]
    val = studies_of(finished, "val")
    model = load_checkpoint(best)
    files = FeatureFiles(val, finished.data, progress=False)
    examples = Examples(val, files, model.tokenizer, finished.data, finished.model)
    with torch.no_grad():
        nll, *_ = Objective(model, finished.sft, None)(examples.batch(range(len(val))))
    reported = [
        line["val/nll_per_token"]
        for line in read_metrics(finished.run_dir, "sft")
        if "epoch" in line
    ]
    assert len(reported) == EPOCHS
    assert float(nll) / sum(examples.lengths) == pytest.approx(min(reported), rel=1e-4)
    assert provenance["metrics"]["val/nll_per_token"] == pytest.approx(min(reported))
    assert provenance["data_sha256"]


def test_it_learns_and_says_how_fast(finished: Config):
    lines = read_metrics(finished.run_dir, "sft")
    losses = [line["train/nll_per_token"] for line in lines if "train/nll_per_token" in line]
    assert losses[-1] < losses[0]
    assert all(
        line["train/studies_per_second"] > 0 for line in lines if "train/learning_rate" in line
    )
    assert (
        read_checkpoint_config(finished.run_dir / "sft" / "last")["provenance"]["epoch"] == EPOCHS
    )


@pytest.mark.parametrize("stage", [0, 3])
def test_one_rank_of_another_zero_stage_takes_the_same_steps(
    finished: Config, config: Config, stage: int
):
    """Ranks, microbatches and ZeRO stage are ways to compute the same thing."""
    other = settings(config, f"zero{stage}", workers=1, microbatch=4, zero_stage=stage)
    run_sft(other)
    norms = [
        [
            line["train/gradient_norm"]
            for line in read_metrics(run.run_dir, "sft")
            if "train/gradient_norm" in line
        ]
        for run in (finished, other)
    ]
    assert norms[0] == pytest.approx(norms[1], rel=1e-2)
    assert_same_history(finished, other, 1e-3)
    states = [
        full_state(load_checkpoint(run.run_dir / "sft" / "last")) for run in (finished, other)
    ]
    for name, tensor in states[0].items():
        torch.testing.assert_close(tensor, states[1][name], atol=2e-3, rtol=1e-2, msg=name)


def test_a_killed_rank_costs_nothing_but_time(finished: Config, config: Config):
    run = settings(config, "killed")
    with rank_killed_after(1, run.run_dir / "sft" / "ray_train"):
        run_sft(run)
    assert_same_history(finished, run, 1e-6)
    checksums = [
        state_checksum(full_state(load_checkpoint(r.run_dir / "sft" / "last")))
        for r in (finished, run)
    ]
    assert checksums[0] == checksums[1]


def test_a_complete_run_is_not_trained_again(finished: Config, monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr("sft.train._trainer", lambda *_: pytest.fail("trained again"))
    assert run_sft(finished) == finished.run_dir / "sft" / "best"


def test_other_settings_do_not_continue_a_run(finished: Config):
    changed = finished.model_copy(
        update={"sft": finished.sft.model_copy(update={"learning_rate": 1e-5})}
    )
    with pytest.raises(SFTError, match="resume_mismatch"):
        run_sft(changed)


def test_other_images_in_the_same_files_do_not_continue_a_run(finished: Config):
    image = studies_of(finished, "train")[0].images[0].path
    before = image.read_bytes()
    image.write_bytes(before + b"\0\0")
    with pytest.raises(SFTError, match=r"resume_mismatch: .* other images"):
        run_sft(finished)
    image.write_bytes(before)
    assert run_sft(finished) == finished.run_dir / "sft" / "best"


def test_a_coded_error_of_a_rank_is_not_tried_again(
    config: Config, ray_cluster: Path, tmp_path: Path, monkeypatch
):
    def refuse(_: object) -> None:
        with (tmp_path / "attempts").open("a") as out:
            out.write("x")
        raise SFTError("bad_input", "it is the same the next time")

    monkeypatch.setattr("sft.train.train_rank", refuse)
    run = config.model_copy(
        update={"sft": config.sft.model_copy(update={"workers": 1, "cpus_per_worker": 0.5})}
    )
    with pytest.raises(SFTError, match="bad_input: it is the same the next time"):
        fit(lambda: _trainer(SimpleNamespace(config=run), str(tmp_path / "store")))
    assert (tmp_path / "attempts").read_text() == "x"


def test_weights_that_are_no_numbers_become_no_model(config: Config):
    run = settings(config, "nan", learning_rate=1e25, epochs=1, minibatch=64, microbatch=32)
    with pytest.raises(SFTError, match="loss_not_finite: on the validation studies"):
        run_sft(run)
    assert not (run.run_dir / "sft" / "best").exists()


def test_settings_that_cannot_start_leave_the_name_free(config: Config):
    run = settings(config, "free")
    wrong = run.model_copy(update={"data": run.data.model_copy(update={"image_size": 100})})
    with pytest.raises(FeatureError, match="image_size"):
        run_sft(wrong)
    assert not (run.run_dir / "sft" / "fingerprint").exists()


def test_a_manifest_without_validation_studies_is_refused(config: Config):
    run = settings(config, "empty")
    data = run.data.model_copy(update={"source": "jsonl", "path": run.run_dir / "studies.jsonl"})
    manifest = run.run_dir / "studies.jsonl"
    lines = [line for line in manifest.read_text().splitlines() if '"split": "val"' not in line]
    manifest.write_text("\n".join(lines) + "\n")
    with pytest.raises(StudyError, match=r"empty_split: .* val"):
        run_sft(run.model_copy(update={"name": "empty2", "data": data}))
