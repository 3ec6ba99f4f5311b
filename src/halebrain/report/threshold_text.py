"""Plain text on the threshold: when a voxel is marked, and what the threshold means."""

import re
from collections.abc import Mapping
from typing import Any

from halebrain.core.wording import counted

_WHOSE = re.compile(r" \((?:all modalities: |of )(.+)\)$")


def marking_text(threshold: Mapping[str, Any]) -> str:
    """Return when a voxel is marked, what that threshold means, and on which scans it was chosen.

    Args:
        threshold: As a provenance states it: `value`, `name`, `min_lesion_mm3`, where known `modality`, `n_scans` and
            `healthy_share`.
    """
    modality = f"{threshold['modality']}. " if threshold.get("modality") else ""
    smallest = threshold.get("min_lesion_mm3")
    dropped = f"; connected components smaller than {smallest:g} mm³ are removed" if smallest else ""
    marked = f"A voxel is marked where its anomaly score is at least {threshold['value']:.3f}{dropped}."
    what = _what_it_is(str(threshold["name"]), threshold.get("n_scans"), threshold.get("healthy_share"))
    return f"{modality}{marked} {what}"


def promise(key: str, healthy_share: float | None = None) -> str:
    """Return what a stored threshold means, from its name ("ml:1", "fpr:0.05", "dice"); empty where unknown.

    Args:
        key: Its name without a data set.
        healthy_share: Fraction of healthy people who keep a limit in ml; `None` = one half.
    """
    kind, _, amount = key.partition(":")
    try:
        size = float(amount) if amount else None
    except ValueError:
        return ""
    if kind == "ml" and size is not None:
        if healthy_share is not None and healthy_share != 0.5:
            return f"{100 * healthy_share:g} % of healthy scans have a false-positive volume of at most {size:g} ml"
        return f"the median healthy scan has a false-positive volume of at most {size:g} ml"
    if kind == "fpr" and size is not None:
        return f"at most {100 * size:g} % of the voxels of healthy brains are false positives"
    if key == "dice":
        return "it gave the best Dice over all voxels of annotated scans"
    return ""


def _what_it_is(name: str, n_scans: object, healthy_share: float | None) -> str:
    """Return what a threshold of this name means, and on which scans it was chosen.

    A name may hold a data set and, if the contrast has no own threshold, the contrasts that it was chosen
    on: "ml:1@ours (all modalities: FLAIR, T2w)", "ml:1 (of T1w)".
    """
    if name == "fixed":
        return "The threshold was set by hand."
    whose = _WHOSE.search(name)
    key, _, data_set = _WHOSE.sub("", name).partition("@")
    promised = promise(key, healthy_share)
    said = f"Threshold {key}: {promised}." if promised else f"Threshold {key}."
    scans = counted(n_scans, "validation scan") if isinstance(n_scans, int) and n_scans else "validation scans"
    of = f" of {data_set}" if data_set else ""
    every = _of_others(whose[1]) if whose else ""
    return f"{said} Chosen on {scans}{of}{every}." if n_scans or of or every else said


def _of_others(contrasts: str) -> str:
    """Return on scans of which other contrasts a threshold was chosen: "T1w", or "FLAIR, T2w"."""
    others = f"other contrasts ({contrasts})" if ", " in contrasts else f"another contrast ({contrasts})"
    return f" of {others}, as this contrast has no own threshold"
