"""Each sanity check finds its own kind of failure and nothing else."""

from __future__ import annotations

import pytest

from lmrrg.metrics.errors import MetricError
from lmrrg.metrics.sanity import SanityError, check_reports, require_sane

REFERENCES = [f"finding number {row} is seen" for row in range(40)]


def codes(reports: list[str], **others) -> list[str]:
    return [finding.code for finding in check_reports(reports, REFERENCES, **others)]


def test_a_good_system_has_no_finding() -> None:
    other = [*REFERENCES[1:], REFERENCES[0]]
    assert (
        codes(REFERENCES, finished=[True] * 40, blank_image=["no image"] * 40, other_patient=other)
        == []
    )


def test_few_distinct_reports() -> None:
    assert codes(["normal chest", "heart large"] * 20) == ["few_distinct_reports"]
    assert codes(REFERENCES[:4] * 10) == []


def test_empty_reports() -> None:
    assert codes(["", *REFERENCES[1:]]) == ["empty_reports"]


def test_unfinished_reports() -> None:
    assert codes(REFERENCES, finished=[False] * 3 + [True] * 37) == ["unfinished_reports"]
    assert codes(REFERENCES, finished=[False] * 2 + [True] * 38) == []


@pytest.mark.parametrize("which", ["blank_image", "other_patient"])
def test_image_ignored(which: str) -> None:
    assert codes(REFERENCES, **{which: list(REFERENCES)}) == ["image_ignored"]


def test_two_normal_patients_may_share_a_report_but_not_a_blank_image() -> None:
    same = [*REFERENCES[:30], *["something else"] * 10]
    assert codes(REFERENCES, other_patient=same) == []
    assert codes(REFERENCES, blank_image=same) == ["image_ignored"]


def test_findings_fail_loudly_all_together() -> None:
    findings = check_reports([""] * 40, REFERENCES, finished=[False] * 40)
    with pytest.raises(SanityError) as error:
        require_sane(findings)
    assert error.value.code == "few_distinct_reports"
    assert [finding.code for finding in error.value.findings] == [
        "few_distinct_reports",
        "empty_reports",
        "unfinished_reports",
    ]
    require_sane([])


def test_lists_of_different_lengths_are_refused() -> None:
    with pytest.raises(MetricError, match="length_mismatch"):
        codes(REFERENCES, finished=[True])
