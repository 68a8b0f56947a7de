"""What an import did, in numbers: one tree for JSON, and the same numbers as a table. No id and no text enters it."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any

from lmrrg.data.privacy import identifier_counts
from lmrrg.files import file_hashes
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, UNCERTAIN, Section, Split, Study

_SPLITS: tuple[Split, ...] = ("train", "val", "test")
_TEXTS = ("findings", "impression", "indication", "comparison")


def audit_of(
    source: str,
    section: Section,
    studies: Sequence[Study],
    *,
    rows: int,
    dropped: Mapping[str, int],
    notes: Mapping[str, str],
    duplicates: Mapping[str, int] | None = None,
    views: Mapping[str, int] | None = None,
) -> dict[str, Any]:
    """Counts of rows, drops by reason, sections, views, splits, labels, priors and duplicates, ready for JSON."""
    return {
        "source": source,
        "section": section,
        "rows_read": rows,
        "kept": len(studies),
        "dropped": dict(sorted(dropped.items())),
        "splits": {
            name: count for name in (*_SPLITS, "none") if (count := len(_of_split(studies, name)))
        },
        "split_table": {name: _sizes(_of_split(studies, name)) for name in _SPLITS},
        "patients_in_two_splits": _patients_in_two_splits(studies),
        "images": sum(len(study.images) for study in studies),
        "views": dict(
            Counter(image.view for study in studies for image in study.images).most_common()
        ),
        "sections": {name: _section(studies, name) for name in _TEXTS},
        "priors": sum(study.prior is not None for study in studies),
        "abnormal": sum(study.is_abnormal for study in studies),
        "labels": {label: _values_of(studies, label) for label in LABELS},
        "identifier_like_text": identifier_counts(studies),
        "views_by_pixels": dict(views) if views is not None else None,
        "image_duplicates": dict(duplicates) if duplicates is not None else None,
        "notes": dict(notes),
    }


def audit_table(audit: Mapping[str, Any]) -> str:
    """The audit as text for people."""
    kept = audit["kept"]
    lines = [
        f"{audit['source']}: {audit['rows_read']:,} rows read, {kept:,} studies kept ({audit['section']})"
    ]
    if audit["dropped"]:
        lines += [
            "dropped:",
            *(f"  {count:9,}  {reason}" for reason, count in audit["dropped"].items()),
        ]
    lines.append(f"{'split':28}{'studies':>10}{'patients':>10}{'images':>10}{'abnormal':>10}")
    for name, sizes in audit["split_table"].items():
        lines.append(
            f"{name:28}"
            + "".join(f"{sizes[k]:10,}" for k in ("studies", "patients", "images", "abnormal"))
        )
    lines.append(f"patients in two splits: {audit['patients_in_two_splits']}")
    lines.append(
        "views: " + ", ".join(f"{view} {count:,}" for view, count in audit["views"].items())
    )
    if audit["views_by_pixels"] is not None:
        lines.append(_views_line(audit["views_by_pixels"]))
    lines.append(f"studies with a prior: {audit['priors']:,}")
    lines += [f"{key}: {value}" for key, value in audit["notes"].items()]
    shapes = ", ".join(
        f"{name} {count:,}" for name, count in audit["identifier_like_text"].items() if count
    )
    lines.append(f"studies with text in the shape of an identifier: {shapes or 'none'}")
    lines.append(_duplicates_line(audit["image_duplicates"]))
    lines.append(f"{'section':28}{'empty':>10}{'words':>10}  (median of the others)")
    for name, facts in audit["sections"].items():
        lines.append(f"{name:28}{facts['empty']:10,}{facts['median_words']:10.0f}")
    lines.append(f"{'label':28}{'positive':>10}{'negative':>10}{'uncertain':>10}{'prevalence':>12}")
    for label, values in audit["labels"].items():
        counts = "".join(f"{values[k]:10,}" for k in ("positive", "negative", "uncertain"))
        lines.append(f"{label:28}{counts}{values['positive'] / max(1, kept):12.1%}")
    return "\n".join(lines)


def find_duplicates(studies: Sequence[Study], *, progress: bool = True) -> dict[str, int]:
    """Compare all image files of the studies by the SHA-256 of their bytes.

    Returns:
        ``images``; ``distinct``; ``copies`` (images minus distinct); ``shared_by_patients`` and ``shared_by_splits``
        (contents that more than one patient, more than one split has: the second is a leak that ids do not show).
    """
    images = [(image.path, study) for study in studies for image in study.images]
    digests = file_hashes([path for path, _ in images], progress=progress)
    owners: dict[str, list[Study]] = defaultdict(list)
    for path, study in images:
        owners[digests[path]].append(study)
    return {
        "images": len(images),
        "distinct": len(owners),
        "copies": len(images) - len(owners),
        "shared_by_patients": sum(
            len({study.patient for study in group}) > 1 for group in owners.values()
        ),
        "shared_by_splits": sum(
            len({study.split for study in group}) > 1 for group in owners.values()
        ),
    }


def _views_line(views: Mapping[str, int]) -> str:
    frontal, lateral = (
        views[f"tag_{a}_pixels_{b}"] for a, b in (("frontal", "lateral"), ("lateral", "frontal"))
    )
    return (
        f"tags that disagree with the pixels: {frontal + lateral:,} of {views['images']:,} "
        f"({frontal:,} tagged frontal, {lateral:,} tagged lateral); "
        f"views told from the pixels {views['filled']:,}, not clear {views['not_clear']:,}"
    )


def _duplicates_line(duplicates: Mapping[str, int] | None) -> str:
    if duplicates is None:
        return "images with the same bytes: not looked for (--hash-images)"
    return (
        f"images with the same bytes: {duplicates['copies']:,} copies among {duplicates['images']:,} images; contents "
        f"shared by patients {duplicates['shared_by_patients']:,}, by splits {duplicates['shared_by_splits']:,}"
    )


def _of_split(studies: Sequence[Study], name: str) -> list[Study]:
    return [study for study in studies if (study.split or "none") == name]


def _sizes(studies: Sequence[Study]) -> dict[str, int]:
    return {
        "studies": len(studies),
        "patients": len({study.patient for study in studies}),
        "images": sum(len(study.images) for study in studies),
        "abnormal": sum(study.is_abnormal for study in studies),
    }


def _patients_in_two_splits(studies: Sequence[Study]) -> int:
    splits: dict[str, set[str | None]] = defaultdict(set)
    for study in studies:
        splits[study.patient].add(study.split)
    return sum(len(found) > 1 for found in splits.values())


def _section(studies: Sequence[Study], name: str) -> dict[str, float]:
    words = [len(text.split()) for study in studies if (text := getattr(study, name))]
    return {"empty": len(studies) - len(words), "median_words": median(words) if words else 0}


def _values_of(studies: Sequence[Study], label: str) -> dict[str, int]:
    counts = Counter((study.labels or {}).get(label) for study in studies)
    return {
        "positive": counts[POSITIVE],
        "negative": counts[NEGATIVE],
        "uncertain": counts[UNCERTAIN],
    }
