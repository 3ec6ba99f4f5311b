"""The mosaic of one scan: slices of the input, the maps and the findings."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from halebrain.inference.predictor import WorkingMaps
    from halebrain.preprocessing.pipeline import WorkingScan


def scan_mosaic(
    working: "WorkingScan",
    maps: "WorkingMaps",
    *,
    threshold: float,
    title: str,
    min_lesion_mm3: float = 0.0,
    truth: Any = None,
    called: str | None = None,
) -> Any:
    """Return the picture of one scan: input, pseudo-healthy, residual, probability, score, and the truth if known.

    Args:
        working: The scan.
        maps: The maps of the model.
        threshold: Voxels that reach it are outlined.
        title: Above the picture.
        min_lesion_mm3: Smaller components are not outlined, as in the mask and the table.
        truth: Annotated lesion on the working grid.
        called: Name of the threshold, for the note below.
    """
    import numpy as np

    from halebrain.core.mask import to_mask
    from halebrain.report.figures import Panel, choose_slices, mosaic

    size = {"min_lesion_mm3": min_lesion_mm3, "voxel_mm3": working.grid.voxel_mm3}
    found = to_mask(np.where(working.brain_mask, maps.score, -1.0), threshold=threshold, **size)
    residual = (working.image - maps.reconstruction) * working.brain_mask
    panels = [
        Panel("input", working.image, vmax=1.0),
        Panel("pseudo-healthy", maps.reconstruction, vmax=1.0),
        Panel("input − pseudo-healthy", residual, "residual", vmax=0.5),
        Panel("segmenter probability", maps.probability, "score"),
        Panel("anomaly score", maps.score, "score", vmax=max(2 * threshold, 0.2)),
        Panel("found", working.image, outline=found, vmax=1.0),
    ]
    if truth is not None:
        panels.append(Panel("truth", working.image, outline=truth, vmax=1.0))
    # With a reference, its largest slices are shown, so that misses are visible.
    weight = truth.astype(float) if truth is not None and truth.any() else maps.score * found
    slices = choose_slices(working.brain_mask, weight if weight.any() else None)
    name = f" ({called})" if called else ""
    smaller = f", without components under {min_lesion_mm3:g} mm³" if min_lesion_mm3 > 0 else ""
    note = f"Outlined where the score is at least {threshold:.3f}{name}{smaller}."
    return mosaic(panels, slices=slices, title=title, note=note)
