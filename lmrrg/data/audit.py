"""The audit of an import: counts, for JSON and as a table. It holds no id and no report text."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Mapping, Sequence
from statistics import median
from typing import Any, get_args

from lmrrg.data.privacy import identifier_counts
from lmrrg.files import file_hashes
from lmrrg.studies import LABELS, NEGATIVE, POSITIVE, UNCERTAIN, Section, Split, Study

_SPLITS: tuple[Split, ...] = get_args(Split)
_TEXTS = ("findings", "impression", "indication", "comparison")
_SIZES = ("studies", "patients", "images", "abnormal")
_LABEL_VALUES = {"positive": POSITIVE, "negative": NEGATIVE, "uncertain": UNCERTAIN}


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
    images: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """Return the counts of an import, ready for JSON.

    Counted are rows, drops by reason, sections, views, splits, labels, priors, duplicates, and what
    the checks of views and images found.
    """
    # Only counts of ids and words enter the audit, so that it can be shared.
    split_sizes: Counter[str] = Counter(study.split or "none" for study in studies)
    views_of_images = Counter(image.view for study in studies for image in study.images)
    return {
        "source": source,
        "section": section,
        "rows_read": rows,
        "kept": len(studies),
        "dropped": dict(sorted(dropped.items())),
        "splits": {name: split_sizes[name] for name in (*_SPLITS, "none") if split_sizes[name]},
        "split_table": {name: _sizes_of_split(studies, name) for name in _SPLITS},
        "patients_in_two_splits": _patients_in_two_splits(studies),
        "images": views_of_images.total(),
        "views": dict(views_of_images.most_common()),
        "sections": {name: _section_counts(studies, name) for name in _TEXTS},
        "priors": sum(study.prior is not None for study in studies),
        "abnormal": sum(study.is_abnormal for study in studies),
        "labels": {label: _label_counts(studies, label) for label in LABELS},
        "identifier_like_text": identifier_counts(studies),
        "views_by_pixels": dict(views) if views is not None else None,
        "image_check": dict(images) if images is not None else None,
        "image_duplicates": dict(duplicates) if duplicates is not None else None,
        "notes": dict(notes),
    }


def audit_table(audit: Mapping[str, Any]) -> str:
    """Return an audit as text for people."""
    lines = [
        *_row_lines(audit),
        *_split_lines(audit),
        *_fact_lines(audit),
        *_section_lines(audit),
        *_label_lines(audit),
    ]
    return "\n".join(lines)


def find_duplicates(studies: Sequence[Study], *, progress: bool = True) -> dict[str, int]:
    """Compare all image files of the studies by the SHA-256 of their bytes.

    Returns:
        ``images``; ``distinct``; ``copies`` (images minus distinct); ``shared_by_patients`` and
        ``shared_by_splits``: contents that more than one patient, or more than one split, has. The
        last is a leak between splits that ids do not show.
    """
    images = [(image.path, study) for study in studies for image in study.images]
    digests = file_hashes([path for path, _ in images], progress=progress)
    patients: dict[str, set[str]] = defaultdict(set)
    splits: dict[str, set[str | None]] = defaultdict(set)
    for path, study in images:
        patients[digests[path]].add(study.patient)
        splits[digests[path]].add(study.split)
    return {
        "images": len(images),
        "distinct": len(patients),
        "copies": len(images) - len(patients),
        "shared_by_patients": sum(len(owners) > 1 for owners in patients.values()),
        "shared_by_splits": sum(len(owners) > 1 for owners in splits.values()),
    }


def _row_lines(audit: Mapping[str, Any]) -> list[str]:
    read = f"{audit['rows_read']:,} rows read"
    kept = f"{audit['kept']:,} studies kept ({audit['section']})"
    lines = [f"{audit['source']}: {read}, {kept}"]
    if audit["dropped"]:
        lines.append("dropped:")
    for reason, count in audit["dropped"].items():
        lines.append(f"  {count:9,}  {reason}")
    return lines


def _split_lines(audit: Mapping[str, Any]) -> list[str]:
    lines = [f"{'split':28}" + "".join(f"{name:>10}" for name in _SIZES)]
    for name, sizes in audit["split_table"].items():
        lines.append(f"{name:28}" + "".join(f"{sizes[size]:10,}" for size in _SIZES))
    return lines


def _fact_lines(audit: Mapping[str, Any]) -> list[str]:
    views = ", ".join(f"{view} {count:,}" for view, count in audit["views"].items())
    lines = [f"patients in two splits: {audit['patients_in_two_splits']}", f"views: {views}"]
    if audit["views_by_pixels"] is not None:
        lines.append(_view_check_line(audit["views_by_pixels"]))
    if audit["image_check"] is not None:
        lines.append(_image_check_line(audit["image_check"]))
    lines.append(f"studies with a prior: {audit['priors']:,}")
    lines += [f"{key}: {value}" for key, value in audit["notes"].items()]
    shapes = audit["identifier_like_text"].items()
    found = ", ".join(f"{name} {count:,}" for name, count in shapes if count)
    lines.append(f"studies with text in the shape of an identifier: {found or 'none'}")
    lines.append(_duplicates_line(audit["image_duplicates"]))
    return lines


def _view_check_line(views: Mapping[str, int]) -> str:
    frontal = views["tag_frontal_pixels_lateral"]
    lateral = views["tag_lateral_pixels_frontal"]
    return (
        f"tags that disagree with the pixels: {frontal + lateral:,} of {views['images']:,} "
        f"({frontal:,} tagged frontal, {lateral:,} tagged lateral); "
        f"views filled in from the pixels {views['filled']:,}, not clear {views['not_clear']:,}"
    )


def _image_check_line(images: Mapping[str, Any]) -> str:
    left_out = f", {images['left_out']:,} left out" if images["left_out"] else ""
    refused = ", ".join(f"{code} {count:,}" for code, count in images["refused"].items())
    flagged = ", ".join(f"{code} {count:,}" for code, count in images["flagged"].items())
    return (
        f"images read: {images['images']:,}; refused: {refused or 'none'}{left_out}; "
        f"flagged: {flagged or 'none'}"
    )


def _duplicates_line(duplicates: Mapping[str, int] | None) -> str:
    if duplicates is None:
        return "images with the same bytes: not looked for (--hash-images)"
    copies = f"{duplicates['copies']:,} copies among {duplicates['images']:,} images"
    patients = f"{duplicates['shared_by_patients']:,}"
    splits = f"{duplicates['shared_by_splits']:,}"
    shared = f"contents shared by patients {patients}, by splits {splits}"
    return f"images with the same bytes: {copies}; {shared}"


def _section_lines(audit: Mapping[str, Any]) -> list[str]:
    lines = [f"{'section':28}{'empty':>10}{'words':>10}  (median of the others)"]
    for name, facts in audit["sections"].items():
        lines.append(f"{name:28}{facts['empty']:10,}{facts['median_words']:10.0f}")
    return lines


def _label_lines(audit: Mapping[str, Any]) -> list[str]:
    head = "".join(f"{name:>10}" for name in _LABEL_VALUES)
    lines = [f"{'label':28}{head}{'prevalence':>12}"]
    for label, counts in audit["labels"].items():
        cells = "".join(f"{counts[name]:10,}" for name in _LABEL_VALUES)
        prevalence = counts["positive"] / max(1, audit["kept"])
        lines.append(f"{label:28}{cells}{prevalence:12.1%}")
    return lines


def _sizes_of_split(studies: Sequence[Study], split: Split) -> dict[str, int]:
    inside = [study for study in studies if study.split == split]
    return {
        "studies": len(inside),
        "patients": len({study.patient for study in inside}),
        "images": sum(len(study.images) for study in inside),
        "abnormal": sum(study.is_abnormal for study in inside),
    }


def _patients_in_two_splits(studies: Sequence[Study]) -> int:
    splits: dict[str, set[str | None]] = defaultdict(set)
    for study in studies:
        splits[study.patient].add(study.split)
    return sum(len(found) > 1 for found in splits.values())


def _section_counts(studies: Sequence[Study], name: str) -> dict[str, float]:
    texts = [getattr(study, name) for study in studies]
    words = [len(text.split()) for text in texts if text]
    return {"empty": len(texts) - len(words), "median_words": median(words) if words else 0}


def _label_counts(studies: Sequence[Study], label: str) -> dict[str, int]:
    counts = Counter((study.labels or {}).get(label) for study in studies)
    return {name: counts[value] for name, value in _LABEL_VALUES.items()}
