"""Rules that refuse a scan, mark it as out of distribution, or flag it: one function per rule.

A rule takes the quality-control figures and returns a line for the user, or `None`. Reasons that withhold a
verdict mark the scan as out of distribution; the others are flags.
"""

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np

from halebrain.core.errors import DataError
from halebrain.core.provenance import UNKNOWN, QualityReport
from halebrain.core.types import MaskArray, Volume
from halebrain.preprocessing.quality.contrast import contrast_flag, is_foreign
from halebrain.preprocessing.quality.measurements import TURNED_RATIO, structure

MASK_BY_ATLAS = "mask by atlas"
"""Rule that flags a mask which was found without a learned extractor."""
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
_THICK_MM, _COARSE_MM, _FEW_VOXELS = 4.0, 6.0, 12
"""Virtual patients were scanned with slices of up to 6 mm; a brain is at least 12 of them high."""
WIDE_VENTRICLES = "wide ventricles"
"""Rule that flags them, and how the flag begins."""
_WIDE_ML = 50.0
"""Real T1w of young adults: up to 41 ml; virtual people with more than 60 ml measure 47 ml and more."""
_LOW_CONFIDENCE = 0.9
_SMOOTH = 0.89
"""Correlation of neighbours. Real scans: 0.53 to 0.84; T1 blurred to a resolution of 5 mm: 0.88 to 0.89, 6 mm: 0.90."""
_PLACEMENTS_MM = 0.5
"""Between sform and qform; quaternions round by up to 0.05 mm."""
_SATURATED = 0.02
_EQUALISED = 0.03
"""Distance to the uniform distribution. Scans: 0.04 to 0.47."""
_EIGHT_BIT = (250, 255)
"""Steps from 0 to the highest intensity of an 8-bit image; raw scans of few intensities end elsewhere."""
_AIR_HU = (-1100.0, -850.0)
_AIR_SHARE = 0.05
_SOFT_TISSUE_HU = (-20.0, 120.0)
_SOFT_SHARE = 0.02
_SOFT_SPREAD_HU = 6.0
"""From the 5th to the 95th percentile of soft tissue: grey and white matter, fluid and noise. Stripped CT: 15 and more;
a standardised brain on a background of −1024: 3."""
_LEAST_STRUCTURE = 0.1
"""Correlation of neighbouring voxels. Real scans: 0.7 to 0.98; scans of a signal-to-noise ratio of 2: 0.4; noise: 0."""


@dataclass(frozen=True)
class Rule:
    """One thing that may be wrong with a scan; `withholds`: whether its results are then not valid.

    `check` returns a line for the user with the value measured and what to do, or `None`.
    """

    name: str
    check: Callable[[QualityReport], str | None]
    withholds: bool = True


def apply_quality_rules(report: QualityReport) -> QualityReport:
    """Return a report with a flag for each rule that a scan breaks; a rule is skipped if its figure is `None`."""
    for rule in RULES:
        report = report.flagged(rule.check(report), withholds=rule.withholds)
    return report


def flags_without(report: QualityReport, name: str) -> tuple[str, ...]:
    """Return the flags of a report, without that of one rule."""
    own = next(rule for rule in RULES if rule.name == name).check(report)
    return tuple(flag for flag in report.flags if flag != own)


def check_contrast_label(report: QualityReport, named: str | None) -> QualityReport:
    """Return a report with a flag if declared and inferred contrast differ, or the declared one is not supported."""
    # An uncertain inference does not contradict a declared contrast.
    line = contrast_flag(named, report.contrast if report.contrast_sure else None)
    return report.flagged(line, withholds=is_foreign(named))


def _thick(qc: QualityReport) -> str | None:
    spacing = qc.spacing_max_mm or 0.0
    return f"thick slices ({spacing:.1f} mm)" if spacing > _THICK_MM else None


def _doubtful_mask(qc: QualityReport) -> str | None:
    confidence = qc.brain_confidence
    if confidence is None or confidence >= _LOW_CONFIDENCE:
        return None
    return f"brain mask of low confidence ({confidence:.2f}): check it, or give --brain-mask"


def _mask_by_atlas(qc: QualityReport) -> str | None:
    if qc.brain_method != "atlas" or _doubtful_mask(qc) is not None:
        return None
    return "skull stripped by registration to the template: check the brain mask"


def _is_misplaced(qc: QualityReport) -> bool:
    """Return whether the position of the brain is unknown, so that tissue intensities cannot be used."""
    return _failed(qc) is not None or _turned(qc) is not None


def _failed(qc: QualityReport) -> str | None:
    if not qc.registration_failed:
        return None
    figures = (("overlap", qc.registration_mask_dice), ("margin", qc.registration_margin))
    said = ", ".join(f"{name} {value:.2f}" for name, value in figures if value is not None)
    return f"registration to the template failed{f' ({said})' if said else ''}: do not use the maps"


def _turned(qc: QualityReport) -> str | None:
    ratio = qc.orientation_ratio
    if ratio is None or ratio >= TURNED_RATIO:
        return None
    return f"seems to be upside down or back to front ({ratio:.2f}): check the orientation in its header"


def _overlap(qc: QualityReport) -> str | None:
    dice = qc.registration_mask_dice
    if dice is None or dice >= _LOW_REGISTRATION_DICE or qc.registration_failed:
        return None
    return f"low overlap of brain and template ({dice:.2f}): check the brain mask and the field of view"


def _margin(qc: QualityReport) -> str | None:
    margin = qc.registration_margin
    if margin is None or margin >= _LOW_MARGIN or _is_misplaced(qc):
        return None
    return f"fits the template only {margin:.2f} times as well as a rotated placement: check the brain mask"


def _contrast(qc: QualityReport) -> str | None:
    levels = qc.tissue_levels
    if qc.contrast != UNKNOWN or levels is None or _is_misplaced(qc):
        return None
    shown = ", ".join(f"{name} {levels[name]:.2f}" for name in ("white", "cortex", "deep", "fluid"))
    return (
        f"intensities unlike T1w, T2w and FLAIR ({shown}): "
        "maps are not valid, as models were trained on these; give one of them"
    )


def _smooth(qc: QualityReport) -> str | None:
    value = qc.smoothness
    if value is None or value < _SMOOTH:
        return None
    return f"as smooth as PET or a strongly filtered image ({value:.2f}): give the MR scan as it was acquired"


def _child(qc: QualityReport) -> str | None:
    size = _uncut_ml(qc)
    if size is None or size >= _CHILD_ML:
        return None
    return f"a brain of {size:.0f} ml is not an adult's: check the mask and the spacing; models were trained on adults"


def _small(qc: QualityReport) -> str | None:
    size = _uncut_ml(qc)
    if size is None or not _CHILD_ML <= size < _SMALL_ML:
        return None
    return f"a small brain ({size:.0f} ml): models were trained on adults; do not use the maps if this is a child"


def _uncut_ml(qc: QualityReport) -> float | None:
    """Return the brain's volume; `None` where a part of it was not scanned."""
    return None if (qc.cut_face or 0.0) > _CUT_FACE else qc.brain_volume_ml


def _wide_ventricles(qc: QualityReport) -> str | None:
    size = qc.ventricles_ml
    if size is None or size <= _WIDE_ML or qc.contrast == UNKNOWN or _is_misplaced(qc):
        return None
    return (
        f"{WIDE_VENTRICLES} (about {size:.0f} ml): more is marked by mistake in such brains; check each finding, or "
        "calibrate on people of that age"
    )


def _cut(qc: QualityReport) -> str | None:
    face, outside = qc.cut_face or 0.0, qc.cut_off or 0.0
    if outside > _CUT_OFF:
        return f"field of view cut off: {100 * outside:.0f} % of the brain lies outside it; give the whole scan"
    if face > _CUT_FACE:
        shown = f"{100 * face:.0f} % of its largest cross-section"
        return f"field of view cut off: it ends within the brain ({shown}); give the whole scan"
    return None


def _coarse(qc: QualityReport) -> str | None:
    spacing, across = qc.spacing_max_mm or 0.0, qc.brain_voxels_across
    if spacing > _COARSE_MM:
        return f"voxels of {spacing:.1f} mm are coarser than the training data (6 mm): give a finer scan"
    if across is not None and across < _FEW_VOXELS:
        return f"the brain is only {across} voxels across: give a whole scan, not a localiser"
    return None


def _placed_twice(qc: QualityReport) -> str | None:
    apart = qc.placements_apart_mm or 0.0
    if apart <= _PLACEMENTS_MM:
        return None
    return (
        f"sform and qform of its header differ by {apart:.1f} mm: the sform is used, other programs may "
        "use the qform; the results keep both"
    )


def _saturated(qc: QualityReport) -> str | None:
    share = qc.saturated_share or 0.0
    if share <= _SATURATED:
        return None
    return f"{100 * share:.0f} % of the brain is at the highest intensity: clipped or stretched; give the original scan"


def _equalised(qc: QualityReport) -> str | None:
    distance = qc.distance_to_uniform
    if distance is None or distance >= _EQUALISED:
        return None
    return f"all intensities are equally frequent ({distance:.3f}): histogram equalisation; give the original scan"


def _eight_bit(qc: QualityReport) -> str | None:
    levels = qc.grey_levels
    if levels is None or not _EIGHT_BIT[0] <= levels <= _EIGHT_BIT[1]:
        return None
    highest = qc.highest_intensity
    return f"intensities end at {highest:g} in {levels} steps: an 8-bit or already rendered image; give the original"


RULES: tuple[Rule, ...] = (
    Rule("thick slices", _thick, withholds=False),
    Rule("doubtful mask", _doubtful_mask, withholds=False),
    Rule(MASK_BY_ATLAS, _mask_by_atlas, withholds=False),
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
    Rule(WIDE_VENTRICLES, _wide_ventricles, withholds=False),
    Rule("saturation", _saturated),
    Rule("equalisation", _equalised),
    Rule("8 bit", _eight_bit, withholds=False),
    Rule("two placements", _placed_twice, withholds=False),
)
"""All rules; a new rule is a function and a line here."""


def refuse_ct(volume: Volume) -> None:
    """Raise where a scan is in Hounsfield units.

    In CT, air is about −1000 and soft tissue 0 to 100 in every scanner; MR has no such pair of values, be it raw or
    standardised. A standardised brain whose background was set to −1000 or so is none: its values hardly spread.
    """
    data = volume.data
    if float(data.min()) > _AIR_HU[1]:
        return
    air = float(np.mean((data >= _AIR_HU[0]) & (data <= _AIR_HU[1])))
    soft = data[(data >= _SOFT_TISSUE_HU[0]) & (data <= _SOFT_TISSUE_HU[1])]
    if (
        air >= _AIR_SHARE
        and soft.size >= _SOFT_SHARE * data.size
        and np.ptp(np.percentile(soft, [5, 95])) >= _SOFT_SPREAD_HU
    ):
        raise DataError(
            "a scan must be MR",
            received=f"intensities in Hounsfield units, as of CT ({100 * air:.0f} % of the voxels are air)",
            where=volume.name,
            remedy="give T1, T2 or FLAIR",
        )


def refuse_without_structure(volume: Volume, brain_mask: MaskArray) -> None:
    """Raise where there is one intensity, or noise alone, in the place of the brain."""
    inside = volume.data[brain_mask]
    if inside.size < 2:
        return  # the brain extractor reports an empty mask
    low, high = (float(value) for value in np.percentile(inside, [1, 99]))
    if not high > low:
        found = f"{low:g} everywhere"
    elif (agreement := structure(volume, brain_mask, enough=_LEAST_STRUCTURE)) < _LEAST_STRUCTURE:
        found = f"noise (neighbouring voxels correlate by {agreement:.2f})"
    else:
        return
    raise DataError(
        "intensities inside the brain must vary and show structure",
        received=found,
        where=volume.name,
        remedy="check the scan and its brain mask",
    )
