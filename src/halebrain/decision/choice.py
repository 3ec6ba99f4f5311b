"""The user's options for the mask, resolved for one scan."""

from dataclasses import dataclass
from typing import Any

from halebrain.decision.modality import ScanModality
from halebrain.evaluation.operating_point import OperatingPoint
from halebrain.evaluation.scan_level import place_among_healthy


@dataclass(frozen=True)
class MaskChoice:
    """The user's options for the mask.

    Args:
        point: Which threshold.
        min_lesion_mm3: Smallest lesion kept.
        modality: "auto", or the modality of every scan.
    """

    point: OperatingPoint
    min_lesion_mm3: float
    modality: str = "auto"

    def threshold(self, modality: ScanModality) -> dict[str, Any]:
        """Return the threshold for a scan, as it stands in its provenance."""
        chosen = self.point.at(modality.name)
        return {
            "value": chosen.value,
            "name": chosen.name,
            "min_lesion_mm3": self.min_lesion_mm3,
            "method": chosen.method,
            "n_scans": chosen.n_scans,
            "healthy_share": chosen.healthy_share,
            "modality": modality.name,
            "modality_known_from": modality.known_from,
        }

    def scan_level(self, modality: ScanModality, score: float) -> dict[str, Any]:
        """Return where the score of a whole scan lies among healthy ones, as it stands in its provenance."""
        calibration, data_set = self.point.calibration, self.point.at(modality.name).data_set
        return place_among_healthy(score, calibration, modality=modality.name, data_set=data_set).provenance()
