"""The checkpoint directory that passes between the stages, and the flat state that passes between actors.

config.json         "architecture": "LMRRG", model settings, what it sees, provenance
model.safetensors   everything but the decoder: extractor with its region queries, projector, classifier
decoder/            a plain Hugging Face directory with the tokenizer, LoRA merged; vLLM loads it as it is
"""

from __future__ import annotations

import ctypes
import json
import os
import shutil
import tempfile
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from itertools import chain
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmrrg.config.model import ModelConfig
from lmrrg.errors import CodedError
from lmrrg.model.decoder import (
    DecoderError,
    decoder_weights,
    embedding_name,
    load_decoder,
    load_tokenizer,
    token_embedding,
)
from lmrrg.model.generator import ReportGenerator, VisualInputs

ARCHITECTURE = "LMRRG"
FORMAT = 1


class CheckpointError(CodedError):
    """A checkpoint or a state that does not fit; ``code`` is stable."""


def save_checkpoint(model: ReportGenerator, directory: Path, extra: Mapping[str, Any]) -> None:
    """Write the model as ``directory``, replacing an older one only when all of it is written.

    On Linux's own file systems the name is there all the time. Where two folders cannot change places (NFS), it is gone
    for a moment, and a crash right then leaves the older model beside it as ``.<name>.<random>.old``. A reader that was
    halfway through the older model does not find its other files, or finds those of the new one.

    ``extra`` is provenance (step, metrics, data hash, ...): JSON values, never report text.
    """
    directory = Path(directory)
    directory.parent.mkdir(parents=True, exist_ok=True)
    part = Path(tempfile.mkdtemp(prefix=f".{directory.name}.", dir=directory.parent))
    try:
        _write(model, part, extra)
        part.chmod(0o755)
        _swap(part, directory)
    finally:
        shutil.rmtree(part, ignore_errors=True)


def load_checkpoint(directory: Path) -> ReportGenerator:
    """Read a model, float32 on CPU, in evaluation mode.

    Raises:
        CheckpointError: ``missing_file``, ``bad_config`` (also of the decoder or its tokenizer), ``bad_weights``
            (unreadable, or weights missing, unexpected or of another shape, in either half).
    """
    directory = Path(directory)
    config, inputs = checkpoint_settings(directory)
    visual = _read_tensors(directory / "model.safetensors")
    if "extractor.query_vectors" not in visual:
        raise CheckpointError(
            "bad_weights", f"{directory}/model.safetensors lacks extractor.query_vectors"
        )
    try:
        tokenizer = load_tokenizer(directory / "decoder", local_files_only=True)
        decoder = load_decoder(
            directory / "decoder", local_files_only=True, unexpected_weights=False
        )
        model = ReportGenerator(
            config, inputs, visual["extractor.query_vectors"], tokenizer, decoder
        )
    except DecoderError as error:
        code = (
            "bad_weights" if error.code in ("bad_weights", "pretrained_missing") else "bad_config"
        )
        raise CheckpointError(code, f"{directory}: {error}") from error
    _load_visual(model, visual)
    return model.eval()


def read_checkpoint_config(directory: Path) -> dict[str, Any]:
    """The parsed ``config.json`` of a checkpoint directory.

    Raises:
        CheckpointError: ``missing_file`` or ``bad_config`` (not JSON, not of this architecture or format).
    """
    directory = Path(directory)
    for name in ("config.json", "model.safetensors", "decoder/config.json"):
        if not (directory / name).is_file():
            raise CheckpointError("missing_file", f"{directory} has no {name}")
    try:
        settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError("bad_config", f"{directory}/config.json: {error}") from error
    if not isinstance(settings, dict) or (settings.get("architecture"), settings.get("format")) != (
        ARCHITECTURE,
        FORMAT,
    ):
        raise CheckpointError(
            "bad_config", f"{directory}/config.json is not {ARCHITECTURE}, format {FORMAT}"
        )
    return settings


def checkpoint_settings(directory: Path) -> tuple[ModelConfig, VisualInputs]:
    """How the model of a checkpoint directory is built, and what it sees.

    Raises:
        CheckpointError: as :func:`read_checkpoint_config`; ``bad_config`` also when the image encoder is not the one
            that the model was trained on.
    """
    settings = read_checkpoint_config(directory)
    try:
        return ModelConfig.model_validate(settings["model"]), _inputs(settings["inputs"])
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError("bad_config", f"{directory}/config.json: {error}") from error


def full_state(
    model: ReportGenerator, *, copy: bool = True, decoder: bool = True
) -> dict[str, Tensor]:
    """All weights on CPU: ``visual.*`` (all but the decoder) and ``decoder.*`` under the Hugging Face names.

    Adapters are merged and ``decoder.lm_head.weight`` is there even when it is tied. Without ``copy`` a tensor that is
    on CPU already is the model's own memory. Without ``decoder`` only its token embedding is left of it.
    """
    held = (
        decoder_weights(model.decoder)
        if decoder
        else [(embedding_name(model.decoder), token_embedding(model.decoder).weight)]
    )
    weights = chain(
        ((f"visual.{name}", tensor) for name, tensor in _visual_state(model).items()),
        ((f"decoder.{name}", tensor) for name, tensor in held),
    )
    return {name: tensor.detach().to("cpu", copy=copy).contiguous() for name, tensor in weights}


def load_full_state(
    model: ReportGenerator, state: Mapping[str, Tensor], *, decoder: bool = True
) -> None:
    """Load what :func:`full_state` made, both halves or the visual one only.

    Raises:
        CheckpointError: ``bad_weights`` for names that are missing or unexpected, or shapes that differ.
    """
    halves = {
        half: {n.removeprefix(half): t for n, t in state.items() if n.startswith(half)}
        for half in _PREFIXES
    }
    if len(state) != sum(map(len, halves.values())):
        raise CheckpointError("bad_weights", f"names must start with {' or '.join(_PREFIXES)}")
    _load_visual(model, halves["visual."])
    if decoder:
        _load_strictly(model.decoder, halves["decoder."], "decoder")


def state_checksum(state: Mapping[str, Tensor]) -> str:
    """XXH3 (128 bits) over names, types, shapes and bytes, in the order of the names.

    Two states that differ by accident have the same one with a chance of 2^-128; it is no protection against malice,
    and reads as fast as memory does.
    """
    digest = xxhash.xxh3_128()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tensor_sum(name: str, tensor: Tensor) -> Tensor:
    """A checksum that is computed where the tensor lies: int64 scalar, to be added to those of the others (ours).

    Every element counts by its bits and its place, every tensor by its name, so that what is lost, stale or elsewhere
    shows. Some rows are added up at once: all of an embedding in bfloat16 would take four times its size on the way.
    """
    bits = tensor.detach().contiguous().view(_BITS[tensor.dtype.itemsize])
    bits = bits.reshape(-1, bits.shape[-1] if bits.ndim else 1)
    columns = _place_weights(bits.shape[1], bits.device)
    rows = torch.cat(
        [(part * columns).sum(1) for part in bits.split(max(1, _SUMMED // bits.shape[1]))]
    )
    return (1 + (rows * _place_weights(len(rows), bits.device)).sum()) * (
        zlib.crc32(name.encode()) | 1
    )


def _place_weights(count: int, device: torch.device) -> Tensor:
    """Odd numbers [count], int64, that follow no line: else what one place lost another could make good."""
    spread = torch.arange(1, count + 1, device=device) * _GOLDEN
    return (spread ^ (spread >> 29)) | 1


def add_sums(sums: Iterable[Tensor]) -> int:
    """The checksum of a state from the :func:`tensor_sum` of each of its tensors."""
    return int(torch.stack(list(sums)).sum())


_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
_SUMMED = 1 << 22
"""Elements that are added up at once."""
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
"""2^64 divided by the golden ratio, as int64 has it: its multiples lie far apart."""
_PREFIXES = ("visual.", "decoder.")


def _visual_state(model: ReportGenerator) -> dict[str, Tensor]:
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("decoder.")
    }


def _write(model: ReportGenerator, folder: Path, extra: Mapping[str, Any]) -> None:
    settings = {
        "architecture": ARCHITECTURE,
        "format": FORMAT,
        "model": model.config.model_dump(mode="json"),
        "inputs": asdict(model.inputs),
        "provenance": dict(extra),
    }
    (folder / "config.json").write_text(json.dumps(settings, indent=2) + "\n", encoding="utf-8")
    visual = {
        name: tensor.detach().cpu().contiguous() for name, tensor in _visual_state(model).items()
    }
    save_file(visual, folder / "model.safetensors", metadata={"format": "pt"})
    decoder = {name: tensor.cpu() for name, tensor in decoder_weights(model.decoder)}
    model.decoder.save_pretrained(folder / "decoder", state_dict=decoder)
    model.tokenizer.save_pretrained(folder / "decoder")


def _inputs(stored: Mapping[str, Any]) -> VisualInputs:
    """What the model sees, as far as this code's image encoder shows the same to it."""
    inputs = VisualInputs(**stored)
    if not all(
        type(number) is int and number > 0 for number in (inputs.image_size, inputs.max_views)
    ):
        raise ValueError(
            f"image_size and max_views must be positive whole numbers, not {dict(stored)}"
        )
    here = VisualInputs.of(inputs.image_size, inputs.max_views)
    if inputs.encoder_version != here.encoder_version:
        raise ValueError(
            f"the model sees through {inputs.encoder_version}, this is {here.encoder_version}"
        )
    if inputs != here:
        raise ValueError(f"the encoder's features are {here}, not {inputs}")
    return here


def _swap(part: Path, directory: Path) -> None:
    """Put a finished folder in place of ``directory``; what was there is gone afterwards, or back after an error."""
    if not directory.exists():
        os.replace(part, directory)
        return
    if _exchange(part, directory):
        shutil.rmtree(part, ignore_errors=True)
        return
    old = Path(f"{part}.old")
    os.replace(directory, old)
    try:
        os.replace(part, directory)
    except OSError:
        os.replace(old, directory)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _exchange(one: Path, other: Path) -> bool:
    """Have two paths change places in one step; False where the system or the file system cannot."""
    rename: Any = getattr(ctypes.CDLL(None), "renameat2", None)
    here, exchange = -100, 2  # AT_FDCWD, RENAME_EXCHANGE
    return (
        rename is not None
        and rename(here, os.fsencode(one), here, os.fsencode(other), exchange) == 0
    )


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError("bad_weights", f"{path}: {error}") from error


def _load_visual(model: ReportGenerator, visual: Mapping[str, Tensor]) -> None:
    known = {f"decoder.{name}" for name in model.decoder.state_dict()}
    _load_strictly(model, visual, "visual half", elsewhere=known)


def _load_strictly(
    module: torch.nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    elsewhere: set[str] | None = None,
) -> None:
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError("bad_weights", f"{what}: {error}") from error
    missing = sorted(set(missing) - (elsewhere or set()))
    if missing or unexpected:
        raise CheckpointError(
            "bad_weights", f"{what}: missing {missing[:5]}, unexpected {sorted(unexpected)[:5]}"
        )
