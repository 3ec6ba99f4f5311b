"""What every registered metric promises, whichever it is."""

import math

import numpy as np
import pytest

from halebrain.evaluation.metrics import METRICS

NAMES = list(METRICS)
SHAPE = (12, 10, 11)
NONE, SOME = np.zeros(SHAPE, dtype=bool), np.zeros(SHAPE, dtype=bool)
SOME[3:8, 3:7, 3:8] = True
OFF = np.roll(SOME, 6, axis=0)
OF_OTHER_SIZES = {f"lesion_sensitivity_{size}" for size in ("0-0.1ml", "1-10ml", "10ml-")}
"""Undefined: the lesion has 0.6 ml."""


def value(make_case, name, prediction, reference, spacing_mm=(1.0, 2.0, 3.0)):
    metric = METRICS.get(name)
    return metric(make_case(reference, **{metric.needs: prediction}, spacing_mm=spacing_mm))


def bounded(name):
    return METRICS.get(name).unit == ""


def test_there_are_metrics():
    assert {"auprc", "auroc", "dice", "dice_oracle_per_scan", "hd95", "lesion_f1", "brats2023_lesion_dice"} <= set(
        NAMES
    )
    assert all(METRICS.get(name).name == name and METRICS.get(name).says for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(5))
def test_finite_bounded_and_pure(make_case, name, seed):
    rng = np.random.default_rng(seed)
    reference = rng.random(SHAPE) < 0.1
    reference[0, 0, 0] = True
    prediction = rng.random(SHAPE) if METRICS.get(name).needs == "score" else rng.random(SHAPE) < 0.1
    before = prediction.copy(), reference.copy()
    first = value(make_case, name, prediction, reference)
    assert isinstance(first, float)
    if "sensitivity_" not in name:  # undefined where no lesion is of that size
        assert math.isfinite(first)
    if bounded(name) and math.isfinite(first):
        assert 0 <= first <= 1
    assert first == pytest.approx(value(make_case, name, prediction, reference), nan_ok=True)
    np.testing.assert_array_equal(prediction, before[0])
    np.testing.assert_array_equal(reference, before[1])


@pytest.mark.parametrize("name", sorted(OF_OTHER_SIZES))
def test_lesions_of_other_sizes_have_no_sensitivity(make_case, name):
    assert math.isnan(value(make_case, name, SOME, SOME))


@pytest.mark.parametrize("name", [name for name in NAMES if name not in OF_OTHER_SIZES])
def test_perfect_is_best_and_wrong_is_worse(make_case, name):
    perfect = value(make_case, name, SOME, SOME)
    wrong = value(make_case, name, OFF | np.roll(OFF, 1, axis=2), SOME)
    assert perfect == pytest.approx(1.0 if bounded(name) else 0.0)
    direction = METRICS.get(name).higher_is_better
    if direction is None:
        assert abs(wrong) > abs(perfect)
    else:
        assert (wrong < perfect) if direction else (wrong > perfect)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("axis", [0, 1, 2])
def test_mirrored_scans_score_the_same(make_case, name, axis):
    rng = np.random.default_rng(1)
    reference, noise = rng.random(SHAPE) < 0.1, rng.random(SHAPE)
    prediction = noise if METRICS.get(name).needs == "score" else noise < 0.1
    one = value(make_case, name, prediction, reference)
    assert one == pytest.approx(
        value(make_case, name, np.flip(prediction, axis), np.flip(reference, axis)), nan_ok=True
    )


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("case", "prediction", "reference"),
    [("no_reference", SOME, NONE), ("no_prediction", NONE, SOME), ("neither", NONE, NONE)],
)
def test_empty_cases_follow_the_policy(make_case, name, case, prediction, reference):
    metric = METRICS.get(name)
    if metric.needs == "score" and case != "no_reference":
        case = "no_reference" if case == "neither" else None  # a graded map is never empty
    found = value(make_case, name, prediction, reference)
    policy = None if case is None else getattr(metric.on_empty, case)
    if policy is None:
        assert math.isfinite(found) or "sensitivity_" in name
    elif math.isnan(policy):
        assert math.isnan(found)
    else:
        assert found == policy


EXPECTED = {  # no reference, no prediction, neither
    "dice": ("nan", 0.0, "nan"),
    "precision": ("nan", "nan", "nan"),
    "recall": ("nan", 0.0, "nan"),
    "hd95": ("nan", float(np.linalg.norm([12, 20, 33])), "nan"),
    "surface_dice_2mm": ("nan", 0.0, "nan"),
    "lesion_f1": ("nan", 0.0, "nan"),
    "false_lesions": (1.0, 0.0, 0.0),
    "volume_error": (0.6, -0.6, 0.0),
    "false_positive_volume": (0.6, 0.0, 0.0),
    "specificity": (1 - 100 / 1320, 1.0, 1.0),
    "brats2023_lesion_dice": (0.0, 0.0, 1.0),
    "brats2023_lesion_hd95": (374.0, 374.0, 0.0),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_empty_cases_of_masks_by_hand(make_case, name):
    for (prediction, reference), wanted in zip([(SOME, NONE), (NONE, SOME), (NONE, NONE)], EXPECTED[name], strict=True):
        assert value(make_case, name, prediction, reference) == pytest.approx(float(wanted), nan_ok=True)


BY_MILLIMETRES = {"hd95", "surface_dice_2mm", "brats2023_lesion_dice", "brats2023_lesion_hd95"} | {
    name for name in NAMES if name.startswith("lesion_sensitivity_")
}
"""Metrics that a tolerance, a penalty or a limit in mm or ml is part of."""


@pytest.mark.parametrize("name", [name for name in NAMES if name not in BY_MILLIMETRES])
def test_units_say_what_the_spacing_does(make_case, name):
    prediction = OFF | SOME if METRICS.get(name).needs == "mask" else (OFF | SOME).astype(float)
    one = value(make_case, name, prediction, SOME, (1.0, 1.0, 1.0))
    two = value(make_case, name, prediction, SOME, (2.0, 2.0, 2.0))
    unit = METRICS.get(name).unit
    assert one != 0
    assert two == pytest.approx((8 if unit == "ml" else 1) * one)
