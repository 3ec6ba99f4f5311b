"""The contrast of a scan and its source; thresholds and percentiles depend on it."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from halebrain.core.errors import UsageError
from halebrain.core.modality import contrast_alike, standard_modality
from halebrain.data.naming import modality_of_scan
from halebrain.inference.cohort import ScanInput
from halebrain.thresholds.calibration import Calibration

_USUAL = ("T1w", "T2w", "FLAIR", "T1ce")


@dataclass(frozen=True)
class ScanContrast:
    """The contrast of a scan.

    Args:
        name: A BIDS suffix; `None` where it is not known.
        known_from: "option", "manifest", "file name", "image" (its own contrast), or "nothing".
    """

    name: str | None
    known_from: str


def check_modality(asked: str, calibration: Calibration | None) -> None:
    """Stop if `--modality` is neither "auto", nor a usual contrast, nor one that the model is calibrated for.

    Raises:
        UsageError: It is none.
    """
    own = () if calibration is None else (*calibration.modalities, *calibration.healthy_scores)
    known = tuple(dict.fromkeys(("auto", *_USUAL, *(key.partition("@")[0] for key in own))))
    if asked not in known:
        raise UsageError(
            "--modality takes " + ", ".join(known), received=repr(asked), remedy="auto infers it from the scan"
        )


def declared_contrast(asked: str, scan: ScanInput) -> ScanContrast | None:
    """Return the contrast declared by the user, the manifest or the file name; `None` if none of them does.

    Args:
        asked: "auto", or the user's word.
        scan: The scan.
    """
    if asked != "auto":
        return ScanContrast(asked, "option")
    if scan.modality is not None:
        return ScanContrast(standard_modality(scan.modality), "manifest")
    named = modality_of_scan(scan.name)
    return None if named is None else ScanContrast(named, "file name")


def inferred_contrast(qc: dict[str, Any]) -> ScanContrast:
    """Return the contrast that quality control inferred from the image, if any."""
    contrast = qc.get("contrast")
    return ScanContrast(None, "nothing") if contrast in (None, "unknown") else ScanContrast(contrast, "image")


def flag_limits(qc: dict[str, Any], limits: Mapping[str, str], modality: ScanContrast) -> None:
    """Add the known limits of the model for the contrast of a scan to its flags.

    Args:
        qc: Quality-control numbers; "flags" grows.
        limits: By modality, as the model's card has them.
        modality: Of the scan.
    """
    # Scans scored by the networks of another contrast share the limits of that contrast.
    for name in (modality.name, contrast_alike(modality.name)):
        if limit := limits.get(name or ""):
            qc.setdefault("flags", []).append(f"known limit of the model on {name}: {limit}")
            break
