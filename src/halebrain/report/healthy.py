"""The healthy scans that a scan's score is compared with, from its provenance."""

from collections.abc import Mapping
from dataclasses import dataclass
from statistics import median
from typing import Any, Self

from halebrain.core.wording import counted
from halebrain.report.verdict import number

_ENOUGH_FOR_A_TAIL = 20
"""Minimum number of healthy scans for the 95th percentile: one in twenty must be at least one scan."""


@dataclass(frozen=True)
class HealthyReference:
    """Healthy validation scans of the same contrast.

    Args:
        count: How many; `None` if unknown.
        scores: Their scores, or quantiles of them, ascending; empty if unknown, as in older results.
    """

    count: int | None
    scores: tuple[float, ...]

    @classmethod
    def of(cls, provenance: Mapping[str, Any]) -> Self:
        """Return them from the provenance of a detection; what is no number is left out."""
        count, told = number(provenance.get("scan_score_n_healthy")), provenance.get("scan_score_healthy")
        known = [number(value) for value in told] if isinstance(told, list | tuple) else []
        scores = tuple(sorted(score for score in known if score is not None))
        return cls(None if count is None else int(count), scores)

    @property
    def shows_a_tail(self) -> bool:
        """Whether there are enough for the 95th percentile."""
        return self.count is not None and self.count >= _ENOUGH_FOR_A_TAIL

    @property
    def said(self) -> str:
        """How many they are, and their range in units of the score."""
        who = "healthy scans" if self.count is None else counted(self.count, "healthy scan")
        if not self.scores:
            return who
        return f"{who}: median score {median(self.scores):.3f}, maximum {self.scores[-1]:.3f}"
