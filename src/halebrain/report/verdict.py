"""What a page says first: how far the maps can be trusted, and then what was found."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from halebrain.core.wording import counted, named
from halebrain.report.findings import Finding, total_ml


@dataclass(frozen=True)
class Verdict:
    """The head of a page.

    Args:
        trust: "none" = do not rely on the maps, "look" = something must be looked at first, "usual" = nothing noticed.
        headline: One sentence.
        warnings: What was noticed, most important first.
        figures: (value, what it is).
        percentile: Place of the scan's score among healthy scans, 0 to 100; `None` where it is not known.
    """

    trust: str
    headline: str
    warnings: tuple[str, ...]
    figures: tuple[tuple[str, str], ...]
    percentile: float | None


def verdict_of(provenance: Mapping[str, Any], findings: Sequence[Finding]) -> Verdict:
    """Return what is said of a scan.

    Args:
        provenance: Of the detection; `scan_score`, its percentile and `qc["out_of_distribution"]` may be absent.
        findings: Its table.
    """
    qc = provenance.get("qc", {})
    reasons = out_of_distribution(qc)
    flags = tuple(str(flag) for flag in qc.get("flags", ()))
    warnings = (*(reason for reason in reasons if reason not in flags), *flags)
    percentile = number(provenance.get("scan_score_percentile"))
    if reasons:
        trust, headline = "none", "This scan is unlike those that the model knows. Do not rely on these maps."
    elif qc.get("registration_failed"):
        trust, headline = "none", "The scan could not be brought onto the template. Do not rely on these maps."
    elif warnings:
        trust, headline = "look", f"{_found(findings)} Something was noticed that must be looked at first."
    else:
        trust, headline = "usual", _found(findings)
    return Verdict(trust, headline, warnings, tuple(_figures(provenance, findings, percentile)), percentile)


def out_of_distribution(qc: Mapping[str, Any]) -> tuple[str, ...]:
    """Return why a scan is unlike the training scans; empty where it is not."""
    if not qc.get("out_of_distribution"):
        return ()
    reasons = tuple(str(reason) for reason in qc.get("out_of_distribution_reasons", ()))
    return reasons or ("out of distribution: unlike the scans that the model learned from",)


def number(value: object) -> float | None:
    """Return a value as a number, or `None` where it is none."""
    return float(value) if isinstance(value, int | float) and not isinstance(value, bool) else None


def _found(findings: Sequence[Finding]) -> str:
    if not findings:
        return "Nothing reaches the threshold."
    ml, count = total_ml(findings), len(findings)
    return f"{counted(count, 'finding')}, {ml:.2f} ml in all."


def _figures(
    provenance: Mapping[str, Any], findings: Sequence[Finding], percentile: float | None
) -> list[tuple[str, str]]:
    figures = []
    score = number(provenance.get("scan_score"))
    if score is not None:
        figures.append((f"{score:.3g}", "score of the scan as a whole"))
    if percentile is not None:
        healthy = provenance.get("scan_score_n_healthy")
        among = counted(healthy, "healthy scan") if isinstance(healthy, int) and healthy else "healthy scans"
        figures.append((f"{percentile:.3g} %", f"of {among} have a lower score"))
    figures.append((str(len(findings)), named(len(findings), "finding")))
    figures.append((f"{total_ml(findings):.2f} ml", "their volume"))
    if findings:
        first = findings[0]
        where = f": {first.region}" if first.region else ""
        figures.append((f"{first.volume_ml:.2f} ml", f"the largest{where}"))
        figures.append((f"{max(finding.peak for finding in findings):.2f}", "highest score, of 1"))
    return figures
