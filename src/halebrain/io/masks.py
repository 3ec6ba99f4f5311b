"""The rule that turns values of any file into a mask or labels.

- Whole numbers, or nearly (within 0.001): labels. An image with one value beside 0 is a mask, whatever the value is.
- Fractions from 0 to 1, with the ringing of a spline around them: a mask, cut at one half.
- Steps up to 100 or 255 with most of them at the top: a mask that was resampled as a percentage or an 8-bit picture,
  cut at one half of it.
- All else, a scan or labels that were interpolated, is no mask.

Values below 0 are background.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import numpy as np
import numpy.typing as npt

from halebrain.core.errors import DataError
from halebrain.core.types import FloatArray, MaskArray

Labels = tuple[int, ...] | Literal["all"] | None
_NEAR = 1e-3
_ONE_VALUE = 0.99
"""Share of the highest value from which on all values are the same one."""
_RINGING = 0.5
"""Share of the top that a cubic spline may go beyond it or below 0; at a corner of a cube it reaches 0.45."""
_STEPS = (100, 255)
_TOP, _INSIDE, _FEW = 0.95, 0.9, 5
_MANY = 20
_SAME_NEIGHBOURS = 0.3
"""Share of neighbours with one value. Labels: above 0.7; scans of whole numbers: below 0.1, of 8 bits up to 0.2."""


@dataclass(frozen=True)
class MaskValues:
    """What the values of an image are.

    Args:
        kind: "labels" (a mask is one label), "fractions" of `top`, or "none": no mask.
        labels: The values above 0, ascending; of fractions `top` alone.
        top: What a voxel holds that lies wholly inside.
        fractional: Share of the voxels other than 0 that hold no whole number.
        lowest: The lowest value.
        highest: The highest value.
    """

    kind: Literal["labels", "fractions", "none"]
    labels: tuple[float, ...]
    top: float
    fractional: float
    lowest: float
    highest: float

    @property
    def is_graded(self) -> bool:
        """Whether they are scores rather than labels."""
        return self.kind == "none" or (self.kind == "fractions" and self.fractional > 0)


def look_at_values(values: FloatArray, path: Path) -> MaskValues:
    """Return what the values of an image are; NaN and infinite ones are refused."""
    if not np.isfinite(values).all():
        raise DataError(
            "an image must be finite",
            received=f"{int((~np.isfinite(values)).sum())} NaN or infinite voxels",
            where=path,
            remedy="find their cause, or set them to 0",
        )
    low, high = float(values.min()), float(values.max())
    positive = values[values > 0]
    if positive.size == 0:
        return MaskValues("labels", (), 1.0, 0.0, low, high)
    if float(positive.min()) >= _ONE_VALUE * high and low >= -_RINGING * high:
        only = float(np.rint(high)) if abs(high - np.rint(high)) <= _NEAR else high
        return MaskValues("labels", (only,), only, 0.0, low, high)
    near = _NEAR if high >= 0.5 else 0.0  # a faint map has no whole numbers but 0
    whole = np.abs(values - np.rint(values)) <= near
    shown = np.abs(values) > near
    fractional = float((~whole & shown).sum() / max(int(shown.sum()), 1))
    steps = _steps(positive, low, high)
    if whole.all() and steps is None:
        labels = tuple(float(value) for value in np.unique(np.rint(positive)) if value > 0)
        kind: Literal["labels", "none"] = "none" if len(labels) > _MANY and _is_mottled(np.rint(values)) else "labels"
        return MaskValues(kind, labels, labels[-1], 0.0, low, high)
    top = float(steps or 1)
    if low < -_RINGING * top or high > (1 + _RINGING) * top:
        return MaskValues("none", (), top, fractional, low, high)
    return MaskValues("fractions", (top,), top, fractional, low, high)


def mask_from(values: FloatArray, path: Path, notes: list[str], labels: Labels = "all") -> MaskArray:
    """Return the mask that values mean; `notes` gets a line where it is not simply what is above 0.

    `labels`: those that count; "all" = every one; `None` = the same, but refused where there are several.
    """
    found = look_at_values(values, path)
    _refuse(found, labels, path)
    if found.kind == "fractions":
        cut = found.top / 2
        share = f"{100 * found.fractional:.0f} % of its voxels other than 0 hold fractions"
        said = share if found.fractional else f"its values are steps up to {found.top:g}"
        ringing = f", values below 0 (down to {found.lowest:.2g}) as background" if found.lowest < -_NEAR else ""
        notes.append(f"{path.name}: {said}; cut at {cut:g}{ringing}")
        is_named = labels in ("all", None) or found.top in labels
        return np.asarray((values >= cut) & is_named)
    if found.lowest < -_NEAR:
        notes.append(f"{path.name}: values below 0 (down to {found.lowest:.3g}) are taken as background")
    if labels in ("all", None):
        # Half of the lowest label: what rounds to 0 is background.
        return np.asarray(values > min(found.labels, default=1.0) / 2)
    return np.asarray(np.isin(np.rint(values), labels))


def _refuse(found: MaskValues, labels: Labels, path: Path) -> None:
    if found.kind == "none":
        parts = f"{100 * found.fractional:.0f} % of the voxels other than 0 are fractions"
        raise DataError(
            "a mask must hold integers, or fractions from 0 to 1",
            received=f"values from {found.lowest:.4g} to {found.highest:.4g}, "
            + (parts if found.fractional else f"{len(found.labels)} different ones, as in a scan"),
            where=path,
            remedy="give a mask; labels are resampled with the nearest neighbour, not interpolated",
        )
    if labels is None and len(found.labels) > 1:
        raise DataError(
            "the lesion labels must be given if there are several labels",
            received=", ".join(f"{value:g}" for value in found.labels[:8]),
            where=path,
            remedy="give --labels (all, or numbers)",
        )


def _steps(positive: npt.NDArray[np.float32], low: float, high: float) -> int | None:
    """Return the top of a mask in steps: 100 or 255 where most voxels inside are close to that, else `None`."""
    top = next((top for top in _STEPS if _TOP * top <= high <= (1 + _RINGING) * top), None)
    if top is None or low < -_RINGING * top:
        return None
    inside = int((positive >= _INSIDE * top).sum())
    between = int(((positive > (1 - _INSIDE) * top) & (positive < _INSIDE * top)).sum())
    # A few labels that end at 100 or 255 are labels.
    return top if 0 < between <= inside and len(np.unique(np.rint(positive))) >= _FEW else None


def _is_mottled(values: FloatArray) -> bool:
    """Return whether neighbours differ as those of a scan do, not as those of regions."""
    same = pairs = 0
    for axis in range(values.ndim):
        planes = np.moveaxis(values, axis, 0)
        both = (planes[1:] > 0) & (planes[:-1] > 0)
        same += int((both & (planes[1:] == planes[:-1])).sum())
        pairs += int(both.sum())
    return same < _SAME_NEIGHBOURS * pairs
