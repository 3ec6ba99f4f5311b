"""What a page says first, doubt before figures."""

from dataclasses import replace
from typing import Any

import pytest

from halebrain.core.types import Lesion
from halebrain.report.verdict import out_of_distribution, verdict_of
from stated import provenance, report

FINDING = Lesion(1, 2.5, 0.9, 0.7, 1.5, -2.0, 3.0, 1, 2, 3)


@pytest.mark.parametrize(
    ("qc", "reasons"),
    [
        ({}, ()),
        ({"out_of_distribution": False, "out_of_distribution_reasons": []}, ()),
        ({"out_of_distribution": True, "out_of_distribution_reasons": ["a T1", "a child"]}, ("a T1", "a child")),
        ({"out_of_distribution": True}, ("out of distribution: unlike the model's training data",)),
    ],
)
def test_out_of_distribution(qc: dict[str, Any], reasons: tuple[str, ...]) -> None:
    assert out_of_distribution(report(**qc)) == reasons


def test_a_reason_stands_once() -> None:
    reasons = {"out_of_distribution": True, "out_of_distribution_reasons": ["a T1"]}
    qc = reasons | {"flags": ["thick slices", "a T1"]}
    verdict = verdict_of(provenance(qc=qc), [])
    assert verdict.warnings == ("thick slices", "a T1")
    assert verdict.trust == "none"


def test_an_exam_is_not_called_a_scan() -> None:
    made = provenance(qc={"out_of_distribution": True})
    for kind in ("scan", "exam"):
        assert verdict_of(made, [], kind=kind).headline.startswith(f"This {kind} is out of distribution")


def test_a_failed_registration_takes_the_trust() -> None:
    qc = {"registration_failed": True, "flags": ["registration failed"]}
    assert verdict_of(provenance(qc=qc), []).trust == "none"


def test_figures_of_findings() -> None:
    one = replace(FINDING, region="insula, left")
    verdict = verdict_of(provenance(scan_score=0.4321, scan_score_percentile=93.4, scan_score_n_healthy=50), [one])
    assert verdict.headline == "1 finding, 2.50 ml in total."
    assert verdict.percentile == 93.4
    assert verdict.figures == (
        ("0.432", "scan-level score"),
        ("93.4 %", "of 50 healthy scans have a lower score"),
        ("1", "finding"),
        ("2.50 ml", "total volume of findings"),
        ("2.50 ml", "largest finding: insula, left"),
        ("0.90", "peak score (0 to 1)"),
    )


@pytest.mark.parametrize(("number", "thing"), [(0, "findings"), (1, "finding"), (2, "findings")])
def test_one_finding_is_no_findings(number: int, thing: str) -> None:
    assert (str(number), thing) in verdict_of(provenance(), [FINDING] * number).figures
