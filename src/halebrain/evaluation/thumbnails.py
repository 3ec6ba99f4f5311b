"""One small slice of each scan, for the figure of best and worst scans."""

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from halebrain.core.types import FloatArray, MaskArray
from halebrain.evaluation.case import Case

Pixels = npt.NDArray[np.uint8]


@dataclass(frozen=True)
class Thumbnail:
    """The axial slice with most lesion (else with the highest scores), as radiologists hold it; pixels 0 to 255."""

    scan_id: str
    value: float
    image: Pixels
    score: Pixels
    predicted: MaskArray
    reference: MaskArray


def thumbnail(case: Case, value: float, image: FloatArray | None = None) -> Thumbnail:
    """Return the thumbnail of a case; `value` ranks scans, `image` lies on the same grid, `None` = black."""
    weight = case.reference if case.has_reference else (case.region if case.score is None else case.score)
    others = tuple(axis for axis in range(3) if axis != case.axial_axis)
    index = int(np.asarray(weight, dtype=np.float64).sum(axis=others).argmax())

    def cut(volume: npt.NDArray[np.generic]) -> npt.NDArray[np.generic]:
        return np.ascontiguousarray(np.take(volume, index, axis=case.axial_axis)[::-1, ::-1].T)

    empty = np.zeros(case.reference.shape, dtype=bool)
    predicted = empty if case.mask is None else case.mask
    return Thumbnail(
        scan_id=case.scan_id,
        value=value,
        image=_to_pixels(cut(empty if image is None else np.where(case.region, image, 0))),
        score=_to_pixels(cut(predicted if case.score is None else case.score)),
        predicted=cut(predicted).astype(bool),
        reference=cut(case.reference).astype(bool),
    )


def _to_pixels(values: npt.NDArray[np.generic]) -> Pixels:
    shown = np.asarray(values, dtype=np.float32)
    top = float(np.percentile(shown[shown > 0], 99.5)) if (shown > 0).any() else 1.0
    pixels: Pixels = np.clip(shown / max(top, 1e-9) * 255, 0, 255).astype(np.uint8)
    return pixels
