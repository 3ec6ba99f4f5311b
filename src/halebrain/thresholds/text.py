"""Plain text on the threshold: its short name, when a voxel is marked, and what the threshold means."""

import re
from collections.abc import Sequence

from halebrain.core.modality import contrast_alike
from halebrain.core.provenance import FIXED, ChosenThreshold
from halebrain.core.wording import counted

_SOURCE = re.compile(r" \((?:all modalities: |of )(.+)\)$")


def threshold_name(
    key: str, data_set: str | None, source_contrasts: Sequence[str] = (), contrast: str | None = None
) -> str:
    """Return the short name of a threshold for a scan.

    Args:
        key: "fixed", "ml:1", "dice" …
        data_set: Name of the data set that it was chosen on.
        source_contrasts: Contrasts that it was chosen on, where these are not just the scan's own.
        contrast: Of the scan.

    Example:
        >>> threshold_name("ml:1", "ours"), threshold_name("ml:1", None, ("T1w",), "T1ce")
        ('ml:1@ours', 'ml:1 (of T1w)')
        >>> threshold_name("ml:1", None, ("FLAIR", "T2w"), "PDw")
        'ml:1 (all modalities: FLAIR, T2w)'
    """
    if key == FIXED:
        return key
    stored = f"{key}@{data_set}" if data_set else key
    if not source_contrasts:
        return stored
    if tuple(source_contrasts) == (contrast_alike(contrast),):
        return f"{stored} (of {source_contrasts[0]})"
    return f"{stored} (all modalities: {', '.join(source_contrasts)})"


def marking_text(threshold: ChosenThreshold) -> str:
    """Return when a voxel is marked, what that threshold means, and on which scans it was chosen."""
    modality = f"{threshold.modality}. " if threshold.modality else ""
    smallest = threshold.min_lesion_mm3
    dropped = f"; connected components smaller than {smallest:g} mm³ are removed" if smallest else ""
    marked = f"A voxel is marked where its anomaly score is at least {threshold.value:.3f}{dropped}."
    if threshold.grow_to is not None:
        marked += f" Each finding grows into connected voxels with a score of at least {threshold.grow_to:.3f}."
    what = _what_it_is(*_parts(threshold), threshold.n_scans, threshold.healthy_share)
    return f"{modality}{marked} {what}"


def promise(key: str, population_fraction: float | None = None) -> str:
    """Return what a stored threshold means, from its name ("ml:1", "fpr:0.05", "dice"); empty where unknown.

    `population_fraction` is that of healthy people who keep a limit in ml; `None` = one half.
    """
    kind, _, amount = key.partition(":")
    try:
        size = float(amount) if amount else None
    except ValueError:
        return ""
    if kind == "ml" and size is not None:
        if population_fraction is not None and population_fraction != 0.5:
            return (
                f"{100 * population_fraction:g} % of healthy scans have a false-positive volume of at most {size:g} ml"
            )
        return f"the median healthy scan has a false-positive volume of at most {size:g} ml"
    if kind == "fpr" and size is not None:
        return f"at most {100 * size:g} % of the voxels of healthy brains are false positives"
    if key == "dice":
        return "it gave the best Dice over all voxels of annotated scans"
    return ""


def _parts(threshold: ChosenThreshold) -> tuple[str, str, str]:
    """Return key, data set and source contrasts of a threshold; results of versions before 0.2 have its name alone."""
    if threshold.key is not None:
        return threshold.key, threshold.data_set or "", ", ".join(threshold.source_contrasts)
    found = _SOURCE.search(threshold.name)
    key, _, data_set = _SOURCE.sub("", threshold.name).partition("@")
    return key, data_set, found[1] if found else ""


def _what_it_is(key: str, data_set: str, source: str, n_scans: int | None, population_fraction: float | None) -> str:
    """Return what a threshold means, and on which scans it was chosen."""
    if key == FIXED:
        return "The threshold was set by hand."
    promised = promise(key, population_fraction)
    said = f"Threshold {key}: {promised}." if promised else f"Threshold {key}."
    scans = counted(n_scans, "validation scan") if n_scans else "validation scans"
    of = f" of {data_set}" if data_set else ""
    every = _of_others(source) if source else ""
    return f"{said} Chosen on {scans}{of}{every}." if n_scans or of or every else said


def _of_others(contrasts: str) -> str:
    """Return on scans of which other contrasts a threshold was chosen: "T1w", or "FLAIR, T2w"."""
    others = f"other contrasts ({contrasts})" if ", " in contrasts else f"another contrast ({contrasts})"
    return f" of {others}, as this contrast has no own threshold"
