"""The head of a page: reliability of the maps, then the findings; and healthy scans to compare its score with."""

from collections.abc import Sequence
from dataclasses import dataclass
from statistics import median
from typing import Self

from halebrain.core.provenance import Provenance, QualityReport
from halebrain.core.types import Lesion
from halebrain.core.wording import counted, named

_ENOUGH_FOR_A_TAIL = 20
"""Minimum number of healthy scans for the 95th percentile: one in twenty must be at least one scan."""


@dataclass(frozen=True)
class Verdict:
    """The head of a page.

    Args:
        trust: "none" = do not rely on the maps, "look" = check the quality flags first, "usual" = no flags.
        headline: One sentence.
        warnings: Quality flags, most important first.
        figures: (value, what it is).
        percentile: Place of the scan's score among healthy scans, 0 to 100; `None` where it is not known.
    """

    trust: str
    headline: str
    warnings: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    percentile: float | None


def verdict_of(provenance: Provenance, findings: Sequence[Lesion], *, kind: str = "scan") -> Verdict:
    """Return the head of the page of a scan or an exam, as `kind` states."""
    reasons, flags = out_of_distribution(provenance.qc), provenance.qc.flags
    warnings = (*(reason for reason in reasons if reason not in flags), *flags)
    if reasons:
        trust, headline = (
            "none",
            f"This {kind} is out of distribution: it is unlike the model's training data. Do not rely on these maps.",
        )
    elif provenance.qc.registration_failed:
        trust, headline = "none", "Registration to the template failed. Do not rely on these maps."
    elif warnings:
        trust, headline = "look", f"{_found(findings)} Check the quality flags first."
    else:
        trust, headline = "usual", _found(findings)
    return Verdict(
        trust, headline, warnings, tuple(_figures(provenance, findings, kind)), provenance.scan_score_percentile
    )


def out_of_distribution(report: QualityReport) -> tuple[str, ...]:
    """Return why a scan is unlike the training scans; empty where it is not."""
    if not report.out_of_distribution:
        return ()
    return report.out_of_distribution_reasons or ("out of distribution: unlike the model's training data",)


def _found(findings: Sequence[Lesion]) -> str:
    if not findings:
        return "No finding at this threshold."
    return f"{counted(len(findings), 'finding')}, {_total_ml(findings):.2f} ml in total."


def _total_ml(findings: Sequence[Lesion]) -> float:
    return sum(finding.volume_ml for finding in findings)


def _figures(provenance: Provenance, findings: Sequence[Lesion], kind: str) -> list[tuple[str, str]]:
    figures = []
    if provenance.scan_score is not None:
        figures.append((f"{provenance.scan_score:.3g}", f"{kind}-level score"))
    if provenance.scan_score_percentile is not None:
        healthy = provenance.scan_score_n_healthy
        among = counted(healthy, f"healthy {kind}") if healthy else f"healthy {kind}s"
        figures.append((f"{provenance.scan_score_percentile:.3g} %", f"of {among} have a lower score"))
    figures.append((str(len(findings)), named(len(findings), "finding")))
    figures.append((f"{_total_ml(findings):.2f} ml", "total volume of findings"))
    if (volume := provenance.volume_estimate) is not None:
        interval = f"90 % interval {volume.low_ml:.1f} to {volume.high_ml:.1f} ml"
        patients = counted(volume.n_patients, "validation patient")
        figures.append((f"{volume.value_ml:.1f} ml", f"estimated true volume ({interval}; {patients})"))
    if findings:
        first = findings[0]
        where = f": {first.region}" if first.region else ""
        figures.append((f"{first.volume_ml:.2f} ml", f"largest finding{where}"))
        figures.append((f"{max(finding.peak_score for finding in findings):.2f}", "peak score (0 to 1)"))
    return figures


@dataclass(frozen=True)
class HealthyReference:
    """Healthy validation scans of the same contrast: number (`None` = unknown) and scores, or quantiles, ascending."""

    count: int | None
    scores: tuple[float, ...]
    kind: str = "scan"

    @classmethod
    def of(cls, provenance: Provenance, *, kind: str = "scan") -> Self:
        """Return them from the provenance of a detection; `kind` is "scan" or "exam"."""
        return cls(provenance.scan_score_n_healthy, tuple(sorted(provenance.scan_score_healthy)), kind)

    @property
    def shows_a_tail(self) -> bool:
        """Whether there are enough for the 95th percentile."""
        return self.count is not None and self.count >= _ENOUGH_FOR_A_TAIL

    @property
    def said(self) -> str:
        """How many they are, and their range in units of the score."""
        who = f"healthy {self.kind}s" if self.count is None else counted(self.count, f"healthy {self.kind}")
        if not self.scores:
            return who
        return f"{who}: median score {median(self.scores):.3f}, maximum {self.scores[-1]:.3f}"
