"""The example studies of the run report: image, two region heat maps, three reports, and what differs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from lmrrg.anatomy import REGIONS
from lmrrg.evaluation.examples import relevant_regions
from lmrrg.evaluation.rows import ScoreNames, signed
from lmrrg.imaging.reading import read_image
from lmrrg.metrics.clinical import positives
from lmrrg.metrics.embedded.labeler import label_report
from lmrrg.run_report.images import heat_map_uri, peak_over_uniform, radiograph_uri
from lmrrg.studies import LABELS, Study, is_abnormal
from lmrrg.views import choose_views

_MARKS = {"hit": "✓", "miss": "−", "extra": "+"}

Record = Mapping[str, Any]


def example_cards(
    ids: Sequence[str],
    studies: Sequence[Study],
    reports: Mapping[str, Mapping[str, Record]],
    titles: Mapping[str, str],
    attention: NDArray[np.float32],
    stamp: Mapping[str, Any],
) -> list[dict[str, Any]]:
    """What the template shows of each example, in order.

    ``reports`` holds the records of each system by study id; ``attention`` [E, 29, V, P] belongs to the examples.
    """
    by_id = {study.id: study for study in studies}
    return [
        _card(
            by_id[study_id],
            {name: of[study_id] for name, of in reports.items()},
            titles,
            maps,
            stamp,
        )
        for study_id, maps in zip(ids, attention, strict=True)
    ]


def _card(
    study: Study,
    records: Mapping[str, Record],
    titles: Mapping[str, str],
    attention: NDArray[np.float32],
    stamp: Mapping[str, Any],
) -> dict[str, Any]:
    first = choose_views(study.images, 1)[0]
    pixels = read_image(first.path).pixels
    reference = study.report(stamp["section"])
    any_record = next(iter(records.values()))
    truth = _present(any_record["reference_labels"], stamp["uncertain_policy"])
    regions = [
        (name, attention[REGIONS.index(name), 0])
        for name in relevant_regions(reference, label_report)
    ]
    return {
        "id": study.id,
        "abnormal": is_abnormal(any_record["reference_labels"]),
        "view": first.view,
        "image": radiograph_uri(pixels),
        "heat": [
            {
                "region": name,
                "image": heat_map_uri(pixels, heat),
                "peak": f"{peak_over_uniform(heat):.1f}",
            }
            for name, heat in regions
        ],
        "reference": {"text": reference, "labels": [label for label in LABELS if label in truth]},
        "reports": [
            _report(name, titles[name], record, truth, stamp) for name, record in records.items()
        ],
    }


def _report(
    name: str, title: str, record: Record, truth: set[str], stamp: Mapping[str, Any]
) -> dict[str, Any]:
    names = ScoreNames.of(stamp["backend"]["name"])
    return {
        "system": name,
        "title": title,
        "text": record["report"],
        "finished": record["finished"],
        "chips": class_chips(truth, _present(record["labels"], stamp["uncertain_policy"])),
        "scores": [
            {"title": names.radcliq, "value": signed(record["radcliq_v1"], 2)},
            {"title": names.graph, "value": signed(record["radgraph"], 2)},
            {"title": "reward", "value": signed(record["reward"], 2)},
        ],
    }


def class_chips(truth: set[str], found: set[str]) -> list[dict[str, str]]:
    """The classes of a generated report against those of the study: found, missed, then those too many."""
    kinds = (("hit", truth & found), ("miss", truth - found), ("extra", found - truth))
    return [
        {"label": label, "kind": kind, "mark": _MARKS[kind]}
        for kind, labels in kinds
        for label in LABELS
        if label in labels
    ]


def _present(labels: Mapping[str, int], policy: Any) -> set[str]:
    return {
        label
        for label, is_there in zip(LABELS, positives([labels], policy)[0], strict=True)
        if is_there
    }
