"""Test the driver of SFT: its storage, its attempts after failures, and its command line."""

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
from lmrrg.run.layout import RunLayout
from lmrrg.run.studies import prepare_studies
from sft import train
from sft.errors import SFTError
from sft.train import _MAX_FAILURES, _delete, _fit, _storage, check_mark, main, plan_run

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
        _fit(attempts)
    assert attempts.made == 1


def test_coded_errors_of_other_rooms_are_not_tried_again_either():
    attempts = Attempts(WorkerGroupError("said", {0: ImageError("truncated", "early end")}))
    with pytest.raises(ImageError, match="truncated: early end"):
        _fit(attempts)
    assert attempts.made == 1


def test_lost_workers_are_tried_again_up_to_the_limit(caplog: pytest.LogCaptureFixture):
    attempts = Attempts(*(lost() for _ in range(_MAX_FAILURES)))
    assert _fit(attempts) == "result"
    assert attempts.made == 1 + _MAX_FAILURES
    assert "rank 0, 1 failed; starting again from the last checkpoint (1 of 2)" in caplog.text
    attempts = Attempts(*(lost() for _ in range(1 + _MAX_FAILURES)))
    with pytest.raises(WorkerGroupError, match="lost"):
        _fit(attempts)
    assert attempts.made == 1 + _MAX_FAILURES, "the limit counts"


def test_a_coded_error_after_a_loss_ends_the_run():
    attempts = Attempts(lost(), refused())
    with pytest.raises(SFTError, match="loss_not_finite"):
        _fit(attempts)
    assert attempts.made == 2


def test_what_is_no_failure_of_workers_is_not_tried_again():
    attempts = Attempts(OSError("the store does not answer"))
    with pytest.raises(OSError, match="the store does not answer"):
        _fit(attempts)
    assert attempts.made == 1


def test_ctrl_c_is_told_as_such(capsys: pytest.CaptureFixture[str]):
    """Ray Train ends the process itself, with exit code 1 and without a word."""
    attempts = Attempts(SystemExit("aborted"))  # type: ignore[arg-type]
    code = run_command("sft", lambda: len(str(_fit(attempts))), "the same command continues")
    assert code == INTERRUPTED
    assert capsys.readouterr().err == "sft: interrupted; the same command continues\n"


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
    error = capsys.readouterr().err
    assert error.startswith(f"sft: not_writable: {tmp_path}/file/demo cannot be written")
    assert len(error.splitlines()) == 1


@pytest.fixture
def run(tmp_path: Path) -> Config:
    """Return the settings of a run whose phantoms are drawn."""
    overrides = ["train=4", "val=2", "test=2", "image_size=64"]
    config = load_config(
        None,
        [
            f"storage_path={tmp_path}",
            f"data.cache_dir={tmp_path}/cache",
            *(f"data.phantom.{one}" for one in overrides),
        ],
    )
    prepare_studies(config, progress=False)
    return config


def test_a_run_of_other_settings_is_refused_by_their_names(run: Config):
    manifest = RunLayout(run.run_dir).studies
    train._mark(run, plan_run(run, manifest))
    check_mark(run, plan_run(run, manifest))
    other = run.model_copy(update={"sft": run.sft.model_copy(update={"learning_rate": 0.5})})
    with pytest.raises(SFTError, match=r"resume_mismatch: .* other values of sft.learning_rate;"):
        check_mark(other, plan_run(other, manifest))


def test_ranks_get_absolute_paths(run: Config, tmp_path: Path, monkeypatch: pytest.MonkeyPatch):
    """A rank has a working directory of its own: a relative folder of weights is not there."""
    monkeypatch.chdir(tmp_path)
    (tmp_path / "weights").mkdir()
    monkeypatch.setattr(train, "FeatureFiles", lambda *_, **__: None)
    plan = plan_run(run, RunLayout(run.run_dir).studies)
    decoder = run.model.decoder.model_copy(update={"pretrained": "weights"})
    model = run.model.model_copy(update={"decoder": decoder})
    job = train._job(run.model_copy(update={"model": model}), plan)
    assert job.config.model.decoder.pretrained == str(tmp_path / "weights")


@pytest.mark.parametrize(
    ("override", "code"),
    [
        ("ppo.value_warmup_iterations=40", "no_policy_update"),
        ("rollout.temperature=0.7", "sampling_temperature"),
        ("seed=7", None),
    ],
)
def test_what_ppo_will_refuse_is_said_when_sft_starts(
    override: str, code: str | None, caplog: pytest.LogCaptureFixture
):
    train._warn_of_ppo(load_config(None, [override]))
    assert f"PPO will refuse this: {code}" in caplog.text if code else caplog.text == ""
