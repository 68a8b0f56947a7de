"""The example studies of the run report: image, two region heat maps, and four reports."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmrrg.anatomy import REGIONS
from lmrrg.config.data import DataConfig
from lmrrg.evaluation.examples import relevant_regions
from lmrrg.evaluation.rows import ScoreNames, signed
from lmrrg.evaluation.template import sentences_of_report
from lmrrg.imaging.batch import read_by_settings
from lmrrg.metrics.clinical import positives
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.run_report.images import heat_map_uri, peak_over_uniform, radiograph_uri
from lmrrg.studies import LABELS, Study, is_abnormal
from lmrrg.views import choose_views

_MARKS = {"hit": "✓", "miss": "−", "extra": "+"}

Record = Mapping[str, Any]
"""One line of ``evaluation/<system>.jsonl``."""


def example_groups(groups: Sequence[str], cards: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return the cards by their group, in the order of the first card of each."""
    by_group: dict[str, list[dict[str, Any]]] = {}
    for group, card in zip(groups, cards, strict=True):
        by_group.setdefault(group, []).append(card)
    return [{"title": group, "cards": cards} for group, cards in by_group.items()]


def example_cards(
    ids: Sequence[str],
    studies: Sequence[Study],
    reports: Mapping[str, Mapping[str, Record]],
    titles: Mapping[str, str],
    attention: NDArray[np.float32],
    stamp: Mapping[str, Any],
    data: DataConfig,
) -> list[dict[str, Any]]:
    """Return what the template shows of each example, in the order of ``ids``.

    Args:
        ids: study ids of the E examples.
        studies: the manifest of the run.
        reports: the records of each shown system by study id.
        titles: title of each system by its name.
        attention: region cross-attention of the examples [E, 29, V, P].
        stamp: the ``stamp`` of ``results.json``.
        data: how the run reads images.
    """
    study_by_id = {study.id: study for study in studies}
    cards = []
    for study_id, maps in zip(ids, attention, strict=True):
        records = {system: by_id[study_id] for system, by_id in reports.items()}
        cards.append(_card(study_by_id[study_id], records, titles, maps, stamp, data))
    return cards


def _card(
    study: Study,
    records: Mapping[str, Record],
    titles: Mapping[str, str],
    attention: NDArray[np.float32],
    stamp: Mapping[str, Any],
    data: DataConfig,
) -> dict[str, Any]:
    """Return one example; ``attention`` is [29, V, P]."""
    image = choose_views(study.images, 1)[0]
    pixels = read_by_settings(image.path, data).pixels
    reference = study.report(stamp["section"])
    # Every system has the same reference labels. They are not always the study's own: without
    # labels in the data, the evaluation read them from the references.
    reference_labels = next(iter(records.values()))["reference_labels"]
    policy = stamp["uncertain_policy"]
    truth = _present(reference_labels, policy)
    written = _present(records["ppo"]["labels"], policy)
    heat = []
    for region in relevant_regions(reference, label_report):
        first_view = attention[REGIONS.index(region), 0]
        heat.append(
            {
                "region": region,
                "image": heat_map_uri(pixels, first_view),
                "peak": f"{peak_over_uniform(first_view):.1f}",
            }
        )
    return {
        "id": study.id,
        "abnormal": is_abnormal(reference_labels),
        "view": image.view,
        "image": radiograph_uri(pixels),
        "heat": heat,
        "reference": {
            "sentences": marked_sentences(reference, written, policy, absent="miss"),
            "labels": [label for label in LABELS if label in truth],
        },
        "reports": [
            _report(name, titles[name], record, truth, stamp) for name, record in records.items()
        ],
    }


def _report(
    name: str, title: str, record: Record, truth: set[str], stamp: Mapping[str, Any]
) -> dict[str, Any]:
    """Return one generated report with its classes against the ``truth`` and three scores."""
    names = ScoreNames.of(stamp["backend"]["name"])
    return {
        "system": name,
        "title": title,
        "sentences": marked_sentences(
            record["report"], truth, stamp["uncertain_policy"], absent="extra"
        ),
        "finished": record["finished"],
        "chips": class_chips(truth, _present(record["labels"], stamp["uncertain_policy"])),
        "scores": [
            {"title": names.radcliq, "value": signed(record["radcliq_v1"], 2)},
            {"title": names.graph, "value": signed(record["radgraph"], 2)},
            {"title": "reward", "value": signed(record["reward"], 2)},
        ],
    }


def marked_sentences(
    report: str, other: set[str], policy: Any, *, absent: str
) -> list[dict[str, str]]:
    """Return the sentences of a report, each with what becomes of the classes that it states.

    Its kind is "hit" where the ``other`` report has all of them, ``absent`` where it lacks one, and
    empty for a sentence that states none. Sentences are read by rules.

    >>> for sentence in marked_sentences(
    ...     "Large heart. Cardiomegaly. Edema. No nodule.", {"Edema"}, "positive", absent="extra"
    ... ):
    ...     print(sentence["text"], sentence["kind"])
    Large heart. extra
    Cardiomegaly. extra
    Edema. hit
    No nodule.
    """
    marked = []
    for sentence in sentences_of_report(report):
        stated = _present(label_report(sentence), policy) - {"No Finding"}
        kind = (absent if stated - other else "hit") if stated else ""
        marked.append({"text": sentence, "kind": kind})
    return marked


def class_chips(truth: set[str], found: set[str]) -> list[dict[str, str]]:
    """Return the classes of a generated report compared with those of the study.

    Found classes come first, then missed ones, then those that the study does not have.

    >>> [chip["mark"] + chip["label"] for chip in class_chips({"Edema"}, {"Fracture"})]
    ['−Edema', '+Fracture']
    """
    kinds = {"hit": truth & found, "miss": truth - found, "extra": found - truth}
    return [
        {"label": label, "kind": kind, "mark": _MARKS[kind]}
        for kind, labels in kinds.items()
        for label in LABELS
        if label in labels
    ]


def _present(labels: Mapping[str, int], policy: Any) -> set[str]:
    """Return the classes that count as present under an uncertain policy."""
    row = positives([labels], policy)[0]
    return {label for label, is_present in zip(LABELS, row, strict=True) if is_present}
