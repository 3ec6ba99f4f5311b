"""Groups of scans with separate means."""

from dataclasses import dataclass
from itertools import pairwise

from halebrain.evaluation.metrics.lesionwise import SIZE_BINS_ML

_AGES = (0, 20, 40, 60, 80, 200)


@dataclass(frozen=True)
class ScanFacts:
    """What a scan is, as far as groups depend on it."""

    scan_id: str
    subject: str
    modality: str
    pathology: str
    site: str | None
    age: float | None
    sex: str | None
    lesion_ml: float


def groups_of(scan: ScanFacts) -> list[str]:
    """Return the names of the groups that a scan belongs to, "all" first.

    Healthy scans are grouped by site, age and sex under their own names: every marked voxel is false positive, and
    a difference between sites is an effect of the scanner.
    """
    groups = ["all", scan.modality, scan.pathology, f"{scan.pathology} {scan.modality}"]
    kinds = []
    if scan.site is not None:
        kinds.append(f"site={scan.site}")
    if scan.age is not None:
        kinds.append(f"age={_bin_of(scan.age)}")
    if scan.sex is not None:
        kinds.append(f"sex={scan.sex}")
    if scan.lesion_ml > 0:
        kinds.append(f"size={size_bin(scan.lesion_ml)}")
    groups += kinds
    if scan.pathology == "healthy":
        groups += [f"healthy {kind}" for kind in kinds]
    return list(dict.fromkeys(groups))


def size_bin(lesion_ml: float) -> str:
    """Return the bin of a scan's total lesion volume."""
    for low, high in SIZE_BINS_ML:
        if low <= lesion_ml < high:
            return f"{low:g}-{high:g}ml" if high < float("inf") else f"{low:g}ml-"
    raise ValueError(f"a volume cannot be negative, got {lesion_ml}")


def _bin_of(age: float) -> str:
    for low, high in pairwise(_AGES):
        if low <= age < high:
            return f"{low}-{high - 1}"
    return "other"
