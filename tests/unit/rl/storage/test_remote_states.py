"""Copies of training states: in a folder behind file://, and in a memory store without rename."""

import shutil
import uuid
from pathlib import Path

import pyarrow.fs
import pytest

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.ppo.errors import PPOError
from rl.storage.remote_states import Mirror
from rl.storage.training_states import StateStore

ORIGIN = {"sft": "a", "data": "b"}


@pytest.fixture(params=["file", "fsspec+memory"])
def address(request, tmp_path) -> str:
    return (
        f"file://{tmp_path}/store"
        if request.param == "file"
        else f"fsspec+memory://{uuid.uuid4().hex}"
    )


def run(folder: Path, address: str, *overrides: str) -> Config:
    return load_config(
        None, [f"storage_path={folder}", f"ray.checkpoint_storage={address}", "name=x", *overrides]
    )


def states(config: Config) -> StateStore:
    folder = config.run_dir / "ppo" / "state"
    return StateStore(folder, config, ORIGIN, config.ppo.keep_checkpoints, Mirror.of(config))


def train(config: Config, *iterations: int) -> None:
    """Write what an iteration leaves behind: models, metrics, a state with a folder per rank."""
    for number in iterations:
        for model in ("best", "last"):
            write(config.run_dir / "ppo" / model / "model.safetensors", f"{model} {number}")
        write(config.run_dir / "metrics" / "ppo.jsonl", f"line {number}")
        states(config).save(
            number,
            lambda folder, number=number: write(Path(folder) / "policy" / "rank0", str(number)),
        )


def write(path: Path, text: str) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(text)


def tree(folder: Path) -> dict[str, bytes]:
    return {
        str(path.relative_to(folder)): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def stored(address: str) -> list[str]:
    store, root = pyarrow.fs.FileSystem.from_uri(f"{address}/x/ppo")
    return sorted(
        info.base_name
        for info in store.get_file_info(pyarrow.fs.FileSelector(root, allow_not_found=True))
    )


def unmark(address: str, copy: str) -> None:
    store, root = pyarrow.fs.FileSystem.from_uri(f"{address}/x/ppo/{copy}")
    store.delete_file(f"{root}/COMPLETE")


def test_an_empty_machine_gets_the_newest_state_with_its_models_and_metrics(tmp_path, address):
    here, there = run(tmp_path / "here", address), run(tmp_path / "there", address)
    train(here, 5, 10)
    states(there).restore()
    expected = tree(here.run_dir)
    del expected["ppo/state/iteration-000005/policy/rank0"]
    assert tree(there.run_dir) == expected
    iteration, folder = states(there).latest()
    assert (iteration, (folder / "policy" / "rank0").read_text()) == (10, "10")


def test_a_machine_that_has_a_state_keeps_it(tmp_path, address):
    here, there = run(tmp_path / "here", address), run(tmp_path / "there", address)
    train(there, 5)
    train(here, 10)
    before = tree(there.run_dir)
    states(there).restore()
    assert tree(there.run_dir) == before


def test_a_copy_that_was_not_finished_does_not_count(tmp_path, address):
    here, there = (
        run(tmp_path / "here", address, "ppo.keep_checkpoints=2"),
        run(tmp_path / "there", address),
    )
    train(here, 5, 10)
    unmark(address, "iteration-000010")
    states(there).restore()
    assert states(there).iteration() == 5
    assert (there.run_dir / "ppo" / "best" / "model.safetensors").read_text() == "best 5"
    shutil.rmtree(there.run_dir)
    unmark(address, "iteration-000005")
    states(there).restore()
    assert states(there).latest() is None
    assert not there.run_dir.exists()


def test_a_last_state_whose_copy_failed_is_copied_at_the_next_start(tmp_path, address):
    config = run(tmp_path / "here", address)
    train(config, 5)
    StateStore(config.run_dir / "ppo" / "state", config, ORIGIN).save(10, lambda folder: None)
    assert Mirror.of(config).newest()["iteration"] == 5
    states(config).restore()
    assert Mirror.of(config).newest()["iteration"] == 10
    assert states(config).iteration() == 10


def test_as_many_copies_stay_as_states(tmp_path, address):
    config = run(tmp_path / "here", address, "ppo.keep_checkpoints=2")
    train(config, 5, 10, 15)
    assert stored(address) == ["iteration-000010", "iteration-000015"]
    train(config, 11)  # an attempt that started again from 10
    assert stored(address) == ["iteration-000010", "iteration-000011"]
    Mirror.of(config).clear()
    assert stored(address) == []


def test_other_settings_are_refused_before_anything_is_copied(tmp_path, address):
    train(run(tmp_path / "here", address), 5)
    there = run(tmp_path / "there", address, "ppo.clip=0.1")
    with pytest.raises(PPOError, match=r"resume_mismatch.*ppo\.clip"):
        states(there).restore()
    assert not there.run_dir.exists()


def test_a_store_that_fails_is_named_and_the_state_stands(tmp_path):
    (tmp_path / "store").write_text("a file where a folder should be")
    config = run(tmp_path / "here", f"file://{tmp_path}/store")
    with pytest.raises(PPOError, match=r"checkpoint_store: ray\.checkpoint_storage, file://"):
        train(config, 5)
    assert states(config).iteration() == 5


@pytest.mark.parametrize("address", ["runs/store", "s4://bucket"])
def test_an_address_that_nobody_knows_is_refused(tmp_path, address):
    with pytest.raises(PPOError, match="checkpoint_store"):
        Mirror.of(run(tmp_path, address))


def test_without_the_setting_there_is_no_mirror():
    assert Mirror.of(load_config(None, [])) is None
