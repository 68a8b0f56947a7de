"""The child process that decodes files of unknown origin; started by :mod:`lmrrg.imaging.decoder_pool`, never by hand.

It has a limit on its memory and on the CPU time of each file, no open file but its pipes, and it says nothing but what
:func:`reply` writes. Both directions carry a length-prefixed JSON header and raw bytes: nothing is ever unpickled.
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

from lmrrg.imaging.radiograph import ImageError, Limits
from lmrrg.imaging.reading import read_image, to_square

FRAME = struct.Struct("<IQ")
"""Bytes of the JSON header and of the payload behind it."""
READY = b"r"


def main() -> None:
    """Answer requests until the pipe closes; the only argument is the memory in MB beyond what the imports take."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    answers = os.fdopen(os.dup(1), "wb")
    os.dup2(2, 1)  # whatever a C library prints must not get between the answers
    _limit_memory(int(sys.argv[1]) << 20)
    answers.write(READY)
    answers.flush()
    while header := sys.stdin.buffer.read(FRAME.size):
        size, length = FRAME.unpack(header)
        request = json.loads(sys.stdin.buffer.read(size))
        _limit_cpu(request["cpu_s"])
        _answer(request, sys.stdin.buffer.read(length), answers)


def _answer(request: dict[str, Any], data: bytes, answers: BinaryIO) -> None:
    try:
        image = read_image(data, Limits(**request["limits"]))
        pixels = (
            image.pixels
            if request["square"] is None
            else to_square(image.pixels, request["square"])
        )
        facts = {
            "shape": pixels.shape,
            "view": image.view,
            "source": image.source,
            "burned_in": image.burned_in,
        }
        reply(answers, facts, np.ascontiguousarray(pixels, "<f4").data)
    except ImageError as error:
        reply(answers, {"code": error.code, "message": error.args[1]})
    except MemoryError:
        reply(answers, {"code": "decoder_memory", "message": ""})


def reply(answers: BinaryIO, facts: dict[str, Any], payload: memoryview | bytes = b"") -> None:
    """Write one answer."""
    header = json.dumps(facts).encode()
    answers.write(FRAME.pack(len(header), memoryview(payload).nbytes) + header)
    answers.write(payload)
    answers.flush()


def _limit_memory(extra: int) -> None:
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    limit = pages * resource.getpagesize() + extra
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))
    resource.setrlimit(resource.RLIMIT_FSIZE, (0, 0))


def _limit_cpu(seconds: float) -> None:
    """The kernel ends this process, should a file take longer, even when nobody waits for it any more."""
    used = resource.getrusage(resource.RUSAGE_SELF)
    most = math.ceil(used.ru_utime + used.ru_stime + seconds) + 1
    resource.setrlimit(resource.RLIMIT_CPU, (most, resource.RLIM_INFINITY))


if __name__ == "__main__":
    with contextlib.suppress(BrokenPipeError):  # the parent is gone
        main()
