"""The running service: real uploads over HTTP, compared with the model run by transformers."""

from __future__ import annotations

import base64
import io
import os
import subprocess
import sys
import time
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
import pydicom
import pytest
import requests
import torch
from PIL import Image
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from lmrrg.anatomy import REGIONS
from lmrrg.config.tree import Config
from lmrrg.imaging.reading import read_image, to_square
from lmrrg.model.checkpoint import load_checkpoint
from lmrrg.model.generator import ReportGenerator
from lmrrg.model.prompts import prompt_ids
from lmrrg.studies import LABELS, Study
from lmrrg.vision.files import load_features_from_images
from tests.support.paths import ROOT

pytestmark = pytest.mark.cluster


@pytest.fixture(scope="module")
def ready(served: str) -> str:
    """Return the address once the model is loaded; health checks are answered before that."""
    deadline = time.monotonic() + 120
    while (answer := requests.get(f"{served}/readyz", timeout=5)).status_code == 503:
        assert answer.json()["error"]["code"] == "not_ready"
        assert requests.get(f"{served}/healthz", timeout=5).json() == {"status": "alive"}
        assert time.monotonic() < deadline
        time.sleep(0.2)
    assert answer.json() == {"status": "ready"}
    return served


@pytest.fixture(scope="module")
def model(tiny_checkpoint: Path) -> ReportGenerator:
    return load_checkpoint(tiny_checkpoint)


def dicom(pixels: np.ndarray, view: str) -> bytes:
    """Return a minimal 12-bit DX object with inverted greyscale.

    Its patient name must not appear in any answer.
    """
    meta = FileMetaDataset()
    meta.TransferSyntaxUID = ExplicitVRLittleEndian
    meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.1.1"
    meta.MediaStorageSOPInstanceUID = generate_uid()
    dataset = Dataset()
    dataset.file_meta = meta
    dataset.SOPClassUID = meta.MediaStorageSOPClassUID
    dataset.SOPInstanceUID = meta.MediaStorageSOPInstanceUID
    dataset.PatientName = "Secret^Sally"
    dataset.Modality = "DX"
    dataset.ViewPosition = view
    dataset.Rows, dataset.Columns = pixels.shape
    dataset.SamplesPerPixel = 1
    dataset.PhotometricInterpretation = "MONOCHROME1"
    dataset.BitsAllocated = 16
    dataset.BitsStored = 12
    dataset.HighBit = 11
    dataset.PixelRepresentation = 0
    dataset.PixelData = (4095 - pixels.astype(np.uint16) * 16).tobytes()
    out = io.BytesIO()
    pydicom.dcmwrite(out, dataset, enforce_file_format=True)
    return out.getvalue()


def greedy(model: ReportGenerator, images: list[bytes], config: Config) -> tuple[str, list[float]]:
    """Return report and probabilities by transformers, token by token."""
    features = load_features_from_images([[read_image(image) for image in images]], config.data)
    prompts = [prompt_ids(model.tokenizer, model.config, "")]
    ids: list[int] = []
    with torch.inference_mode():
        while len(ids) < config.rollout.max_new_tokens and model.tokenizer.eos_token_id not in ids:
            tokens = torch.tensor([[*ids, 0]])
            logits = model.report_logits(
                features, prompts, tokens, torch.ones_like(tokens, dtype=torch.bool)
            ).logits
            ids.append(int(logits[0, -1].argmax()))
        probabilities = model.visual(features).disease_logits[0].sigmoid().tolist()
    return model.tokenizer.decode(ids, skip_special_tokens=True).strip(), probabilities


def post(
    address: str, *images: bytes, path: str = "/v1/reports", **fields: str
) -> requests.Response:
    files = [("files", (f"secret-{number}.bin", image)) for number, image in enumerate(images)]
    return requests.post(address + path, files=files, data=fields, timeout=60)


@pytest.fixture(scope="module")
def pngs(tiny_studies: list[Study]) -> list[bytes]:
    return [study.images[0].path.read_bytes() for study in tiny_studies]


def test_a_png_becomes_the_report_that_the_model_writes(ready, model, pngs, tiny_config):
    body = post(ready, pngs[1], indication="Cough", prior="The lungs are clear.").json()
    text, probabilities = greedy(model, [pngs[1]], tiny_config)
    assert body["findings"] == text
    assert list(body["probabilities"]) == list(LABELS)
    assert list(body["probabilities"].values()) == pytest.approx(probabilities, abs=1e-3)
    assert body["model"]["version"].startswith("sha256:")
    assert body["model"]["provenance"] == {"stage": "test"}
    assert body["model"]["decoder"] == "llama"
    assert "research only" in body["notice"]
    assert body["indication_used"] is False, "this model was built without the indication"
    assert body["prior_used"] is False, "and without the prior report"
    assert body["regions"] is None
    assert body["images"] == [
        {"view": "unknown", "source": "png", "burned_in": False, "warnings": [], "preview": None}
    ]


def test_dicom_views_are_read_and_ordered(ready, model, pngs, tiny_config):
    pixels = np.asarray(Image.open(io.BytesIO(pngs[2])))
    lateral, frontal = dicom(pixels[:, ::-1], "LL"), dicom(pixels, "PA")
    body = post(ready, lateral, pngs[4], frontal, path="/v1/reports?details=true").json()
    assert [(image["view"], image["source"]) for image in body["images"]] == [
        ("PA", "dicom"),
        ("unknown", "png"),
    ]
    assert body["images_not_used"] == 1
    assert body["findings"] == greedy(model, [lateral, pngs[4], frontal], tiny_config)[0]
    assert "Secret" not in str(body)


def test_details_show_what_the_model_saw_and_where_it_looked(ready, pngs, tiny_config):
    body = post(ready, pngs[0], pngs[3], path="/v1/reports?details=true").json()
    assert [region["name"] for region in body["regions"]] == list(REGIONS)
    for region in body["regions"]:
        heat = np.array(region["heat"])
        assert heat.shape == (2, 8, 8)
        assert heat.sum() == pytest.approx(1, abs=0.02)
    preview = body["images"][0]["preview"]
    shown = np.asarray(
        Image.open(io.BytesIO(base64.b64decode(preview.removeprefix("data:image/png;base64,"))))
    )
    square = to_square(read_image(pngs[0]).pixels, tiny_config.data.image_size)
    np.testing.assert_array_equal(shown, (square * 255).round())
    assert shown.std() > 10


def test_many_at_once_get_their_own_reports_while_health_is_answered(
    ready, model, pngs, tiny_config
):
    expected = {image: greedy(model, [image], tiny_config)[0] for image in pngs}
    assert len(set(expected.values())) > 1
    waits = []
    with ThreadPoolExecutor(16) as pool:
        answers = [(image, pool.submit(post, ready, image)) for image in pngs * 3]
        while not all(answer.done() for _, answer in answers):
            started = time.monotonic()
            assert requests.get(f"{ready}/healthz", timeout=5).ok
            waits.append(time.monotonic() - started)
            time.sleep(0.02)
    assert all(answer.result().json()["findings"] == expected[image] for image, answer in answers)
    assert max(waits) < 2


@pytest.mark.parametrize(
    ("content", "status", "code"),
    [(b"plain text", 415, "not_an_image"), (b"\x89PNG\r\n\x1a\n" + b"x" * 50, 422, "unreadable"),
     (bytes(3 << 20), 413, "too_large")],
)  # fmt: skip
def test_refusals_reach_the_client_as_codes(ready, content, status, code):
    answer = post(ready, content)
    assert (answer.status_code, answer.json()["error"]["code"]) == (status, code)


def test_a_stream_without_length_is_cut_at_the_limit(ready):
    def endless() -> Iterator[bytes]:
        yield b'--x\r\nContent-Disposition: form-data; name="files"; filename="a"\r\n\r\n'
        for _ in range(300):
            yield bytes(1 << 14)

    headers = {"content-type": "multipart/form-data; boundary=x"}
    answer = requests.post(f"{ready}/v1/reports", data=endless(), headers=headers, timeout=30)
    assert (answer.status_code, answer.json()["error"]["code"]) == (413, "too_large")


def test_the_logs_hold_no_text_and_no_names(ready, pngs, ray_cluster):
    """Check too that the logs are not empty: vLLM's default is to close all log handlers."""
    body = post(ready, pngs[5], indication="haemoptysis", prior="hydropneumothorax").json()
    post(ready, b"junk")
    logs = "\n".join(
        path.read_text(errors="replace") for path in (ray_cluster / "logs" / "serve").glob("*.log")
    )
    assert "report written: 1 images" in logs
    for private in (body["findings"], "haemoptysis", "hydropneumothorax", "secret-0", "Secret"):
        assert private not in logs


def test_serve_run_without_a_model_ends_with_one_sentence():
    clean = {
        name: value for name, value in os.environ.items() if not name.startswith(("LMRRG_", "RAY_"))
    }
    command = [str(Path(sys.executable).parent / "serve"), "run", "serve_app.app:app"]
    done = subprocess.run(command, env=clean, cwd=ROOT, capture_output=True, text=True, timeout=120)
    assert done.returncode != 0
    assert "no model to serve: set LMRRG_CHECKPOINT" in done.stderr
    assert "Traceback" not in done.stderr
