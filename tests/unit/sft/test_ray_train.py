"""Test what the training stages share: their storage, and their attempts after failures."""

from __future__ import annotations

from pathlib import Path

import pyarrow.fs
import pytest
from ray.exceptions import ActorDiedError
from ray.train import WorkerGroupError

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.errors import INTERRUPTED, run_command
from lmrrg.imaging.radiograph import ImageError
from sft.errors import SFTError
from sft.ray_train import MAX_FAILURES, delete_checkpoints, fit, storage_of

STORE = "s3://bucket/prefix?endpoint_override=127.0.0.1%3A9&scheme=http"


class Attempts:
    """Make trainers of which each fails with the next error of a list, and then one that ends."""

    def __init__(self, *errors: Exception):
        self.errors = list(errors)
        self.made = 0

    def __call__(self) -> Attempts:
        self.made += 1
        return self

    def fit(self) -> str:
        if self.errors:
            raise self.errors.pop(0)
        return "result"


def lost() -> WorkerGroupError:
    return WorkerGroupError("lost", {0: ActorDiedError(), 1: ValueError("closed")})


def refused() -> WorkerGroupError:
    failures = {0: ValueError("closed"), 1: SFTError("loss_not_finite", "NaN")}
    return WorkerGroupError("a wall of text", failures)


def test_a_coded_error_comes_out_as_the_rank_raised_it():
    attempts = Attempts(refused())
    with pytest.raises(SFTError, match="loss_not_finite"):
        fit(attempts)
    assert attempts.made == 1


def test_coded_errors_of_other_rooms_are_not_tried_again_either():
    attempts = Attempts(WorkerGroupError("said", {0: ImageError("truncated", "early end")}))
    with pytest.raises(ImageError, match="truncated: early end"):
        fit(attempts)
    assert attempts.made == 1


def test_lost_workers_are_tried_again_up_to_the_limit(caplog: pytest.LogCaptureFixture):
    attempts = Attempts(*(lost() for _ in range(MAX_FAILURES)))
    assert fit(attempts) == "result"
    assert attempts.made == 1 + MAX_FAILURES
    assert "rank 0, 1 failed; starting again from the last checkpoint (1 of 2)" in caplog.text
    attempts = Attempts(*(lost() for _ in range(1 + MAX_FAILURES)))
    with pytest.raises(WorkerGroupError, match="lost"):
        fit(attempts)
    assert attempts.made == 1 + MAX_FAILURES, "the limit counts"


def test_a_coded_error_after_a_loss_ends_the_run():
    attempts = Attempts(lost(), refused())
    with pytest.raises(SFTError, match="loss_not_finite"):
        fit(attempts)
    assert attempts.made == 2


def test_what_is_no_failure_of_workers_is_not_tried_again():
    attempts = Attempts(OSError("the store does not answer"))
    with pytest.raises(OSError, match="the store does not answer"):
        fit(attempts)
    assert attempts.made == 1


def test_ctrl_c_is_told_as_such(capsys: pytest.CaptureFixture[str]):
    """Ray Train ends the process itself, with exit code 1 and without a word."""
    attempts = Attempts(SystemExit("aborted"))  # type: ignore[arg-type]
    code = run_command("sft", lambda: len(str(fit(attempts))), "the same command continues")
    assert code == INTERRUPTED
    assert capsys.readouterr().err == "sft: interrupted; the same command continues\n"


def test_the_options_of_a_store_stay_at_the_end():
    part = storage_of(
        load_config(None, ["name=demo", f"ray.checkpoint_storage={STORE}"]), "sft/ray_train"
    )
    assert (
        part == "s3://bucket/prefix/demo/sft/ray_train?endpoint_override=127.0.0.1%3A9&scheme=http"
    )
    _, path = pyarrow.fs.FileSystem.from_uri(part)
    assert path == "bucket/prefix/demo/sft/ray_train"


def test_without_a_store_checkpoints_lie_in_the_run(tmp_path: Path):
    config = Config(name="demo", storage_path=tmp_path / "what?")
    assert storage_of(config, "sft/ray_train") == str(
        tmp_path / "what?" / "demo" / "sft" / "ray_train"
    )


def test_starting_again_deletes_the_store_and_the_folder(tmp_path: Path):
    folder, store = tmp_path / "sft", tmp_path / "store" / "ray_train"
    for part in (folder / "best", store / "checkpoint"):
        part.mkdir(parents=True)
    for _ in range(2):  # the second time there is nothing
        delete_checkpoints(folder, store.as_uri())
        assert [path.name for path in tmp_path.rglob("*")] == ["store"]


def test_a_store_that_fails_leaves_the_models(tmp_path: Path):
    (tmp_path / "best").mkdir()
    with pytest.raises(pyarrow.ArrowInvalid):
        delete_checkpoints(tmp_path, "nowhere://bucket/prefix/ray_train")
    assert (tmp_path / "best").is_dir()
