"""Read some hundred damaged files, always the same; `benchmarks/fuzz/images.py` reads 10,000."""

from __future__ import annotations

import importlib.util

import numpy as np

from lmrrg.imaging.radiograph import ImageError
from lmrrg.imaging.reading import read_image


def test_damaged_files_end_in_pixels_or_a_code(repo_root):
    spec = importlib.util.spec_from_file_location(
        "fuzz_images", repo_root / "benchmarks" / "fuzz" / "images.py"
    )
    fuzz = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(fuzz)
    rng = np.random.default_rng(20)
    seeds = fuzz.films(rng)
    for seed in seeds:
        assert read_image(seed).pixels.std() > 0.1
    codes, said = set(), []
    for _ in range(600):
        try:
            pixels = read_image(fuzz.damaged(seeds, rng)).pixels
        except ImageError as error:
            codes.add(error.code)
            said.append(str(error))
        else:
            assert pixels.dtype == np.float32
            assert pixels.min() >= 0
            assert pixels.max() <= 1
    assert "Nobody" not in "".join(said)
    assert codes > {"unreadable", "truncated", "no_pixels", "size_mismatch"}
