"""Reported volume against true volume: a fit on annotated validation patients, with its prediction interval."""

import math
from collections.abc import Callable, Sequence

import numpy as np
import numpy.typing as npt

from halebrain.thresholds.calibration import VolumeFit
from halebrain.thresholds.scored_map import FoundVolume

COVERAGE = 0.9
"""Share of patients whose true volume the interval should hold."""

MIN_PATIENTS = 9
"""Fewest patients whose residuals can bound 90 % of further ones: ⌈0.9 (n + 1)⌉ ≤ n."""

_Logs = npt.NDArray[np.float64]
_Line = tuple[float, float]


def fit_volume(found: Sequence[tuple[str, FoundVolume]], *, min_lesion_mm3: float) -> VolumeFit | None:
    """Return how the true volume follows from the reported one; `None` with fewer than nine patients.

    Two lines are compared in logarithms of ml: a constant ratio of the volumes, and a free slope above 0 (the median
    slope of all pairs; Theil 1950, Sen 1968). The one with the smaller median error is taken, each patient predicted
    from the others. The interval holds those errors: the ⌈0.9 (n + 1)⌉-th smallest of n. It assumes no distribution
    (the jackknife; Barber et al. 2021). Each patient counts once, by the geometric mean of the scans.

    Args:
        found: Subject, and what was marked in an annotated scan; where nothing was, there is nothing to scale.
        min_lesion_mm3: Smallest lesion kept in those masks.
    """
    by_subject: dict[str, list[_Line]] = {}
    for subject, one in found:
        if one.marked_ml > 0 and one.lesion_ml > 0:
            by_subject.setdefault(subject, []).append((math.log(one.marked_ml), math.log(one.lesion_ml)))
    if len(by_subject) < MIN_PATIENTS:
        return None
    pairs = np.array([np.mean(logs, axis=0) for _, logs in sorted(by_subject.items())])
    reported, true = pairs[:, 0], pairs[:, 1]
    fits: dict[str, Callable[[_Logs, _Logs], _Line]] = {"constant ratio": _ratio}
    if _theil_sen(reported, true)[0] > 0:
        fits["Theil–Sen line"] = _theil_sen
    errors = {name: _left_out_errors(fit, reported, true) for name, fit in fits.items()}
    method = min(fits, key=lambda name: (round(float(np.median(errors[name])), 9), name != "constant ratio"))
    slope, intercept = fits[method](reported, true)
    return VolumeFit(
        method=method,
        slope=slope,
        log_factor=intercept,
        half_width=float(np.sort(errors[method])[math.ceil(COVERAGE * (len(true) + 1)) - 1]),
        smallest_ml=float(np.exp(reported.min())),
        largest_ml=float(np.exp(reported.max())),
        n_patients=len(true),
        n_missed=len({subject for subject, one in found if one.lesion_ml > 0} - by_subject.keys()),
        min_lesion_mm3=min_lesion_mm3,
    )


def _left_out_errors(fit: Callable[[_Logs, _Logs], _Line], reported: _Logs, true: _Logs) -> _Logs:
    """Return the absolute error of each patient, predicted from the others."""
    errors = np.empty(len(true))
    for left_out in range(len(true)):
        others = np.arange(len(true)) != left_out
        slope, intercept = fit(reported[others], true[others])
        errors[left_out] = abs(true[left_out] - intercept - slope * reported[left_out])
    return errors


def _ratio(reported: _Logs, true: _Logs) -> _Line:
    return 1.0, float(np.median(true - reported))


def _theil_sen(reported: _Logs, true: _Logs) -> _Line:
    first, second = np.triu_indices(len(true), k=1)
    apart = reported[second] - reported[first]
    slopes = (true[second] - true[first])[apart != 0] / apart[apart != 0]
    slope = float(np.median(slopes)) if len(slopes) else 1.0
    return slope, float(np.median(true - slope * reported))
