"""Turn a quantised decoder (GGUF) into a folder that ``model.decoder.pretrained`` takes.

    pip install gguf
    python scripts/dequantise.py SmolLM2-135M-Instruct.Q4_1.gguf models/smollm2

The weights become float32 safetensors, once; what quantisation rounded stays rounded. The folder
also gets the tokenizer. Only this step needs the package gguf, so it is no locked dependency.
"""

from __future__ import annotations

import argparse
import os
import sys
from importlib.util import find_spec
from pathlib import Path
from uuid import uuid4

import torch
from transformers import AutoModelForCausalLM, AutoTokenizer, GgufConfig

from lmrrg.errors import CodedError, run_command
from lmrrg.model.decoder import DecoderError, coded_loading


def dequantise(source: Path, folder: Path) -> int:
    """Write the model and the tokenizer of a GGUF file into a new folder.

    Returns:
        The number of parameters.

    Raises:
        CodedError: ``bad_output``, the folder exists.
        DecoderError: ``package_missing``, ``pretrained_missing``, ``bad_weights`` or
            ``bad_config``.
    """
    if folder.exists():
        raise CodedError("bad_output", f"{folder} exists; name a new folder")
    if not source.is_file():
        raise DecoderError("pretrained_missing", f"there is no file {source}")
    if find_spec("gguf") is None:
        raise DecoderError("package_missing", "to read GGUF files, run: pip install gguf")
    with coded_loading(str(source)):
        model = AutoModelForCausalLM.from_pretrained(
            source.parent,
            gguf_file=source.name,
            dtype=torch.float32,
            quantization_config=GgufConfig(dequantize=True),
        )
        tokenizer = AutoTokenizer.from_pretrained(source.parent, gguf_file=source.name)
    # Beside the folder first, so that a folder of this name is always complete.
    part = folder.with_name(f"{folder.name}.{uuid4().hex}.part")
    part.mkdir(parents=True)
    model.save_pretrained(part)
    tokenizer.save_pretrained(part)
    os.replace(part, folder)
    return model.num_parameters()


def main() -> int:
    """Dequantise the file of the command line and say where the model is."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("source", type=Path, help="GGUF file")
    parser.add_argument("folder", type=Path, help="new folder of the model")
    args = parser.parse_args()
    parameters = dequantise(args.source, args.folder)
    print(f"{args.folder}: {parameters / 1e6:.1f} M parameters, model.decoder.pretrained takes it")
    return 0


if __name__ == "__main__":
    sys.exit(run_command("dequantise", main))
