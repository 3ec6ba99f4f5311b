"""Provenance of tests, from the JSON that a file would hold."""

from pathlib import Path
from typing import Any

from halebrain.core.provenance import ChosenThreshold, Provenance, QualityReport

_SAID: dict[str, Any] = {"rule": "a test must state what a file may", "where": Path("test"), "remedy": "mend the test"}


def provenance(**fields: Any) -> Provenance:
    """Return the provenance that holds these fields alone."""
    return Provenance.from_json(fields, **_SAID)


def report(**fields: Any) -> QualityReport:
    """Return the quality report that holds these fields alone."""
    return QualityReport.from_json(fields, **_SAID)


def threshold(**fields: Any) -> ChosenThreshold:
    """Return the threshold that holds these fields alone."""
    return ChosenThreshold.from_json(fields, **_SAID)
