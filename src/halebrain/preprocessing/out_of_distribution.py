"""Rules that flag a scan or mark it as out of distribution: one function per rule.

A rule takes the quality-control figures and returns a line for the user, or `None`. Reasons that withhold a
verdict mark the scan as out of distribution; the others are flags.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

from halebrain.preprocessing.orientation_check import TURNED_RATIO
from halebrain.preprocessing.recognise import UNKNOWN, contrast_flag, is_foreign

Figures = Mapping[str, Any]

_LOW_REGISTRATION_DICE = 0.88
"""`registration_mask_dice`, the overlap with the template at which the registration ended, of real adult scans exceeds
it (0.91 to 0.98). The overlap on the working grid is another figure, `working_grid_mask_dice`."""
_LOW_MARGIN = 1.5
"""`registration_margin` of right placements: 2 and more in stripped scans, 1.3 to 1.6 in thick slices whose brain mask
holds some scalp; of wrong ones: up to 1.5."""
_CHILD_ML, _SMALL_ML = 950.0, 1050.0
"""Brains of adults: 990 to 1680 ml, 1 of 66 below 1050 ml; below 950 ml are children of up to about two."""
_CUT_FACE = 0.3
"""Share of the brain's largest cross-section on a face of the field of view. Real scans of thick slices: up to 0.19."""
_CUT_OFF = 0.02
"""Share of the template's brain that may lie outside the field of view."""
_COARSE_MM, _FEW_VOXELS = 6.0, 12
"""Virtual patients were scanned with slices of up to 6 mm; a brain is at least 12 of them high."""
_SMOOTH = 0.89
"""Correlation of neighbours. Real scans: 0.53 to 0.84; T1 blurred to a resolution of 5 mm: 0.88 to 0.89, 6 mm: 0.90."""
_PLACEMENTS_MM = 0.5
"""Between sform and qform; quaternions round by up to 0.05 mm."""
_SATURATED = 0.02
_EQUALISED = 0.03
"""Distance to the uniform distribution. Scans: 0.04 to 0.47."""
_EIGHT_BIT = (250, 255)
"""Steps from 0 to the highest intensity of an 8-bit image; raw scans of few intensities end elsewhere."""


@dataclass(frozen=True)
class Rule:
    """One thing that may be wrong with a scan.

    Args:
        name: Short and unique.
        check: Figures of quality control → a line for the user with the value measured and what to do, or `None`.
        withholds: Whether the results of such a scan are not valid.
    """

    name: str
    check: Callable[[Figures], str | None]
    withholds: bool = True


def apply_quality_rules(qc: dict[str, Any]) -> None:
    """Apply the rules to a scan and add the results to its quality control.

    Sets `flags` (its own lines first), `out_of_distribution` (bool) and `out_of_distribution_reasons` (those lines).

    Args:
        qc: Figures; a rule is skipped if its figure is missing or `None`.
    """
    qc["flags"] = list(qc.get("flags", ()))
    qc["out_of_distribution"], qc["out_of_distribution_reasons"] = False, []
    for rule in RULES:
        line = rule.check(qc)
        if line is not None:
            _add(qc, line, withholds=rule.withholds)


def check_contrast_label(qc: dict[str, Any], named: str | None) -> None:
    """Add a flag if declared and inferred contrast differ, or if the declared contrast is not supported.

    Args:
        qc: Its quality control, changed in place.
        named: Declared contrast (from name or manifest), a BIDS suffix; `None` = not declared.
    """
    # An uncertain inference does not contradict a declared contrast.
    line = contrast_flag(named, qc.get("contrast") if qc.get("contrast_sure") else None)
    if line is not None and line not in qc.get("flags", ()):
        _add(qc, line, withholds=is_foreign(named))


def _add(qc: dict[str, Any], line: str, *, withholds: bool) -> None:
    qc["flags"] = [*qc.get("flags", ()), line]
    if withholds:
        qc["out_of_distribution"] = True
        qc["out_of_distribution_reasons"] = [*qc.get("out_of_distribution_reasons", ()), line]


def _is_misplaced(qc: Figures) -> bool:
    """Return whether the position of the brain is unknown, so that tissue intensities cannot be used."""
    return _failed(qc) is not None or _turned(qc) is not None


def _failed(qc: Figures) -> str | None:
    if not qc.get("registration_failed"):
        return None
    figures = (("overlap", qc.get("registration_mask_dice")), ("margin", qc.get("registration_margin")))
    said = ", ".join(f"{name} {value:.2f}" for name, value in figures if value is not None)
    return f"registration to the template failed{f' ({said})' if said else ''}: do not use the maps"


def _turned(qc: Figures) -> str | None:
    ratio = qc.get("orientation_ratio")
    if ratio is None or ratio >= TURNED_RATIO:
        return None
    return f"seems to be upside down or back to front ({ratio:.2f}): check the orientation in its header"


def _overlap(qc: Figures) -> str | None:
    dice = qc.get("registration_mask_dice")
    if dice is None or dice >= _LOW_REGISTRATION_DICE or qc.get("registration_failed"):
        return None
    return f"low overlap of brain and template ({dice:.2f}): check the brain mask and the field of view"


def _margin(qc: Figures) -> str | None:
    margin = qc.get("registration_margin")
    if margin is None or margin >= _LOW_MARGIN or _is_misplaced(qc):
        return None
    return f"fits the template only {margin:.2f} times as well as a rotated placement: check the brain mask"


def _contrast(qc: Figures) -> str | None:
    levels = qc.get("tissue_levels")
    if qc.get("contrast") != UNKNOWN or levels is None or _is_misplaced(qc):
        return None
    shown = ", ".join(f"{name} {levels[name]:.2f}" for name in ("white", "cortex", "deep", "fluid"))
    return (
        f"intensities unlike T1w, T2w and FLAIR ({shown}): "
        "maps are not valid, as models were trained on these; give one of them"
    )


def _smooth(qc: Figures) -> str | None:
    value = qc.get("smoothness")
    if value is None or value < _SMOOTH:
        return None
    return f"as smooth as PET or a strongly filtered image ({value:.2f}): give the MR scan as it was acquired"


def _child(qc: Figures) -> str | None:
    size = _uncut_ml(qc)
    if size is None or size >= _CHILD_ML:
        return None
    return f"a brain of {size:.0f} ml is not an adult's: check the mask and the spacing; models were trained on adults"


def _small(qc: Figures) -> str | None:
    size = _uncut_ml(qc)
    if size is None or not _CHILD_ML <= size < _SMALL_ML:
        return None
    return f"a small brain ({size:.0f} ml): models were trained on adults; do not use the maps if this is a child"


def _uncut_ml(qc: Figures) -> float | None:
    """Return the brain's volume; `None` where a part of it was not scanned."""
    return None if (qc.get("cut_face") or 0.0) > _CUT_FACE else qc.get("brain_volume_ml")


def _cut(qc: Figures) -> str | None:
    face, outside = qc.get("cut_face") or 0.0, qc.get("cut_off") or 0.0
    if outside > _CUT_OFF:
        return f"field of view cut off: {100 * outside:.0f} % of the brain lies outside it; give the whole scan"
    if face > _CUT_FACE:
        return f"field of view cut off: it ends within the brain ({100 * face:.0f} % of its width); give the whole scan"
    return None


def _coarse(qc: Figures) -> str | None:
    spacing, across = qc.get("spacing_max_mm") or 0.0, qc.get("brain_voxels_across")
    if spacing > _COARSE_MM:
        return f"voxels of {spacing:.1f} mm are coarser than the training data (6 mm): give a finer scan"
    if across is not None and across < _FEW_VOXELS:
        return f"the brain is only {across} voxels across: give a whole scan, not a localiser"
    return None


def _placed_twice(qc: Figures) -> str | None:
    apart = qc.get("placements_apart_mm") or 0.0
    if apart <= _PLACEMENTS_MM:
        return None
    return (
        f"sform and qform of its header differ by {apart:.1f} mm: the sform is used, other programs may "
        "use the qform; the results keep both"
    )


def _saturated(qc: Figures) -> str | None:
    share = qc.get("saturated_share") or 0.0
    if share <= _SATURATED:
        return None
    return f"{100 * share:.0f} % of the brain is at the highest intensity: clipped or stretched; give the original scan"


def _equalised(qc: Figures) -> str | None:
    distance = qc.get("distance_to_uniform")
    if distance is None or distance >= _EQUALISED:
        return None
    return f"all intensities are equally frequent ({distance:.3f}): histogram equalisation; give the original scan"


def _eight_bit(qc: Figures) -> str | None:
    levels = qc.get("grey_levels")
    if levels is None or not _EIGHT_BIT[0] <= levels <= _EIGHT_BIT[1]:
        return None
    highest = qc["highest_intensity"]
    return f"intensities end at {highest:g} in {levels} steps: an 8-bit or already rendered image; give the original"


RULES: tuple[Rule, ...] = (
    Rule("registration", _failed),
    Rule("orientation", _turned),
    Rule("overlap", _overlap),
    Rule("margin", _margin, withholds=False),
    Rule("field of view", _cut),
    Rule("resolution", _coarse),
    Rule("contrast", _contrast),
    Rule("smoothness", _smooth),
    Rule("child", _child),
    Rule("small brain", _small, withholds=False),
    Rule("saturation", _saturated),
    Rule("equalisation", _equalised),
    Rule("8 bit", _eight_bit, withholds=False),
    Rule("two placements", _placed_twice, withholds=False),
)
"""All rules; a new rule is a function and a line here."""
