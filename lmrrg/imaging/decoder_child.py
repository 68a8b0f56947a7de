"""Decode files of unknown origin: the program of a child process of :class:`DecoderPool`.

The process has a limit on its memory and on the CPU time of each file, and no open file but its
pipes. Requests and answers are a JSON header and raw bytes, both with their length in front.
Nothing is ever unpickled, so a decoder that an attacker took over cannot reach the parent.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import resource
import signal
import struct
import sys
from pathlib import Path
from typing import Any, BinaryIO

import numpy as np

from lmrrg.imaging.dicom.identity import file_identity
from lmrrg.imaging.radiograph import ImageError, Limits
from lmrrg.imaging.reading import read_image, to_square

FRAME = struct.Struct("<IQ")
"""Start of every message: the lengths of the JSON header and of the payload behind it, bytes."""
READY = b"r"
"""Single byte that the child writes once it can take requests."""


def main() -> None:
    """Answer requests until the pipe closes.

    The only argument on the command line is the memory for files in MB, beyond that of the imports.
    """
    # Ctrl-C reaches the whole process group; the parent decides when its children end.
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    # Standard output becomes standard error: what a C library prints must not mix with the answers.
    os.dup2(2, 1)
    _limit_memory(int(sys.argv[1]) << 20)
    answers.write(READY)
    answers.flush()
    while header := sys.stdin.buffer.read(FRAME.size):
        size, length = FRAME.unpack(header)
        request = json.loads(sys.stdin.buffer.read(size))
        _limit_cpu(request["cpu_s"])
        _answer(request, sys.stdin.buffer.read(length), answers)


def _answer(request: dict[str, Any], data: bytes, answers: BinaryIO) -> None:
    """Decode one file and write its pixels or its identity, or the code of the error."""
    try:
        limits = Limits(**request["limits"])
        if request["identity"]:
            reply(answers, {"identity": file_identity(data, limits)})
            return
        image = read_image(data, limits, polarity=request["polarity"])
        pixels = image.pixels
        if request["square"] is not None:
            pixels = to_square(pixels, request["square"])
        facts = {
            "shape": pixels.shape,
            "view": image.view,
            "source": image.source,
            "warnings": image.warnings,
            "patient": image.patient,
            "study": image.study,
        }
        reply(answers, facts, np.ascontiguousarray(pixels, "<f4").data)
    except ImageError as error:
        reply(answers, {"code": error.code, "message": error.args[1]})
    except MemoryError:
        reply(answers, {"code": "decoder_memory", "message": ""})


def reply(answers: BinaryIO, facts: dict[str, Any], payload: memoryview | bytes = b"") -> None:
    """Write one answer: its length, the JSON header, the payload."""
    header = json.dumps(facts).encode()
    answers.write(FRAME.pack(len(header), memoryview(payload).nbytes) + header)
    answers.write(payload)
    answers.flush()


def _limit_memory(extra: int) -> None:
    """Allow the process its present address space and ``extra`` bytes more."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    # A core dump would hold the patient's image, and a decoder has no reason to write files.
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _limit_cpu(seconds: float) -> None:
    """Have the kernel end this process when the next file takes more CPU time, seconds.

    The parent's own timer does the same, unless the parent has died.
    """
    # RLIMIT_CPU counts from the start of the process, in whole seconds.
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        main()
