import json
from pathlib import Path

import pytest
import torch
import yaml

from lmrrg.anatomy import REGIONS
from lmrrg.model import region_queries as regions
from lmrrg.model.region_queries import RegionError, load_regions, region_queries
from tests.support.paths import REAL_DATA


def test_the_packaged_file_has_the_29_regions_in_order_with_40_to_80_words():
    texts = load_regions()
    assert tuple(texts) == REGIONS
    assert len(set(texts.values())) == len(REGIONS) == 29
    for name, text in texts.items():
        assert 40 <= len(text.split()) <= 80, name
        assert text.isascii(), name


def test_left_and_right_twins_exist():
    for name in REGIONS:
        if name.startswith("right ") and name != "right atrium":
            assert name.replace("right", "left") in REGIONS


def test_names_are_those_of_the_field(repo_root: Path):
    data = REAL_DATA
    if not (data / "rgrg_29_regions.json").is_file():
        pytest.skip("the field's list of regions is not here")
    assert json.loads((data / "rgrg_29_regions.json").read_text()) == list(REGIONS)


@pytest.mark.parametrize(
    ("change", "code"),
    [
        (lambda texts: texts.pop("svc"), "regions_names"),
        (lambda texts: texts.update(liver="word " * 50), "regions_names"),
        (lambda texts: texts.update(svc="too short"), "regions_words"),
        (lambda texts: texts.update(svc=7), "regions_format"),
        (lambda texts: texts.update({1: "word " * 50}), "regions_format"),
    ],
)
def test_a_wrong_file_is_refused(tmp_path: Path, change, code: str):
    texts = dict(load_regions())
    change(texts)
    path = tmp_path / "regions.yaml"
    path.write_text(yaml.safe_dump(texts))
    with pytest.raises(RegionError, match=code):
        load_regions(path)


def test_a_file_that_is_not_utf8_is_named(tmp_path: Path):
    (tmp_path / "latin.yaml").write_bytes(b"svc: caf\xe9\n")
    with pytest.raises(RegionError, match=r"regions_format: .*latin\.yaml"):
        load_regions(tmp_path / "latin.yaml")


def test_a_region_that_is_described_twice_is_refused(tmp_path: Path):
    path = tmp_path / "twice.yaml"
    path.write_text(
        yaml.safe_dump(load_regions()) + yaml.safe_dump({"svc": load_regions()["carina"]})
    )
    with pytest.raises(
        RegionError, match=r"regions_format: .*twice\.yaml.*the key svc occurs twice"
    ):
        load_regions(path)


def test_the_order_of_the_file_does_not_matter(tmp_path: Path):
    path = tmp_path / "regions.yaml"
    path.write_text(yaml.safe_dump(dict(reversed(load_regions().items())), sort_keys=False))
    assert load_regions(path) == load_regions()
    assert tuple(load_regions(path)) == REGIONS


def test_queries_are_unit_vectors_that_tell_the_regions_apart(queries: torch.Tensor):
    assert queries.shape == (29, 384)
    assert queries.dtype == torch.float32
    torch.testing.assert_close(queries.norm(dim=1), torch.ones(29))
    similarity = queries @ queries.T - 2 * torch.eye(29)
    assert similarity.max() < 0.95
    nearest = {name: REGIONS[int(i)] for name, i in zip(REGIONS, similarity.argmax(1), strict=True)}
    assert nearest["left clavicle"] == "right clavicle"
    assert "costophrenic" in nearest["right costophrenic angle"]


def test_queries_do_not_depend_on_the_batch_they_are_encoded_in(queries: torch.Tensor):
    folder = regions._encoder_folder("minilm")
    alone = regions._encode(folder, {"svc": load_regions()["svc"]})
    torch.testing.assert_close(alone[0], queries[REGIONS.index("svc")], atol=1e-5, rtol=0)


def test_cached_queries_are_used_until_a_text_changes(
    tmp_path: Path, queries: torch.Tensor, monkeypatch
):
    assert torch.equal(region_queries(cache_dir=tmp_path), queries)
    (cached,) = tmp_path.iterdir()

    changed = tmp_path / "texts.yaml"
    changed.write_text(yaml.safe_dump({**load_regions(), "svc": load_regions()["carina"]}))
    other = region_queries(regions_file=changed, cache_dir=tmp_path)
    differs = (other - queries).abs().amax(1) > 1e-3
    assert [name for name, d in zip(REGIONS, differs, strict=True) if d] == ["svc"]

    monkeypatch.setattr(regions, "_encode", lambda *_: pytest.fail("the cache was not used"))
    assert torch.equal(region_queries(cache_dir=tmp_path), queries)
    assert cached.is_file()


def test_damaged_queries_are_computed_again(tmp_path: Path, queries: torch.Tensor, monkeypatch):
    monkeypatch.setattr(regions, "_encode", lambda *_: queries)
    region_queries(cache_dir=tmp_path)
    (cached,) = tmp_path.iterdir()
    assert cached.stat().st_mode & 0o777 == 0o644  # a shared cache
    whole = cached.read_bytes()
    for torn in (whole[:100], b""):
        cached.write_bytes(torn)
        assert torch.equal(region_queries(cache_dir=tmp_path), queries)
        assert cached.read_bytes() == whole


def test_another_file_under_minilms_name_is_refused(monkeypatch):
    monkeypatch.setattr(regions, "MINILM_SHA256", "0" * 64)
    with pytest.raises(RegionError, match="text_encoder_hash"):
        region_queries()


def test_a_missing_text_encoder_is_refused(tmp_path: Path):
    with pytest.raises(RegionError, match="text_encoder_missing"):
        region_queries(str(tmp_path))
