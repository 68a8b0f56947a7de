"""The driver of SFT: where its checkpoints lie, what a rank's failure leads to, and what its command says."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs
import pytest
from ray.exceptions import ActorDiedError
from ray.train.v2._internal.execution.failure_handling import FailureDecision
from ray.train.v2.api.config import FailureConfig
from ray.train.v2.api.exceptions import WorkerGroupError

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.imaging.radiograph import ImageError
from sft.errors import SFTError
from sft.failures import FailurePolicy
from sft.train import _delete, _fit, _storage, main

STORE = "s3://bucket/prefix?endpoint_override=127.0.0.1%3A9&scheme=http"


def test_what_a_rank_says_comes_out_as_it_was_raised():
    class Trainer:
        def fit(self) -> None:
            raise WorkerGroupError(
                "a wall of text", {0: ValueError("closed"), 1: SFTError("loss_not_finite", "NaN")}
            )

    with pytest.raises(SFTError, match="loss_not_finite"):
        _fit(Trainer())


def test_only_what_another_attempt_may_cure_is_tried_again():
    policy = FailurePolicy(FailureConfig(max_failures=1))
    lost, said = (
        {0: ActorDiedError()},
        {0: ValueError("closed"), 1: ImageError("truncated", "early end")},
    )
    assert policy.make_decision(WorkerGroupError("said", said)) is FailureDecision.RAISE
    assert policy.make_decision(WorkerGroupError("lost", lost)) is FailureDecision.RETRY
    assert policy.make_decision(WorkerGroupError("lost", lost)) is FailureDecision.RAISE, (
        "the limit counts"
    )


def test_the_options_of_a_store_stay_at_the_end():
    part = _storage(
        load_config(None, ["name=demo", f"ray.checkpoint_storage={STORE}"]), "sft/ray_train"
    )
    assert (
        part == "s3://bucket/prefix/demo/sft/ray_train?endpoint_override=127.0.0.1%3A9&scheme=http"
    )
    _, path = pyarrow.fs.FileSystem.from_uri(part)
    assert path == "bucket/prefix/demo/sft/ray_train"


def test_without_a_store_checkpoints_lie_in_the_run(tmp_path: Path):
    config = Config(name="demo", storage_path=tmp_path / "what?")
    assert _storage(config, "sft/ray_train") == str(
        tmp_path / "what?" / "demo" / "sft" / "ray_train"
    )


def test_starting_again_deletes_the_store_and_the_folder(tmp_path: Path):
    folder, store = tmp_path / "sft", tmp_path / "store" / "ray_train"
    for part in (folder / "best", store / "checkpoint"):
        part.mkdir(parents=True)
    for _ in range(2):  # the second time there is nothing
        _delete(folder, store.as_uri())
        assert [path.name for path in tmp_path.rglob("*")] == ["store"]


def test_a_store_that_fails_leaves_the_models(tmp_path: Path):
    (tmp_path / "best").mkdir()
    with pytest.raises(pyarrow.ArrowInvalid):
        _delete(tmp_path, "nowhere://bucket/prefix/ray_train")
    assert (tmp_path / "best").is_dir()


def test_the_command_refuses_a_wrong_setting_in_one_sentence(capsys: pytest.CaptureFixture[str]):
    assert main(["sft.epoch=3"]) == 2
    error = capsys.readouterr().err
    assert "sft.epoch is not a setting" in error
    assert "Traceback" not in error


def test_a_run_folder_that_cannot_be_made_ends_with_one_sentence(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
):
    (tmp_path / "file").write_text("")
    assert main([f"storage_path={tmp_path}/file", "name=demo"]) == 2
    assert capsys.readouterr().err == f"sft: {tmp_path}/file/demo: Not a directory\n"
