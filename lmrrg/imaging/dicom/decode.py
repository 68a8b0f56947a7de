"""Decode the one frame of Pixel Data (7FE0,0010) with the decoder that reads its coding exactly."""

from __future__ import annotations

from typing import Any, cast

import numpy as np
from numpy.typing import NDArray
from pydicom import uid
from pydicom.dataset import FileDataset
from pydicom.encaps import encapsulate
from pydicom.pixels import get_decoder
from pydicom.pixels.decoders.base import DecodeOptions, Decoder

from lmrrg.imaging.dicom.codestream import LOSSLESS_PROCESS, is_sound_lossless, precision, process
from lmrrg.imaging.dicom.elements import DAMAGE
from lmrrg.imaging.dicom.header import transfer_syntax
from lmrrg.imaging.radiograph import ImageError

_GDCM = "gdcm"
# pydicom's own order without GDCM, which would come first wherever it is installed. Stated here, so
# that a film has the same pixels on every machine.
_OTHER_PLUGINS = ("pylibjpeg", "pydicom", "pillow", "pyjpegls")


def decode(dataset: FileDataset, frame: bytes | None) -> NDArray[np.integer]:
    """Return the samples of the frame as they lie in it, [H, W] or [H, W, 3].

    Args:
        dataset: the header, with the native pixels where ``frame`` is None.
        frame: the compressed frame.

    Raises:
        ImageError: ``unsupported_transfer_syntax``, JPEG lossless without the package python-gdcm;
            ``unreadable``, such a frame with a damaged header.
    """
    # Unused bits stay: pydicom would keep the lowest ones, whatever High Bit is.
    options = DecodeOptions(correct_unused_bits=False)
    if frame is None:
        return _decoded(get_decoder(transfer_syntax(dataset)), dataset, "", options)
    _replace_frame(dataset, frame)
    if process(frame) == LOSSLESS_PROCESS:
        # pylibjpeg clamps differences that the standard reduces modulo 2**P, without an error.
        # GDCM obeys the stated syntax, and some files call a lossless frame baseline.
        dataset.file_meta.TransferSyntaxUID = uid.JPEGLossless
        if not is_sound_lossless(frame):
            raise ImageError("unreadable", "the header of the JPEG lossless frame is damaged")
        decoder = get_decoder(uid.JPEGLossless)
        if _GDCM not in decoder.available_plugins:
            detail = "JPEG lossless is read only where the package python-gdcm is installed"
            raise ImageError("unsupported_transfer_syntax", detail)
        array = _decoded(decoder, dataset, _GDCM, options)
        # GDCM adds differences modulo 2**16; bits above the precision of the frame go. Unsigned,
        # since a mask of all bits is no number of the signed type.
        width = 8 * array.dtype.itemsize
        used = min(precision(frame) or width, width)
        return array.view(f"u{array.dtype.itemsize}") & ((1 << used) - 1)
    return _first_decoded(get_decoder(transfer_syntax(dataset)), dataset, options)


def _first_decoded(
    decoder: Decoder, dataset: FileDataset, options: DecodeOptions
) -> NDArray[np.integer]:
    """Return what the first decoder that can read a frame makes of it.

    Raises:
        RuntimeError: no decoder can read the frame.
    """
    for plugin in _OTHER_PLUGINS:
        if plugin not in decoder.available_plugins:
            continue
        try:
            return _decoded(decoder, dataset, plugin, options)
        except DAMAGE:
            continue
    raise RuntimeError("no decoder reads this frame")


def _decoded(
    decoder: Decoder, dataset: FileDataset, plugin: str, options: DecodeOptions
) -> NDArray[np.integer]:
    array, _ = decoder.as_array(dataset, index=0, decoding_plugin=plugin, **cast(Any, options))
    return array


def _replace_frame(dataset: FileDataset, frame: bytes) -> None:
    """Put the repaired frame into the data set, as its only fragment."""
    # An even length, as fragments need one (PS3.5 A.4). The offset tables describe the old one.
    dataset.PixelData = encapsulate([frame + bytes(len(frame) % 2)], has_bot=False)
    dataset["PixelData"].is_undefined_length = True
    for name in ("ExtendedOffsetTable", "ExtendedOffsetTableLengths"):
        if name in dataset:
            delattr(dataset, name)
