"""The table of findings as a page shows it, and where the page jumps to."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Self

import numpy as np

from halebrain.core.errors import DataError
from halebrain.report.display import DisplayGrid


@dataclass(frozen=True)
class Finding:
    """One row of a lesion table.

    Args:
        number: As in the table, largest first.
        volume_ml: Volume on the native grid.
        peak: Highest score.
        mean: Mean score.
        mni_mm: Centre in template space.
        voxel: Native voxel of the peak.
        region: Approximate region; may be empty.
    """

    number: int
    volume_ml: float
    peak: float
    mean: float
    mni_mm: tuple[float, float, float]
    voxel: tuple[int, int, int]
    region: str

    @classmethod
    def of(cls, row: Mapping[str, Any]) -> Self:
        """Return the finding of a row of a lesion table.

        Raises:
            DataError: A column is missing or holds no number.
        """
        try:
            return cls(
                number=int(row["lesion"]),
                volume_ml=float(row["volume_ml"]),
                peak=float(row["peak_score"]),
                mean=float(row["mean_score"]),
                mni_mm=(float(row["x_mni_mm"]), float(row["y_mni_mm"]), float(row["z_mni_mm"])),
                voxel=(int(row["i"]), int(row["j"]), int(row["k"])),
                region=str(row.get("region") or ""),
            )
        except (KeyError, TypeError, ValueError) as error:
            raise DataError(
                "a lesion table must have every column",
                received=repr(error),
                remedy="run halebrain detect --overwrite",
            ) from error

    def place_mm(self, grid: DisplayGrid) -> tuple[float, float, float]:
        """Return its peak in mm of the displayed box."""
        x, y, z = (np.linalg.inv(grid.to_voxel) @ [*self.voxel, 1.0])[:3]
        return round(float(x), 2), round(float(y), 2), round(float(z), 2)


def total_ml(findings: Sequence[Finding]) -> float:
    """Return the volume of all findings."""
    return sum(finding.volume_ml for finding in findings)
