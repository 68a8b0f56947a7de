"""Test decoding in child processes: the same images, and files and children that misbehave."""

from __future__ import annotations

import io
import os
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor

import numpy as np
import psutil
import pytest
from PIL import Image
from pydicom.uid import JPEG2000Lossless

from lmrrg.imaging.decoder_pool import DecoderPool
from lmrrg.imaging.radiograph import ImageError, Limits
from lmrrg.imaging.reading import read_image, to_square
from tests.support.dicom_files import dataset, dicom, encoded, ramp


@pytest.fixture(scope="module")
def pool() -> Iterator[DecoderPool]:
    with DecoderPool(2, timeout_s=30) as made:
        yield made


def code_of(pool: DecoderPool, data: bytes) -> str:
    with pytest.raises(ImageError) as caught:
        pool.decode(data)
    return caught.value.code


def children() -> list[psutil.Process]:
    return [
        child
        for child in psutil.Process().children()
        if "lmrrg.imaging.decoder_child" in child.cmdline()
    ]


def png(side: int = 80) -> bytes:
    out = io.BytesIO()
    Image.fromarray((np.add.outer(np.arange(side), np.arange(side)) % 256).astype(np.uint8)).save(
        out, "PNG"
    )
    return out.getvalue()


def slow() -> bytes:
    """Return a JPEG 2000 film whose decoding takes about a second."""
    noise = np.random.default_rng(0).integers(0, 4096, (2000, 2000)).astype(np.uint16)
    made = dataset(noise)
    made.compress(JPEG2000Lossless, encoding_plugin="pylibjpeg")
    return encoded(made)


@pytest.mark.parametrize(
    "data", [dicom(ramp(), ViewPosition="PA", BurnedInAnnotation="YES"), png()]
)
def test_same_as_in_this_process(pool, data):
    here, there = read_image(data), pool.decode(data)
    np.testing.assert_array_equal(here.pixels, there.pixels)
    assert (here.view, here.source, here.warnings) == (there.view, there.source, there.warnings)
    np.testing.assert_array_equal(pool.decode(data, square=48).pixels, to_square(here.pixels, 48))
    assert there.pixels.flags.writeable


def test_refusals_keep_their_code_and_message(pool):
    with pytest.raises(ImageError) as here:
        read_image(dicom(ramp(), Modality="CT"))
    with pytest.raises(ImageError) as there:
        pool.decode(dicom(ramp(), Modality="CT"))
    assert here.value.args == there.value.args
    with DecoderPool(limits=Limits(max_pixels=100 * 100)) as strict:
        assert code_of(strict, png(101)) == "too_large"
        assert strict.decode(png(100)).pixels.shape == (100, 100)


def test_many_threads_share_the_children(pool):
    sides = list(range(64, 96))
    with ThreadPoolExecutor(8) as threads:
        shapes = list(threads.map(lambda side: pool.decode(png(side)).pixels.shape, sides))
    assert shapes == [(side, side) for side in sides]
    assert len(children()) <= 2


def test_a_child_that_dies_is_replaced():
    film = slow()
    with DecoderPool() as pool:
        pool.decode(png())
        (first,) = children_of(pool)
        stopped = threading.Timer(0.3, first.send_signal, [signal.SIGSEGV])
        stopped.start()
        assert code_of(pool, film) == "decoder_crashed"
        assert pool.decode(png()).source == "png"
        (second,) = children_of(pool)
        assert second.pid != first.pid
        second.kill()
        second.wait()
        assert pool.decode(png()).source == "png", (
            "it died between two files, which is nobody's fault"
        )


def children_of(pool: DecoderPool) -> list[psutil.Process]:
    """Return the children of a pool whose workers are all idle."""
    idle = {child._process.pid for child in pool._slots.queue if child is not None}
    return [child for child in children() if child.pid in idle]


def test_a_hanging_child_is_killed_and_replaced():
    with DecoderPool(timeout_s=3.0) as pool:
        pool.decode(png())
        (child,) = children_of(pool)
        child.suspend()
        started = time.monotonic()
        assert code_of(pool, png()) == "decoder_timeout"
        assert time.monotonic() - started < 20
        assert not child.is_running() or child.status() == psutil.STATUS_ZOMBIE
        assert pool.decode(png()).source == "png"


def test_a_file_that_takes_too_long():
    with DecoderPool(timeout_s=0.05) as pool:
        assert code_of(pool, slow()) == "decoder_timeout"


def test_a_file_that_needs_too_much_memory():
    large = dicom(np.tile(ramp(60, 4000), (60, 1)))
    with DecoderPool(memory_mb=100) as pool:
        assert code_of(pool, large) == "decoder_memory"
        assert pool.decode(png()).source == "png"
        assert children_of(pool)[0].memory_info().rss < 250 << 20
    with DecoderPool(memory_mb=500) as pool:
        assert pool.decode(large).pixels.shape == (3600, 4000)


def test_waiting_for_a_free_child_has_an_end():
    with DecoderPool(timeout_s=5.0) as pool, ThreadPoolExecutor(3) as threads:
        pool.decode(png())
        children_of(pool)[0].suspend()
        outcomes = [threads.submit(code_of, pool, png()), threads.submit(time.sleep, 0)]
        time.sleep(0.3)
        pool._timeout_s = 0.3
        assert code_of(pool, png()) == "decoder_busy"
        assert outcomes[0].result() == "decoder_timeout"


def test_an_impossible_answer_of_a_child_is_refused(monkeypatch):
    """The shape in its header must fit the bytes that it sent."""
    from lmrrg.imaging import decoder_pool as decoding

    with DecoderPool() as pool:
        for facts in (
            {},
            {"shape": [9, 9], "view": "PA", "source": "png", "warnings": []},
            {"code": "made up"},
        ):
            monkeypatch.setattr(
                decoding._Child, "ask", lambda *_, facts=facts: (facts, bytearray(16))
            )
            assert code_of(pool, png()) == "decoder_crashed"


def test_closing_ends_the_children():
    pool = DecoderPool(2)
    with pool._child(), pool._child():  # both at once, so that both are started
        pass
    first, second = children_of(pool)
    pool.close()
    assert not first.is_running()
    assert not second.is_running()
    assert pool.decode(png()).source == "png", "a closed pool starts again"
    pool.close()


def test_children_end_with_their_parent():
    script = (
        "from lmrrg.imaging.decoder_pool import DecoderPool; import os\n"
        f"pool = DecoderPool(); pool.decode({png()!r})\n"
        "print(pool._slots.queue[0]._process.pid, flush=True); os._exit(1)"
    )
    done = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, env=os.environ, timeout=60
    )
    deadline = time.monotonic() + 10
    while (
        psutil.pid_exists(int(done.stdout))
        and psutil.Process(int(done.stdout)).status() != psutil.STATUS_ZOMBIE
    ):
        assert time.monotonic() < deadline
        time.sleep(0.05)


def test_a_child_reads_who_a_film_is_of() -> None:
    with DecoderPool() as pool:
        found = pool.identity(dicom(ramp(), StudyInstanceUID="1.2.3"))
        assert (found["StudyInstanceUID"], found["PatientID"]) == ("1.2.3", "MRN-12345")
        assert pool.identity(b"no film") == {}
        assert pool.decode(dicom(ramp())).source == "dicom", "the same child goes on"
