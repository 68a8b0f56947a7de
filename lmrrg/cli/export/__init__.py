"""``lmrrg export``: make a folder of a model for others, with its card."""

from __future__ import annotations

import argparse
import json
import os
import shutil
import tempfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from lmrrg import RESEARCH_USE_ONLY
from lmrrg.cli.export.card import model_card
from lmrrg.errors import CodedError
from lmrrg.run.layout import RunLayout

_PARTS = ("config.json", "model.safetensors")
_FOLDERS = ("decoder", "eye")

EPILOG = f"""\
the folder, as the Hugging Face Hub takes it
  config.json, model.safetensors   settings and the visual half, as in the checkpoint
  eye/                             the image encoder's weights, where they are not packaged ones
  decoder/                         the language model with its tokenizer, which
                                   AutoModelForCausalLM.from_pretrained("DIR/decoder") loads alone
  README.md                        the model card: training data (counts of the run's audit, no
                                   text), results with intervals (of the run's evaluation, if it is
                                   of this very model), limits, and an example in Python
No class of transformers reads images and writes reports here: the example uses this package.

The data audit and the results come from the run that the checkpoint lies in, or from --run. Look
through the card, add a licence that your data allow, and then: hf upload NAME DIR
{RESEARCH_USE_ONLY}

example
  lmrrg export --checkpoint runs/iu/ppo/best --out iu-reports
"""


def add_arguments(parser: argparse.ArgumentParser) -> None:
    """Declare the command line."""
    parser.add_argument(
        "--checkpoint", type=Path, required=True, metavar="DIR", help="model directory"
    )
    parser.add_argument(
        "--out", type=Path, required=True, metavar="DIR", help="folder to make; new, or empty"
    )
    parser.add_argument(
        "--run",
        type=Path,
        metavar="DIR",
        help="folder of the run (default: the one that the checkpoint lies in)",
    )


def run(args: argparse.Namespace) -> int:
    """Copy the model, write its card, and say what the card lacks."""
    if args.out.exists() and (not args.out.is_dir() or any(args.out.iterdir())):
        raise CodedError("bad_output", f"{args.out} exists and is not an empty folder")
    # Imported here: the help need not wait for torch.
    from lmrrg.model.checkpoint import checkpoint_settings, read_checkpoint_config
    from serve_app.reporter import model_info

    # Refuses a model that this code cannot run.
    model, _ = checkpoint_settings(args.checkpoint)
    layout = RunLayout(args.run or args.checkpoint.resolve().parent.parent)
    audit = _read_json(layout.studies_audit)
    results = _results(layout, args.checkpoint)
    settings = read_checkpoint_config(args.checkpoint)
    version = model_info(args.checkpoint).version
    name = args.out.absolute().name
    card = model_card(name, version, settings, model.image_encoder.name, audit, results)
    _write(args.checkpoint, args.out, card)
    print(f"wrote {args.out}: look through its README.md before you publish it")
    if audit is None:
        print(f"no data audit: {layout.studies_audit} does not exist; give --run")
    if results is None:
        print(f"no results: {layout.results} is no evaluation of this model")
    return 0


def _results(layout: RunLayout, checkpoint: Path) -> dict[str, Any] | None:
    """Return the results of the run's evaluation; None without one of this very model."""
    from lmrrg.evaluation.evaluate import read_results
    from lmrrg.files import directory_hash

    if not layout.results.is_file():
        return None
    results = read_results(layout.results)
    own = directory_hash(checkpoint)
    evaluated = [system["checkpoint"] for system in results["systems"] if system["checkpoint"]]
    return results if any(record["sha256"] == own for record in evaluated) else None


def _read_json(path: Path) -> Mapping[str, Any] | None:
    if not path.is_file():
        return None
    try:
        content: Mapping[str, Any] = json.loads(path.read_text(encoding="utf-8"))
    except ValueError as error:
        raise CodedError("bad_audit", f"{path} is not JSON: {error}") from error
    return content


def _write(checkpoint: Path, out: Path, card: str) -> None:
    """Copy the model and write the card; the folder appears whole."""
    out = out.absolute()
    out.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{out.name}.", dir=out.parent))
    try:
        for name in _PARTS:
            shutil.copyfile(checkpoint / name, part / name)
        for name in _FOLDERS:
            if (checkpoint / name).is_dir():
                shutil.copytree(checkpoint / name, part / name)
        (part / "README.md").write_text(card, encoding="utf-8")
        part.chmod(0o755)  # mkdtemp lets only the owner read it
        os.replace(part, out)  # replaces an empty folder
    finally:
        shutil.rmtree(part, ignore_errors=True)
