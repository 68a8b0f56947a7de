"""What a run writes is tried before its work begins."""

from __future__ import annotations

from pathlib import Path

import pytest

from lmrrg.config.loading import load_config
from lmrrg.config.tree import Config
from lmrrg.run.errors import TrackingError
from lmrrg.run.storage import require_storage, require_store


def config_of(folder: Path, *overrides: str) -> Config:
    return load_config(
        None, [f"storage_path={folder}/runs", f"data.cache_dir={folder}/cache", *overrides]
    )


def test_folders_that_can_be_made_pass_and_are_not_made(tmp_path: Path):
    require_storage(config_of(tmp_path))
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("setting", ["storage_path", "data.cache_dir"])
def test_a_folder_that_cannot_be_written_is_named_with_its_setting(tmp_path: Path, setting: str):
    (tmp_path / "file").write_text("")
    for folder in (tmp_path / "file", Path("/proc/nothing")):  # /proc: to root all is permitted
        with pytest.raises(TrackingError, match=rf"not_writable: {folder}.* set {setting} to"):
            require_storage(config_of(tmp_path, f"{setting}={folder}"))


def test_a_store_is_tried_and_left_as_it_was(tmp_path: Path):
    require_store(config_of(tmp_path), "ppo")  # none is set
    store = tmp_path / "store"
    require_store(config_of(tmp_path, f"ray.checkpoint_storage=file://{store}"), "ppo")
    assert [path for path in store.rglob("*") if path.is_file()] == []


@pytest.mark.parametrize("uri", ["file:///proc/nothing", "nowhere://bucket"])
def test_a_store_that_takes_nothing_is_refused(tmp_path: Path, uri: str):
    with pytest.raises(TrackingError, match=r"checkpoint_store: ray\.checkpoint_storage cannot be"):
        require_store(config_of(tmp_path, f"ray.checkpoint_storage={uri}"), "sft")
