"""Write and read checkpoint directories, and the flat states that pass between actors.

A checkpoint directory is all that passes between the stages:

    config.json         "architecture": "LMRRG", model settings, visual inputs, provenance
    model.safetensors   the visual half: extractor with its region queries, projector, classifier
    decoder/            a plain Hugging Face directory with the tokenizer, LoRA merged, which vLLM
                        loads as it is
    eye/                the image encoder's own weights, where it is not a packaged one

A state maps names to tensors: ``visual.*`` for the visual half, ``decoder.*`` under the decoder's
Hugging Face names. It is checked by :func:`state_checksum` where it passes through host memory, and
by :func:`tensor_sum` where it passes from GPU to GPU.
"""

from __future__ import annotations

import json
import zlib
from collections.abc import Iterable, Mapping
from dataclasses import asdict
from pathlib import Path
from typing import Any

import torch
import xxhash
from safetensors import SafetensorError
from safetensors.torch import load_file, save_file
from torch import Tensor

from lmrrg.config.model import ImageEncoderConfig, ModelConfig
from lmrrg.errors import CodedError
from lmrrg.files import directory_writer
from lmrrg.model.decoder import (
    DecoderError,
    decoder_weights,
    embedding_name,
    load_decoder,
    load_tokenizer,
    token_embedding,
)
from lmrrg.model.generator import ReportGenerator, VisualInputs
from lmrrg.own_code import is_own
from lmrrg.vision.encoder import copy_weights

ARCHITECTURE = "LMRRG"
FORMAT = 1
"""Version of the directory's layout; other versions are refused."""
EYE = "eye"
"""Folder of the image encoder, where it is an eye."""
_BITS = {1: torch.uint8, 2: torch.int16, 4: torch.int32, 8: torch.int64}
"""Integer type of the same width, by bytes of an element."""
_SUMMED = 1 << 22
"""Elements that :func:`tensor_sum` turns into int64 at once: 32 MB."""
# 2^64 divided by the golden ratio, as int64: the factor of Knuth's multiplicative hashing. Of all
# factors it spreads its multiples by 1, 2, 3, ... most evenly over the 64-bit numbers.
_GOLDEN = 0x9E3779B97F4A7C15 - (1 << 64)
_HALVES = ("visual", "decoder")


class CheckpointError(CodedError):
    """Checkpoint or state that does not fit; ``code`` is stable."""


def save_checkpoint(model: ReportGenerator, directory: Path, extra: Mapping[str, Any]) -> None:
    """Write the model as ``directory``, replacing an older one only when all of it is written.

    See :class:`~lmrrg.files.directory_writer`. The weights of the image encoder are copied into
    ``eye/``, so that the directory needs no other.

    Args:
        extra: provenance (step, metrics, data hash, ...): JSON values, never report text.
    """
    with directory_writer(Path(directory)) as part:
        _write(model, part, extra)


def load_checkpoint(directory: Path) -> ReportGenerator:
    """Read a model, float32 on CPU, in evaluation mode.

    Raises:
        CheckpointError: ``missing_file``, ``bad_config`` (also of the decoder or its tokenizer) or
            ``bad_weights`` (unreadable, or weights missing, unexpected or of another shape, in
            either half).
    """
    directory = Path(directory)
    config, inputs = checkpoint_settings(directory)
    visual = _read_tensors(directory / "model.safetensors")
    # The extractor is built around its queries; `_load_visual` checks all the other weights.
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
        is_about_weights = error.code in ("bad_weights", "pretrained_missing")
        code = "bad_weights" if is_about_weights else "bad_config"
        raise CheckpointError(code, f"{directory}: {error}") from error
    _load_visual(model, visual)
    return model.eval()


def read_checkpoint_config(directory: Path) -> dict[str, Any]:
    """Return the parsed ``config.json`` of a checkpoint directory.

    Raises:
        CheckpointError: ``missing_file`` or ``bad_config`` (not JSON, or of another architecture
            or format).
    """
    directory = Path(directory)
    for name in ("config.json", "model.safetensors", "decoder/config.json"):
        if not (directory / name).is_file():
            raise CheckpointError("missing_file", f"{directory} has no {name}")
    try:
        settings = json.loads((directory / "config.json").read_text(encoding="utf-8"))
    except ValueError as error:
        raise CheckpointError("bad_config", f"{directory}/config.json: {error}") from error
    if not isinstance(settings, dict) or not _is_known_format(settings):
        raise CheckpointError(
            "bad_config", f"{directory}/config.json is not {ARCHITECTURE}, format {FORMAT}"
        )
    return settings


def _is_known_format(settings: Mapping[str, Any]) -> bool:
    return settings.get("architecture") == ARCHITECTURE and settings.get("format") == FORMAT


def checkpoint_settings(directory: Path) -> tuple[ModelConfig, VisualInputs]:
    """Return the settings and the visual inputs of the model in a checkpoint directory.

    Nobody's own code runs: :func:`checkpoint_encoder` is where an image encoder of that kind is
    asked for.

    Raises:
        CheckpointError: as :func:`read_checkpoint_config`; ``bad_config`` also when this code's
            image encoder is not the one that the model was trained on.
    """
    settings = read_checkpoint_config(directory)
    try:
        model = _model_settings(settings["model"], Path(directory))
        inputs = _recorded_inputs(settings["inputs"])
        if not is_own(model.image_encoder.name):
            _check_inputs(inputs, model.image_encoder)
    except (KeyError, TypeError, ValueError) as error:
        raise CheckpointError("bad_config", f"{directory}/config.json: {error}") from error
    return model, inputs


def checkpoint_encoder(directory: Path, own: ImageEncoderConfig) -> ImageEncoderConfig:
    """Return the image encoder that a checkpoint's model was trained on.

    Its weights are those of the directory, wherever they came from. Where it is somebody's own code
    (``module:function``), which would run with the user's rights, the user's settings must name the
    same function: a checkpoint alone never decides what is imported.

    Args:
        directory: model directory.
        own: ``model.image_encoder`` of the user's own settings.

    Raises:
        CheckpointError: as :func:`checkpoint_settings`; ``own_code_refused``.
        CodedError: ``own_code``, the function that both name is not there.
    """
    model, inputs = checkpoint_settings(directory)
    encoder = model.image_encoder
    if not is_own(encoder.name):
        return encoder
    if encoder.name != own.name:
        raise CheckpointError(
            "own_code_refused",
            f"{directory} wants to run code of its makers, {encoder.name}, to encode images: if "
            f"you know and trust that code, set model.image_encoder={encoder.name}",
        )
    try:
        _check_inputs(inputs, encoder)
    except ValueError as error:
        raise CheckpointError("bad_config", f"{directory}/config.json: {error}") from error
    return encoder


def full_state(
    model: ReportGenerator, *, copy: bool = True, decoder: bool = True
) -> dict[str, Tensor]:
    """Return all weights on CPU: ``visual.*``, and ``decoder.*`` under the Hugging Face names.

    Adapters are merged, and ``decoder.lm_head.weight`` is included even when it is tied.

    Args:
        copy: False: a tensor that is on CPU already shares the model's memory.
        decoder: False: of the decoder only the token embedding is included, which prompts need.
    """
    held: Iterable[tuple[str, Tensor]] = decoder_weights(model.decoder)
    if not decoder:
        held = [(embedding_name(model.decoder), token_embedding(model.decoder).weight)]
    state = {}
    for name, tensor in _visual_state(model).items():
        state[f"visual.{name}"] = tensor.detach().to("cpu", copy=copy).contiguous()
    # One merged weight at a time moves to CPU and is freed: `decoder_weights` is a generator.
    for name, tensor in held:
        state[f"decoder.{name}"] = tensor.detach().to("cpu", copy=copy).contiguous()
    return state


def load_full_state(
    model: ReportGenerator, state: Mapping[str, Tensor], *, decoder: bool = True
) -> None:
    """Load a state of :func:`full_state`: both halves, or without ``decoder`` the visual one.

    Raises:
        CheckpointError: ``bad_weights``, names that are missing or unexpected, or other shapes.
    """
    halves: dict[str, dict[str, Tensor]] = {half: {} for half in _HALVES}
    for name, tensor in state.items():
        half, _, rest = name.partition(".")
        if half not in halves:
            raise CheckpointError("bad_weights", "names must start with visual. or decoder.")
        halves[half][rest] = tensor
    _load_visual(model, halves["visual"])
    if decoder:
        _load_strictly(model.decoder, halves["decoder"], "decoder")


def state_checksum(state: Mapping[str, Tensor]) -> str:
    """Return XXH3 (128 bits) over names, types, shapes and bytes, in the order of the names.

    Two states that differ by accident have equal checksums with a probability of 2^-128. It does
    not protect against malice. It is as fast as reading memory.
    """
    digest = xxhash.xxh3_128()
    for name in sorted(state):
        tensor = state[name].detach().cpu().contiguous()
        digest.update(f"{name}|{tensor.dtype}|{tuple(tensor.shape)}|".encode())
        digest.update(tensor.reshape(-1).view(torch.uint8).numpy().data)
    return digest.hexdigest()


def tensor_sum(name: str, tensor: Tensor) -> Tensor:
    """Return a checksum of one tensor, computed on its own device: int64 scalar (**ours**).

    It is a weighted sum, modulo 2^64, over the bits of the elements. The weight of an element is
    the product of odd numbers for its row, its column and the tensor's name:

    - a single changed element is always noticed, since an odd factor cannot turn its difference
      into a multiple of 2^64;
    - elements that moved, tensors that changed places, and changes that would cancel in a plain sum
      are noticed too, unless the weights happen to match: they are spread like random numbers.

    The sums of a state's tensors are combined by :func:`add_sums`, in any order.
    """
    bits = tensor.detach().contiguous().view(_BITS[tensor.dtype.itemsize])
    bits = bits.reshape(-1, bits.shape[-1] if bits.ndim else 1)
    columns = _position_weights(bits.shape[1], bits.device)
    # Some rows at a time: the products are int64, four times the size of a bfloat16 embedding.
    rows_at_once = max(1, _SUMMED // bits.shape[1])
    rows = torch.cat([(part * columns).sum(1) for part in bits.split(rows_at_once)])
    total = (rows * _position_weights(len(rows), bits.device)).sum()
    # The 1 makes the name count even where all elements are zero.
    return (1 + total) * (zlib.crc32(name.encode()) | 1)


def _position_weights(count: int, device: torch.device) -> Tensor:
    """Return one odd weight for each position, int64 [count].

    Weights in proportion to the position would let changes cancel, such as +1, -2, +1 on three
    neighbours. Multiples of a constant are still proportional to it, and the xor with their own
    upper bits ends that.
    """
    spread = torch.arange(1, count + 1, device=device) * _GOLDEN
    return (spread ^ (spread >> 29)) | 1


def add_sums(sums: Iterable[Tensor]) -> int:
    """Return the checksum of a state from the :func:`tensor_sum` of each of its tensors."""
    return int(torch.stack(list(sums)).sum())


def _visual_state(model: ReportGenerator) -> dict[str, Tensor]:
    """Return the weights of everything but the decoder."""
    return {
        name: tensor
        for name, tensor in model.state_dict().items()
        if not name.startswith("decoder.")
    }


def _write(model: ReportGenerator, folder: Path, extra: Mapping[str, Any]) -> None:
    encoder = model.config.image_encoder
    model_settings = model.config.model_dump(mode="json")
    if encoder.weights is not None:
        copy_weights(encoder, folder / EYE)
        model_settings["image_encoder"]["weights"] = EYE
    settings = {
        "architecture": ARCHITECTURE,
        "format": FORMAT,
        "model": model_settings,
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


def _model_settings(stored: Any, directory: Path) -> ModelConfig:
    """Return the settings of a checkpoint's model; the encoder's weights are its own copy."""
    model = ModelConfig.model_validate(stored)
    if model.image_encoder.weights is None:
        return model
    # Never the path or the name that is written there: it may be anything.
    own_copy = {"weights": str(directory.absolute() / EYE)}
    encoder = model.image_encoder.model_copy(update=own_copy)
    return model.model_copy(update={"image_encoder": encoder})


def _recorded_inputs(stored: Mapping[str, Any]) -> VisualInputs:
    """Return the visual inputs of a checkpoint.

    Raises:
        TypeError, ValueError: they are not what they must be.
    """
    inputs = VisualInputs(**stored)
    # `type`, not `isinstance`: JSON's true is an int for Python.
    for number in (inputs.image_size, inputs.max_views, inputs.patches, inputs.patch_width):
        if type(number) is not int or number <= 0:
            raise ValueError(
                "image_size, max_views, patches and patch_width must be positive whole numbers, "
                f"not {dict(stored)}"
            )
    return inputs


def _check_inputs(inputs: VisualInputs, encoder: ImageEncoderConfig) -> None:
    """Compare the recorded visual inputs with what the encoder makes here.

    Raises:
        ValueError: they differ.
    """
    here = VisualInputs.of(inputs.image_size, inputs.max_views, encoder)
    if inputs.encoder_version != here.encoder_version:
        raise ValueError(
            f"the model was trained on images encoded by {inputs.encoder_version}, "
            f"this is {here.encoder_version}"
        )
    if inputs != here:
        raise ValueError(f"the encoder's features are {here}, not {inputs}")


def _read_tensors(path: Path) -> dict[str, Tensor]:
    try:
        return load_file(path)
    except (SafetensorError, OSError) as error:
        raise CheckpointError("bad_weights", f"{path}: {error}") from error


def _load_visual(model: ReportGenerator, visual: Mapping[str, Tensor]) -> None:
    """Load the visual half; the decoder's weights may be missing."""
    decoder_names = {f"decoder.{name}" for name in model.decoder.state_dict()}
    _load_strictly(model, visual, "visual half", elsewhere=decoder_names)


def _load_strictly(
    module: torch.nn.Module,
    state: Mapping[str, Tensor],
    what: str,
    elsewhere: set[str] | None = None,
) -> None:
    """Load weights into ``module``, which must all be there, but for the names of ``elsewhere``."""
    try:
        missing, unexpected = module.load_state_dict(state, strict=False)
    except RuntimeError as error:
        raise CheckpointError("bad_weights", f"{what}: {error}") from error
    missing = sorted(set(missing) - (elsewhere or set()))
    if missing or unexpected:
        raise CheckpointError(
            "bad_weights", f"{what}: missing {missing[:5]}, unexpected {sorted(unexpected)[:5]}"
        )
