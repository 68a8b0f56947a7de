"""Decode files of unknown origin in child processes with limits on time and memory.

A file that makes the decoder crash, hang or exhaust its memory ends one child, which is replaced,
and is reported as a coded error. A child sends only a short JSON header, which is checked, and raw
pixels.
"""

from __future__ import annotations

import json
import os
import queue
import re
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict
from types import TracebackType
from typing import IO, Any, cast, get_args

import numpy as np

from lmrrg.config.data import DataConfig
from lmrrg.imaging.decoder_child import FRAME, READY
from lmrrg.imaging.dicom.identity import checked_identity
from lmrrg.imaging.radiograph import (
    DEFAULT_LIMITS,
    IMAGE_ERROR_CODES,
    IMAGE_WARNING_CODES,
    ImageError,
    Limits,
    Polarity,
    Radiograph,
)
from lmrrg.studies import View

_START_S = 120.0
"""Longest time for a child's imports, seconds; on a busy machine they take many."""
_LONGEST_HEADER = 1 << 16
"""Bytes of JSON that are read from a child; a longer header comes from a broken one."""
# Variables that a child keeps. Tokens, keys and LD_PRELOAD are among those that it does not.
_INHERITED = (
    "PATH",
    "LANG",
    "LC_ALL",
    "HOME",
    "TMPDIR",
    "LD_LIBRARY_PATH",
    "OPENBLAS_CORETYPE",
    "OPENBLAS_L2_SIZE",
)


def image_limits(data: DataConfig) -> Limits:
    """Return the limits on images that the settings state.

    >>> image_limits(DataConfig(max_image_mb=16, max_image_megapixels=8)).max_bytes
    16777216
    """
    return Limits(
        data.max_image_mb << 20,
        round(data.max_image_megapixels * 1e6),
        data.burned_in_annotation,
        data.allow_secondary_capture,
        data.body_part,
    )


class DecoderPool:
    """Up to ``workers`` child processes, started on first use and kept; safe for several threads.

    Args:
        workers: files decoded at once.
        timeout_s: longest time for one file, and longest wait for a free child, seconds.
        memory_mb: memory for one file beyond the child's own libraries, MB. Pixels, their file and
            the decoders' buffers need about 20 bytes per pixel.
        limits: limits that are checked before a file is decoded.
        polarity: as in :func:`~lmrrg.imaging.reading.read_image`.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        timeout_s: float = 20.0,
        memory_mb: int = 2048,
        limits: Limits = DEFAULT_LIMITS,
        polarity: Polarity = "header",
    ):
        self._timeout_s = timeout_s
        self._memory_mb = memory_mb
        self._limits = limits
        self._polarity = polarity
        # One slot for each worker; None stands for a child that is still to be started. Last in,
        # first out: a pool that is seldom busy starts only as many children as it needs.
        self._slots: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(workers):
            self._slots.put(None)
        self._workers = workers

    def decode(self, data: bytes, square: int | None = None) -> Radiograph:
        """Read one image as :func:`~lmrrg.imaging.reading.read_image` does, in a child.

        Args:
            data: the bytes of a file.
            square: side of a square to fit the pixels into, in the child; None keeps their size.

        Raises:
            ImageError: the reader's codes, and ``decoder_timeout``, ``decoder_memory``,
                ``decoder_crashed`` or ``decoder_busy``.
        """
        request = {"identity": False, "polarity": self._polarity, "square": square}
        return _radiograph(*self._ask(request, data, 4 * self._limits.max_pixels))

    def identity(self, data: bytes) -> dict[str, str]:
        """Read who and what a file is, as :func:`~lmrrg.imaging.dicom.identity.file_identity` does.

        Raises:
            ImageError: as :meth:`decode`.
        """
        facts, _ = self._ask({"identity": True}, data, longest=0)
        try:
            return checked_identity(facts.get("identity"))
        except ValueError:
            raise ImageError("decoder_crashed") from None

    def _ask(
        self, request: dict[str, Any], data: bytes, longest: int
    ) -> tuple[dict[str, Any], bytearray]:
        """Return a child's answer to a request about one file."""
        request |= {"limits": asdict(self._limits), "cpu_s": self._timeout_s}
        with self._child() as child:
            facts, payload = child.ask(request, data, self._timeout_s, longest)
        if "code" in facts:
            code = facts["code"] if facts["code"] in IMAGE_ERROR_CODES else "decoder_crashed"
            raise ImageError(code, str(facts.get("message", "")))
        return facts, payload

    def close(self) -> None:
        """Wait for the files in work and end the children."""
        # All slots are taken before one is given back: the queue would return that one first.
        children = [self._slots.get() for _ in range(self._workers)]
        for child in children:
            if child is not None:
                child.end()
            self._slots.put(None)

    def __enter__(self) -> DecoderPool:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()

    @contextmanager
    def _child(self) -> Iterator[_Child]:
        """Lend a child for one request; its slot is free again afterwards, even if it died."""
        try:
            child = self._slots.get(timeout=self._timeout_s)
        except queue.Empty:
            raise ImageError("decoder_busy") from None
        try:
            if child is None or not child.is_usable:
                child = _Child(self._memory_mb)
            yield child
        finally:
            self._slots.put(child if child is not None and child.is_usable else None)


class _Child:
    """One child process and its pipes."""

    def __init__(self, memory_mb: int):
        self._expired = False
        self._broken = False
        self._process = subprocess.Popen(
            # -P: the working directory, which anybody may fill, is no place to import from.
            [sys.executable, "-P", "-m", "lmrrg.imaging.decoder_child", str(memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        # Not None, since both are PIPE.
        self._to = cast(IO[bytes], self._process.stdin)
        self._from = cast(IO[bytes], self._process.stdout)
        with self._deadline(_START_S):
            if self._from.read(1) != READY:
                raise RuntimeError("the decoder process did not start")

    @property
    def is_usable(self) -> bool:
        """Return whether the child can take another request."""
        return not (self._expired or self._broken) and self._process.poll() is None

    def ask(
        self, request: dict[str, Any], data: bytes, timeout_s: float, longest: int
    ) -> tuple[dict[str, Any], bytearray]:
        """Send one request and return its answer: the header and the payload.

        Args:
            request: what is wanted, with limits and CPU time, as ``decoder_child`` takes it.
            data: the bytes of a file.
            timeout_s: longest time until the answer, seconds.
            longest: largest payload that is read, bytes; a larger one means a broken child.

        Raises:
            ImageError: ``decoder_timeout`` or ``decoder_crashed``; the child has ended then.
        """
        header = json.dumps(request).encode()
        try:
            with self._deadline(timeout_s):
                self._to.write(FRAME.pack(len(header), len(data)) + header)
                self._to.write(data)
                self._to.flush()
                size, length = FRAME.unpack(self._read(FRAME.size))
                if size > _LONGEST_HEADER or length > longest:
                    raise EOFError
                return json.loads(self._read(size)), self._read(length)
        except (OSError, EOFError, ValueError):
            raise ImageError(self._cause_of_death()) from None

    def end(self) -> None:
        """End the child: close its input, on which it stops, and wait for it."""
        self._to.close()
        self._process.wait(_START_S)
        self._from.close()

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        """Kill the child when the block takes longer, or fails; reads from its pipes then end."""
        timer = threading.Timer(seconds, self._expire)
        timer.start()
        try:
            yield
        except BaseException:
            # Ctrl-C too: half of an answer may still be in the pipe, so the child cannot go on.
            self._kill()
            raise
        finally:
            timer.cancel()

    def _expire(self) -> None:
        """Kill the child, in the timer's thread; the blocked read of the other thread then ends."""
        self._expired = True
        self._process.kill()

    def _kill(self) -> None:
        self._broken = True
        self._process.kill()
        self._process.wait()

    def _cause_of_death(self) -> str:
        """Return the error code for a child that ended."""
        # SIGXCPU: the kernel's limit on CPU time, which the child sets itself.
        over_time = self._expired or self._process.returncode == -signal.SIGXCPU
        return "decoder_timeout" if over_time else "decoder_crashed"

    def _read(self, size: int) -> bytearray:
        """Read exactly ``size`` bytes.

        Raises:
            EOFError: the pipe ends before.
        """
        # A bytearray, not bytes: the pixel array on top of it can be written without a copy.
        buffer = bytearray(size)
        view = memoryview(buffer)
        filled = 0
        while filled < size:
            count = self._from.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            filled += count
        return buffer


def _environment() -> dict[str, str]:
    """Return a child's environment: no preloaded libraries, no secrets, one thread.

    It imports from the parent's own path, so that both run the same code.
    """
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = os.pathsep.join(part for part in sys.path if part)
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _radiograph(facts: dict[str, Any], payload: bytearray) -> Radiograph:
    """Return the answer as an image.

    Raises:
        ImageError: ``decoder_crashed``, the answer is impossible, so the child cannot be trusted.
    """
    try:
        rows, columns = facts["shape"]
        pixels = np.frombuffer(payload, "<f4").reshape(rows, columns)
        if facts["view"] not in get_args(View) or facts["source"] not in ("dicom", "png", "jpeg"):
            raise ValueError
        warnings = tuple(code for code in IMAGE_WARNING_CODES if code in facts["warnings"])
        patient, study = (_digest(facts[name]) for name in ("patient", "study"))
        return Radiograph(pixels, facts["view"], facts["source"], warnings, patient, study)
    except (KeyError, TypeError, ValueError):
        raise ImageError("decoder_crashed") from None


def _digest(value: object) -> str:
    """Return a digest that a child sent; it raises ValueError for anything else."""
    if not isinstance(value, str) or not re.fullmatch("[0-9a-f]*", value):
        raise ValueError
    return value
