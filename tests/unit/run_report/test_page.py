"""The content of the run report, and the escaping of texts from outside."""

from __future__ import annotations

import json
import re
import shutil
from html.parser import HTMLParser
from pathlib import Path

import pytest

from lmrrg.config.tree import Config
from lmrrg.evaluation.errors import EvaluationError
from lmrrg.evaluation.evaluate import read_results
from lmrrg.ppo.errors import PPOError
from lmrrg.run_report.examples import class_chips, marked_sentences
from lmrrg.run_report.page import write_report
from lmrrg.studies import StudyError
from tests.support.evaluated_run import finished_run

HOSTILE = (
    "<script>document.title='taken'</script><img src=x onerror=alert(1)> & \"it's\" {{ 7 * 7 }}"
)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Config:
    return finished_run(tmp_path_factory.getbasetemp())


@pytest.fixture
def copied(run: Config, tmp_path: Path) -> Path:
    folder = tmp_path / "copy"
    shutil.copytree(run.run_dir, folder)
    return folder


class Page(HTMLParser):
    """Tags, addresses and texts of a page."""

    def __init__(self, text: str):
        super().__init__()
        self.tags: list[str] = []
        self.addresses: list[str] = []
        self.handlers: list[str] = []
        self.texts: list[str] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append(tag)
        self.addresses += [
            value or ""
            for name, value in attrs
            if name in ("src", "href", "srcset", "action", "data")
        ]
        self.handlers += [name for name, _ in attrs if name.startswith("on")]

    def handle_data(self, data: str) -> None:
        self.texts.append(data)

    @property
    def text(self) -> str:
        return " ".join(" ".join(self.texts).split())


def test_the_page_needs_nothing_outside_itself(run: Config) -> None:
    html = write_report(run.run_dir).read_text()
    page = Page(html)
    assert page.addresses
    assert all(address.startswith("data:image/jpeg;base64,") for address in page.addresses)
    assert {"script", "link", "iframe", "object"} & set(page.tags) == set()
    assert not re.search(r"@import|url\(", html)


def test_the_page_shows_the_results_as_they_are(run: Config) -> None:
    results = read_results(run.run_dir / "evaluation" / "results.json")
    page = Page(write_report(run.run_dir, run).read_text())
    difference = results["comparison"]["metrics"]["radcliq_v1"]["difference"]
    assert "PPO writes clinically better reports than SFT" in page.text
    assert f"{difference:.3f}".replace("-", "−") in page.text
    assert "For research only" in page.text
    for system in results["systems"]:
        assert system["title"] in page.text
        value = system["metrics"]["r2gen.bleu_4"]["value"]
        assert f"{value:.3f}" in page.text
    for text in (
        "radcliq-embedded",
        results["stamp"]["data_sha256"],
        "pytest",
        "bootstrap: 200",
        "Data audit",
    ):
        assert text in page.text


def test_examples_have_three_images_and_four_reports_and_stand_under_their_group(
    run: Config,
) -> None:
    html = write_report(run.run_dir, run).read_text()
    assert len(re.findall(r'<article class="example">', html)) == 8
    assert len(re.findall(r"<img ", html)) == 24
    assert len(re.findall(r'<div class="report ', html)) == 32
    examples = read_results(run.run_dir / "evaluation" / "results.json")["examples"]
    groups = list(dict.fromkeys(examples["groups"]))
    assert groups[-1] == "Drawn at random"
    assert re.findall(r'<h3 class="group">(.*)</h3>', html) == groups
    shown = re.findall(r"<h4>Study (\S+) ", html)
    assert shown == examples["ids"]


def test_sentences_are_marked_as_found_missed_and_invented(run: Config) -> None:
    html = write_report(run.run_dir, run).read_text()
    shown = html[html.index('<h3 class="group">') :]
    # The stand-ins leave out sentences of the reference; the constant report invents some.
    assert '<span class="said hit">' in shown
    assert '<span class="said miss">' in shown
    kinds = {s["text"]: s["kind"] for s in marked_sentences(*MARKED, "positive", absent="extra")}
    assert kinds == {
        "The heart is enlarged.": "hit",
        "There is edema and a nodule.": "extra",
        "No effusion.": "",
    }


MARKED = (
    "The heart is enlarged. There is edema and a nodule. No effusion.",
    {"Cardiomegaly", "Edema"},
)


def test_foreign_text_is_escaped_wherever_it_comes_from(copied: Path) -> None:
    shown = read_results(copied / "evaluation" / "results.json")["examples"]["ids"][0]
    manifest = copied / "studies.jsonl"
    studies = [json.loads(line) for line in manifest.read_text().splitlines()]
    next(study for study in studies if study["id"] == shown)["findings"] = "REFERENCE " + HOSTILE
    studies[0]["source"] = HOSTILE
    manifest.write_text("".join(json.dumps(study) + "\n" for study in studies))
    path = copied / "evaluation" / "ppo.jsonl"
    records = [json.loads(line) for line in path.read_text().splitlines()]
    next(record for record in records if record["id"] == shown)["report"] = (
        "GENERATED \u2028 \x85 " + HOSTILE
    )
    path.write_text(
        "".join(json.dumps(record, ensure_ascii=False) + "\n" for record in records),
        encoding="utf-8",
    )
    credited = json.loads((copied / "ppo" / "credited.json").read_text())
    credited["studies"][0]["reports"][0]["sentences"][0]["text"] = "SAMPLED " + HOSTILE
    (copied / "ppo" / "credited.json").write_text(json.dumps(credited))
    run_json = json.loads((copied / "run.json").read_text())
    run_json["history"][0]["command"] = "COMMAND " + HOSTILE
    (copied / "run.json").write_text(json.dumps(run_json))
    page = Page(write_report(copied).read_text())
    assert "script" not in page.tags
    assert page.handlers == []
    for where in ("REFERENCE", "GENERATED", "SAMPLED", "COMMAND"):
        assert f"{where} {HOSTILE}" in page.text
    assert "49" not in page.text[page.text.index("GENERATED") :][: len(HOSTILE) + 20]


@pytest.mark.parametrize(
    ("low", "high", "title"),
    [
        (-0.2, -0.1, "PPO writes clinically better reports than SFT"),
        (0.1, 0.2, "PPO writes clinically worse reports than SFT"),
        (-0.1, 0.2, "No difference between PPO and SFT could be shown"),
    ],
)
def test_the_headline_says_no_more_than_the_interval(
    copied: Path, low: float, high: float, title: str
) -> None:
    path = copied / "evaluation" / "results.json"
    results = json.loads(path.read_text())
    results["comparison"]["metrics"]["radcliq_v1"] |= {
        "low": low,
        "high": high,
        "difference": (low + high) / 2,
    }
    path.write_text(json.dumps(results))
    assert title in Page(write_report(copied).read_text()).text


def test_a_failed_guard_and_a_warning_are_shown(copied: Path) -> None:
    path = copied / "evaluation" / "results.json"
    results = json.loads(path.read_text())
    for place, guard in enumerate(results["guards"]):
        guard["ok"] = place != 1
    for place, system in enumerate(results["systems"]):
        system["sanity"] = (
            [{"code": "image_ignored", "message": "all reports are the same"}] if place == 1 else []
        )
    path.write_text(json.dumps(results))
    html = write_report(copied).read_text()
    assert html.count('<li class="bad">') == 2
    assert "PPO: all reports are the same" in html


def test_missing_pieces_are_named(copied: Path) -> None:
    path = copied / "evaluation" / "results.json"
    results = json.loads(path.read_text())
    path.write_text(
        json.dumps({key: value for key, value in results.items() if key != "comparison"})
    )
    with pytest.raises(EvaluationError, match="no_comparison"):
        write_report(copied)
    path.write_text(json.dumps(results))
    (copied / "studies.jsonl").unlink()
    with pytest.raises(StudyError, match="manifest_missing"):
        write_report(copied)
    path.unlink()
    with pytest.raises(EvaluationError, match="no_results"):
        write_report(copied)
    assert not (copied / "report.html").is_file() or "PPO" in (copied / "report.html").read_text()


def test_chips_tell_found_missed_and_invented_classes_apart() -> None:
    chips = class_chips({"Edema", "Fracture"}, {"Fracture", "No Finding"})
    assert [(chip["label"], chip["kind"]) for chip in chips] == [
        ("Fracture", "hit"),
        ("Edema", "miss"),
        ("No Finding", "extra"),
    ]


def test_the_credit_of_each_sentence_is_text_and_colour(run: Config) -> None:
    html = write_report(run.run_dir, run).read_text()
    section = html[html.index("<h2>Credit of sentences") :]
    section = section[: section.index("</section>")]
    shades = re.findall(r'<span class="sentence (\w+)">', section[section.index("<article") :])
    assert shades == ["up3", "down2", "even", "even"]
    text = Page(section).text
    assert "There is a left effusion. credit +0.90" in text
    assert "There is an acute rib fracture. credit −0.45" in text
    assert "end credit +0.00" in text
    assert "Sampled report 2, reward not scored (empty report) cut credit +0.00" in text
    assert "Credit: − learnt to avoid 0 + learnt to write" in text


def test_without_credited_reports_there_is_no_such_section(copied: Path) -> None:
    (copied / "ppo" / "credited.json").unlink()
    assert "Credit of sentences" not in write_report(copied).read_text()


def test_damaged_credited_reports_are_named_and_not_quoted(copied: Path) -> None:
    (copied / "ppo" / "credited.json").write_text('{"studies": ["There is an effusion."]}')
    with pytest.raises(PPOError, match="credited_reports") as caught:
        write_report(copied)
    assert "effusion" not in str(caught.value)
