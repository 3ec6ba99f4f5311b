"""Thresholds of exams: those that were calibrated for a set of contrasts, else those of its contrasts, fused."""

from collections.abc import Sequence
from dataclasses import replace

from halebrain.core.provenance import FIXED, ChosenThreshold
from halebrain.inference.fusion import fused_value
from halebrain.thresholds.calibration import Calibration
from halebrain.thresholds.choose import ThresholdSelector
from halebrain.thresholds.text import threshold_name

HEALTHY_SCALE = "ml:1"
"""The threshold of a contrast that is the zero of its evidence, where the model stores it; else its default one."""
_UNCALIBRATED = 0.5
"""Zero of the evidence where the model has no threshold."""
_OF_EXAMS = ("modalities", "healthy_scores")
"""Fields of a calibration by contrast, and by the contrasts of an exam."""


def exam_key(contrasts: Sequence[str | None]) -> str | None:
    """Return the name of a set of contrasts, under which its thresholds are stored; `None` where one is not known.

    Example:
        >>> exam_key(["T1w", "FLAIR"]), exam_key(["T1w", None])
        ('FLAIR+T1w', None)
    """
    known = [contrast for contrast in contrasts if contrast is not None]
    return "+".join(sorted(known)) if len(known) == len(contrasts) else None


def healthy_score(calibration: Calibration | None, contrast: str | None) -> float:
    """Return the score that is high in a healthy scan of a contrast: the zero of its evidence in a fusion."""
    if calibration is None or not calibration.thresholds:
        return _UNCALIBRATED
    name = HEALTHY_SCALE if HEALTHY_SCALE in calibration.thresholds else calibration.default
    return ThresholdSelector(calibration, name).at(contrast).value


def without_outdated_exams(calibration: Calibration, before: Calibration) -> Calibration:
    """Return a calibration without what was chosen on exams whose contrasts have other healthy scores than before.

    They are the zero of the evidence that is fused, so that scores and thresholds of these exams belong together.
    """

    def stays(key: str) -> bool:
        each = key.split("+")
        return len(each) == 1 or all(healthy_score(calibration, one) == healthy_score(before, one) for one in each)

    kept = {name: {key: one for key, one in getattr(calibration, name).items() if stays(key)} for name in _OF_EXAMS}
    return calibration.model_copy(update=kept)


def exam_threshold(selector: ThresholdSelector, contrasts: Sequence[str | None], fusion: str) -> ChosenThreshold:
    """Return the threshold of an exam of some contrasts, whose scores are fused in one way.

    A number is used unchanged. Else it is that of the set of contrasts where the model was calibrated on such exams
    with this fusion, and otherwise what the thresholds of its contrasts become under the fusion.
    """
    key, calibration = exam_key(contrasts), selector.calibration
    if len(contrasts) == 1:
        return selector.at(contrasts[0])
    single = [selector.at(contrast) for contrast in contrasts]
    first = single[0]
    if first.key == FIXED:
        return replace(first, modality=key)
    if calibration is not None and is_calibrated(selector, contrasts, fusion):
        return selector.at(key)
    pairs = [
        (contrast, one.value, healthy_score(calibration, contrast))
        for one, contrast in zip(single, contrasts, strict=True)
    ]
    grow_to = None
    if all(one.grow_to is not None for one in single):
        # A fusion keeps the order, so the fused lower thresholds lie below the fused thresholds.
        lower = [
            (contrast, float(one.grow_to or 0.0), healthy)
            for one, (contrast, _, healthy) in zip(single, pairs, strict=True)
        ]
        grow_to = fused_value(lower, fusion)
    names = tuple(sorted({str(contrast) for contrast in contrasts if contrast is not None}))
    return replace(
        first,
        value=fused_value(pairs, fusion),
        grow_to=grow_to,
        name=threshold_name(str(first.key), first.data_set, names, key),
        source_contrasts=names,
        method=f"the thresholds of {', '.join(names) or 'the scans'} alone, fused; not calibrated on exams",
        n_scans=None,
        healthy_share=None,
        modality=key,
    )


def is_calibrated(selector: ThresholdSelector, contrasts: Sequence[str | None], fusion: str) -> bool:
    """Return whether the requested threshold was chosen on healthy exams of these contrasts, fused in this way."""
    calibration, key = selector.calibration, exam_key(contrasts)
    if calibration is None or key is None or calibration.fusion != fusion:
        return False
    wanted = calibration.default if selector.wanted == "auto" else selector.wanted
    return wanted in calibration.modalities.get(key, {})
