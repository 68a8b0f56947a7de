"""Decoding files of unknown origin where they can do no harm: in child processes with limits on time and memory.

A file that makes the decoder crash, hang or eat memory costs one child, which is replaced, and comes back as a coded
error. From a child come only a short JSON header, which is checked, and raw pixels.
"""

from __future__ import annotations

import json
import os
import queue
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
from lmrrg.imaging.radiograph import (
    DEFAULT_LIMITS,
    IMAGE_ERROR_CODES,
    ImageError,
    Limits,
    Radiograph,
)
from lmrrg.studies import View

_START_S = 120.0
_LONGEST_HEADER = 1 << 16
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
    """What the settings allow an image to be."""
    return Limits(
        data.max_image_mb << 20, round(data.max_image_megapixels * 1e6), data.burned_in_annotation
    )


class DecoderPool:
    """Up to ``workers`` child processes, each started when first needed and kept; safe for use by several threads.

    Args:
        workers: files decoded at once.
        timeout_s: longest time for one file, and longest wait for a free child, seconds.
        memory_mb: what a file may take beyond the child's own libraries, MB. Pixels, their file and the encodings'
            own buffers need about 20 bytes per pixel.
        limits: what is refused before it is decoded.
    """

    def __init__(
        self,
        workers: int = 1,
        *,
        timeout_s: float = 20.0,
        memory_mb: int = 2048,
        limits: Limits = DEFAULT_LIMITS,
    ):
        self._timeout_s, self._memory_mb, self._limits = timeout_s, memory_mb, limits
        self._slots: queue.LifoQueue[_Child | None] = queue.LifoQueue()
        for _ in range(workers):
            self._slots.put(None)
        self._workers = workers

    def decode(self, data: bytes, square: int | None = None) -> Radiograph:
        """Read one image as :func:`~lmrrg.imaging.reading.read_image` does, in a child.

        Args:
            data: the bytes of a file.
            square: fit the pixels into a square of this side, in the child.

        Raises:
            ImageError: the reader's codes, and ``decoder_timeout``, ``decoder_memory``, ``decoder_crashed`` or
                ``decoder_busy``.
        """
        with self._child() as child:
            request = {"limits": asdict(self._limits), "square": square, "cpu_s": self._timeout_s}
            facts, payload = child.ask(request, data, self._timeout_s, 4 * self._limits.max_pixels)
        if "code" in facts:
            code = facts["code"] if facts["code"] in IMAGE_ERROR_CODES else "decoder_crashed"
            raise ImageError(code, str(facts.get("message", "")))
        return _radiograph(facts, payload)

    def close(self) -> None:
        """End the children, after what they are doing."""
        for _ in range(self._workers):
            child = self._slots.get()
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
        """A child for one request; its place is free again afterwards, whatever became of it."""
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
        self._expired = self._broken = False
        self._process = subprocess.Popen(
            [sys.executable, "-P", "-m", "lmrrg.imaging.decoder_child", str(memory_mb)],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            env=_environment(),
        )
        self._to, self._from = (
            cast(IO[bytes], self._process.stdin),
            cast(IO[bytes], self._process.stdout),
        )
        with self._deadline(_START_S):
            if self._from.read(1) != READY:
                raise RuntimeError("the decoder process did not start")

    @property
    def is_usable(self) -> bool:
        """Whether it can take another request."""
        return not (self._expired or self._broken) and self._process.poll() is None

    def ask(
        self, request: dict[str, Any], data: bytes, timeout_s: float, longest: int
    ) -> tuple[dict[str, Any], bytearray]:
        """Send one request and read its answer: the header and the payload.

        Raises:
            ImageError: ``decoder_timeout`` or ``decoder_crashed``; the child is gone then.
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
        """Close the pipes, which ends an idle child, and wait for it."""
        self._to.close()
        self._process.wait(_START_S)
        self._from.close()

    @contextmanager
    def _deadline(self, seconds: float) -> Iterator[None]:
        """Kill the child when the block takes longer; its pipes then end. After any error it is not used again."""
        timer = threading.Timer(seconds, self._expire)
        timer.start()
        try:
            yield
        except BaseException:
            self._kill()
            raise
        finally:
            timer.cancel()

    def _expire(self) -> None:
        self._expired = True
        self._process.kill()

    def _kill(self) -> None:
        self._broken = True
        self._process.kill()
        self._process.wait()

    def _cause_of_death(self) -> str:
        over_time = self._expired or self._process.returncode == -signal.SIGXCPU
        return "decoder_timeout" if over_time else "decoder_crashed"

    def _read(self, size: int) -> bytearray:
        """Exactly ``size`` bytes, writable."""
        buffer = bytearray(size)
        view, filled = memoryview(buffer), 0
        while filled < size:
            count = self._from.readinto(view[filled:])  # type: ignore[attr-defined]
            if not count:
                raise EOFError
            filled += count
        return buffer


def _environment() -> dict[str, str]:
    """Little of ours: no preloaded libraries, no secrets, one thread, and the modules from where we have them."""
    kept = {name: os.environ[name] for name in _INHERITED if name in os.environ}
    path = os.pathsep.join(part for part in sys.path if part)
    return kept | {"PYTHONPATH": path, "OMP_NUM_THREADS": "1", "OPENBLAS_NUM_THREADS": "1"}


def _radiograph(facts: dict[str, Any], payload: bytearray) -> Radiograph:
    """The answer as an image; one that cannot be true means that the child is no longer ours."""
    try:
        rows, columns = facts["shape"]
        pixels = np.frombuffer(payload, "<f4").reshape(rows, columns)
        if facts["view"] not in get_args(View) or facts["source"] not in ("dicom", "png", "jpeg"):
            raise ValueError
        return Radiograph(pixels, facts["view"], facts["source"], bool(facts["burned_in"]))
    except (KeyError, TypeError, ValueError):
        raise ImageError("decoder_crashed") from None
