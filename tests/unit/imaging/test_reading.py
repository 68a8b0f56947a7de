"""Test PNG and JPEG, and the model's square."""

from __future__ import annotations

import io
import struct
import zlib

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageOps

from lmrrg.imaging import radiograph
from lmrrg.imaging.radiograph import DEFAULT_LIMITS, IMAGE_ERROR_CODES, ImageError, Limits
from lmrrg.imaging.reading import read_image, to_square


def grey(rows: int = 64, columns: int = 80) -> np.ndarray:
    return (np.add.outer(np.arange(rows) * 2, np.arange(columns)) % 256).astype(np.uint8)


def saved(image: Image.Image, kind: str, **options) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, kind, **options)
    return buffer.getvalue()


def code_of(data, limits: Limits = DEFAULT_LIMITS) -> str:
    with pytest.raises(ImageError) as caught:
        read_image(data, limits)
    assert caught.value.code in IMAGE_ERROR_CODES
    return caught.value.code


def test_png_of_8_bits():
    image = read_image(saved(Image.fromarray(grey()), "PNG"))
    assert (image.source, image.view, image.pixels.dtype) == ("png", "unknown", np.float32)
    np.testing.assert_array_equal(np.rint(image.pixels * 255), grey())


def test_png_of_16_bits_is_shown_over_its_own_range():
    values = grey().astype(np.uint16) * 11 + 300
    image = read_image(saved(Image.fromarray(values), "PNG"))
    low, high = int(values.min()), int(values.max())
    expected = [[(int(v) - low) / (high - low) for v in row] for row in values]
    np.testing.assert_allclose(image.pixels, expected, atol=1e-6)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_few_bytes_with_millions_of_pixels_are_refused_before_decoding(kind, monkeypatch):
    black = saved(Image.new("L", (2200, 2200)), kind)
    monkeypatch.setattr(Image.Image, "load", lambda *_: pytest.fail("decoded"))
    assert code_of(black) == "empty_image"


def test_transparent_parts_are_black():
    alpha = np.full_like(grey(), 255)
    alpha[:20] = 0
    alpha[20:40] = 128
    image = read_image(
        saved(Image.merge("LA", [Image.fromarray(grey()), Image.fromarray(alpha)]), "PNG")
    )
    assert not image.pixels[:20].any()
    np.testing.assert_allclose(image.pixels[20:40] * 255, grey()[20:40] * (128 / 255), atol=1.01)
    np.testing.assert_array_equal(np.rint(image.pixels[40:] * 255), grey()[40:])


def test_palette():
    image = Image.fromarray(grey()).convert("P")
    image.putpalette([255 - n for n in range(256) for _ in range(3)])
    np.testing.assert_array_equal(
        np.rint(read_image(saved(image, "PNG")).pixels * 255), 255 - grey()
    )


def test_colour_png_is_its_luminance():
    rgb = Image.fromarray(grey()).convert("RGB")
    np.testing.assert_array_equal(np.rint(read_image(saved(rgb, "PNG")).pixels * 255), grey())


@pytest.mark.parametrize(("orientation", "turn"), [(1, 0), (3, 2), (6, 1), (8, 3)])
def test_exif_orientation(orientation, turn):
    """The file holds the image turned ``turn`` times by 90 degrees; EXIF states the way back."""
    upright = Image.fromarray(grey()).resize((160, 120))
    exif = Image.Exif()
    exif[0x0112] = orientation
    stored = Image.fromarray(np.rot90(np.asarray(upright), turn).copy())
    image = read_image(saved(stored, "JPEG", quality=100, exif=exif))
    assert image.source == "jpeg"
    np.testing.assert_allclose(image.pixels * 255, np.asarray(upright), atol=4)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize("mode", ["L", "RGB", "I;16"])
@pytest.mark.parametrize("orientation", range(10))
def test_every_exif_orientation_is_as_pillow_turns_it(orientation, mode, kind):
    """0 and 9 mean nothing, and leave the image as it is."""
    if (kind, mode) == ("JPEG", "I;16"):
        pytest.skip("a JPEG has 8 bits")
    exif = Image.Exif()
    exif[0x0112] = orientation
    image = (
        Image.fromarray(grey().astype(np.uint16) * 9)
        if mode == "I;16"
        else Image.fromarray(grey()).convert(mode)
    )
    data = saved(image, kind, exif=exif)
    turned = saved(ImageOps.exif_transpose(Image.open(io.BytesIO(data))), "PNG", exif=b"")
    np.testing.assert_array_equal(read_image(data).pixels, read_image(turned).pixels)


def exif_block(*tags: tuple[int, int, int, bytes]) -> bytes:
    """Return an EXIF block of (tag, type, count, value of up to 4 bytes), in ascending order."""
    entries = b"".join(
        struct.pack("<HHI4s", tag, kind, count, value) for tag, kind, count, value in tags
    )
    return b"Exif\0\0II*\0" + struct.pack("<IH", 8, len(tags)) + entries + bytes(4)


SIDEWAYS = (0x0112, 3, 1, struct.pack("<H", 6))


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_a_tag_of_an_unusual_type_does_not_matter(kind):
    x_resolution_as_text = (0x011A, 2, 3, b"72\0")
    plain, odd = (
        saved(Image.fromarray(grey()), kind, exif=exif_block(SIDEWAYS, *more))
        for more in ((), (x_resolution_as_text,))
    )
    assert read_image(odd).pixels.shape == grey().T.shape
    np.testing.assert_array_equal(read_image(odd).pixels, read_image(plain).pixels)


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
@pytest.mark.parametrize(
    "exif",
    [
        b"Exif\0\0",
        b"Exif\0\0no TIFF header",
        exif_block(SIDEWAYS)[:9],
        exif_block(SIDEWAYS)[:20],
        exif_block((0x0112, 2, 1, b"6\0")),
        exif_block((0x0112, 5, 1, b"\xff\xff\xff\x7f")),
        exif_block((0x0112, 3, 0xFFFFFFF, b"\xff\xff\xff\x7f")),
    ],
)
def test_behind_a_damaged_exif_block_the_image_is_as_stored(exif, kind):
    pixels = read_image(saved(Image.fromarray(grey()), kind, exif=exif)).pixels
    np.testing.assert_array_equal(pixels, read_image(saved(Image.fromarray(grey()), kind)).pixels)


def test_cmyk_jpeg():
    smooth = Image.fromarray(grey()).resize((160, 160), Image.Resampling.BICUBIC)
    image = read_image(saved(smooth.convert("RGB").convert("CMYK"), "JPEG", quality=100))
    np.testing.assert_allclose(image.pixels * 255, np.asarray(smooth), atol=6)


@pytest.mark.parametrize(
    ("data", "code"),
    [
        (b"", "not_an_image"),
        (b"hello, this is text" * 20, "not_an_image"),
        (b"\x89PNG\r\n\x1a\n" + b"x" * 400, "unreadable"),
        (b"\xff\xd8\xff" + b"x" * 400, "unreadable"),
        (saved(Image.fromarray(grey()), "BMP"), "not_an_image"),
        (saved(Image.fromarray(grey(40, 80)), "PNG"), "too_small"),
        (saved(Image.new("L", (80, 80), 9), "PNG"), "constant_image"),
        (saved(Image.new("I;16", (80, 80), 9), "PNG"), "constant_image"),
    ],
)
def test_refusals(data, code):
    assert code_of(data) == code


def test_animated_png_is_refused():
    frames = [Image.fromarray(grey()), Image.fromarray(255 - grey())]
    data = saved(frames[0], "PNG", save_all=True, append_images=frames[1:], default_image=False)
    assert code_of(data) == "multi_frame"


@pytest.mark.parametrize("kind", ["PNG", "JPEG"])
def test_truncated(kind):
    noise = np.random.default_rng(0).integers(0, 256, (128, 128)).astype(np.uint8)
    data = saved(Image.fromarray(noise), kind)
    assert code_of(data[: len(data) // 2]) in ("truncated", "unreadable")


def test_too_large_is_refused_before_decoding():
    """A small file that states many pixels: its (absent) pixel data is never asked for."""
    data = bytearray(saved(Image.fromarray(grey()), "PNG"))
    data[16:24] = (9000).to_bytes(4, "big") + (9000).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    assert code_of(bytes(data)) == "too_large"
    data[16:24] = (60000).to_bytes(4, "big") + (60000).to_bytes(4, "big")
    data[29:33] = zlib.crc32(data[12:29]).to_bytes(4, "big")
    assert code_of(bytes(data)) == "too_large"


def test_limits_are_the_callers(tmp_path):
    path = tmp_path / "big.png"
    path.write_bytes(saved(Image.fromarray(grey()), "PNG"))
    for source in (path, path.read_bytes()):
        assert code_of(source, Limits(max_bytes=100)) == "too_large"
        assert code_of(source, Limits(max_pixels=64 * 80 - 1)) == "too_large"
        assert read_image(source, Limits(max_pixels=64 * 80)).pixels.shape == (64, 80)


def test_the_name_does_not_matter(tmp_path):
    path = tmp_path / "film.dcm"
    path.write_bytes(saved(Image.fromarray(grey()), "PNG"))
    assert read_image(path).source == "png"
    assert read_image(str(path)).source == "png"
    assert code_of(tmp_path / "absent.png") == "file_missing"


def test_stretch_reaches_both_ends():
    values = np.array([[3.0, 5.0], [11.0, 7.0]])
    np.testing.assert_allclose(radiograph.stretch(values), [[0, 0.25], [1, 0.5]])
    with pytest.raises(ImageError, match="constant_image"):
        radiograph.stretch(values * 0)


@settings(max_examples=60, deadline=None)
@given(
    rows=st.integers(1, 300),
    columns=st.integers(1, 300),
    size=st.integers(8, 128),
    seed=st.integers(0, 99),
)
def test_square_keeps_aspect_range_and_mass(rows, columns, size, seed):
    pixels = np.random.default_rng(seed).uniform(0.2, 1.0, (rows, columns)).astype(np.float32)
    square = to_square(pixels, size)
    assert square.shape == (size, size)
    assert square.dtype == np.float32
    inside = square > 0.1
    high, wide = inside.any(axis=1).sum(), inside.any(axis=0).sum()
    assert max(high, wide) == size
    assert abs(high / wide - rows / columns) <= 1.01 * max(rows / columns, 1) / min(high, wide)
    assert inside.sum() == high * wide
    assert pixels.min() - 1e-5 <= square[inside].min()
    assert square.max() <= pixels.max() + 1e-5


def test_square_is_antialiased():
    """A fine checkerboard shrunk by four is its mean, not a pattern of its own."""
    board = (np.indices((256, 256)).sum(axis=0) % 2).astype(np.float32)
    middle = to_square(board, 64)[4:-4, 4:-4]
    np.testing.assert_allclose(middle, 0.5, atol=0.02)


def test_square_of_its_own_size_is_untouched():
    pixels = np.random.default_rng(1).random((64, 64), np.float32)
    np.testing.assert_array_equal(to_square(pixels, 64), pixels)


def png_of_16_bits(samples: np.ndarray, colour_type: int, *chunks: tuple[bytes, bytes]) -> bytes:
    """Return a PNG file of [H, W, samples], row by row filtered by the difference to the left."""
    rows, columns, count = samples.shape
    raw = np.frombuffer(samples.astype(">u2").tobytes(), np.uint8).reshape(rows, -1)
    step = 2 * count
    filtered = raw.copy()
    filtered[:, step:] -= raw[:, :-step]
    body = b"".join(b"\1" + row.tobytes() for row in filtered)
    header = struct.pack(">IIBBBBB", columns, rows, 16, colour_type, 0, 0, 0)
    data = b"\x89PNG\r\n\x1a\n"
    parts = [(b"IHDR", header), *chunks, (b"IDAT", zlib.compress(body)), (b"IEND", b"")]
    for name, content in parts:
        check = struct.pack(">I", zlib.crc32(name + content))
        data += struct.pack(">I", len(content)) + name + content + check
    return data


@pytest.mark.parametrize("colour_type", [2, 4, 6])
def test_png_with_several_samples_of_16_bits_keeps_them(colour_type):
    values = grey().astype(np.uint16) * 11 + 300
    alpha = np.full(values.shape, 65535, np.uint16)
    alpha[:10] = 0
    planes = [values] * (1 if colour_type == 4 else 3) + [alpha] * (colour_type != 2)
    pixels = read_image(png_of_16_bits(np.stack(planes, -1), colour_type)).pixels
    expected = (values - 300.0) / (np.ptp(values[10:]))
    if colour_type == 2:
        expected = (values - 300.0) / np.ptp(values)
    else:
        expected = (values - values[10:].min()) / np.ptp(values[10:].astype(float))
        expected[:10] = 0
    np.testing.assert_allclose(pixels, expected, atol=1e-6)


def test_png_of_16_bits_in_colour_with_a_transparent_colour():
    values = grey().astype(np.uint16) * 11 + 300
    values[:10] = 60000
    chunk = (b"tRNS", struct.pack(">HHH", 60000, 60000, 60000))
    pixels = read_image(png_of_16_bits(np.stack([values] * 3, -1), 2, chunk)).pixels
    assert not pixels[:10].any()
    np.testing.assert_allclose(
        pixels[10:],
        (values[10:] - values[10:].min()) / np.ptp(values[10:].astype(float)),
        atol=1e-6,
    )


def test_a_damaged_png_of_16_bits_in_colour_is_refused():
    data = png_of_16_bits(np.stack([grey().astype(np.uint16)] * 3, -1), 2)
    assert code_of(data[: len(data) // 2]) in ("truncated", "unreadable")
