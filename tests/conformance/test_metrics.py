"""What every registered metric promises, whichever it is."""

import inspect
import math

import numpy as np
import pytest

from halebrain.evaluation.metrics import METRICS

SPACING = (1.0, 2.0, 3.0)
NAMES = list(METRICS)
NONE, SOME = np.zeros(50, dtype=bool), np.arange(50) < 10


def as_prediction(name: str, mask: np.ndarray) -> np.ndarray:
    return mask.copy() if METRICS.get(name).needs == "mask" else mask.astype(np.float32)


def value(name: str, prediction: np.ndarray, reference: np.ndarray) -> float:
    return METRICS.get(name)(prediction=prediction, reference=reference, spacing_mm=SPACING)


def test_there_are_metrics() -> None:
    assert {"auprc", "auroc", "dice", "dice_oracle_per_scan"} <= set(NAMES)
    assert all(METRICS.get(name).name == name for name in NAMES)


@pytest.mark.parametrize("name", NAMES)
def test_arguments_are_keyword_only(name: str) -> None:
    for function in (METRICS.get(name), METRICS.get(name).fn):
        kinds = {p.kind for p in inspect.signature(function).parameters.values()}
        assert kinds == {inspect.Parameter.KEYWORD_ONLY}
        with pytest.raises(TypeError):
            function(as_prediction(name, SOME), SOME, SPACING)  # type: ignore[operator]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("seed", range(10))
def test_finite_bounded_and_pure(name: str, seed: int) -> None:
    rng = np.random.default_rng(seed)
    reference = rng.random(50) < 0.3
    reference[:2] = True, False
    metric = METRICS.get(name)
    prediction = rng.random(50).astype(np.float32) if metric.needs == "score" else rng.random(50) < 0.5
    before = prediction.copy(), reference.copy()
    first = value(name, prediction, reference)
    assert isinstance(first, float)
    assert math.isfinite(first)
    if metric.unit == "":
        assert 0 <= first <= 1
    assert first == value(name, prediction, reference)
    np.testing.assert_array_equal(prediction, before[0])
    np.testing.assert_array_equal(reference, before[1])


@pytest.mark.parametrize("name", NAMES)
def test_perfect_is_best_and_worse_is_worse(name: str) -> None:
    metric = METRICS.get(name)
    perfect = value(name, as_prediction(name, SOME), SOME)
    wrong = value(name, as_prediction(name, np.arange(50) >= 8), SOME)
    assert perfect == pytest.approx(1.0 if metric.unit == "" else 0.0)
    if metric.higher_is_better is True:
        assert wrong < perfect
    elif metric.higher_is_better is False:
        assert wrong > perfect
    else:
        assert abs(wrong) > abs(perfect)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize(
    ("case", "prediction", "reference"),
    [("no_reference", SOME, NONE), ("no_prediction", NONE, SOME), ("neither", NONE, NONE)],
)
def test_empty_cases_follow_the_policy(name: str, case: str, prediction: np.ndarray, reference: np.ndarray) -> None:
    metric = METRICS.get(name)
    if metric.needs == "score" and case != "no_reference":
        pytest.skip("a graded map is never empty")
    policy = getattr(metric.on_empty, case)
    found = value(name, as_prediction(name, prediction), reference)
    if policy is None:
        assert math.isfinite(found)
    elif math.isnan(policy):
        assert math.isnan(found)
    else:
        assert found == policy


EXPECTED = {  # no reference, no prediction, neither
    "dice": ("nan", 0.0, "nan"),
    "precision": ("nan", "nan", "nan"),
    "recall": ("nan", 0.0, "nan"),
    "volume_error": (0.06, -0.06, 0.0),
    "false_positive_volume": (0.06, 0.0, 0.0),
}


@pytest.mark.parametrize("name", EXPECTED)
def test_empty_cases_of_masks_by_hand(name: str) -> None:
    cases = [(SOME, NONE), (NONE, SOME), (NONE, NONE)]
    for (prediction, reference), wanted in zip(cases, EXPECTED[name], strict=True):
        assert value(name, prediction, reference) == pytest.approx(float(wanted), nan_ok=True)


@pytest.mark.parametrize("name", ["auprc", "auroc", "dice_oracle_per_scan"])
def test_graded_metrics_are_undefined_without_a_lesion(name: str) -> None:
    assert math.isnan(value(name, as_prediction(name, SOME), NONE))


@pytest.mark.parametrize("name", NAMES)
def test_only_volumes_depend_on_the_spacing(name: str) -> None:
    metric = METRICS.get(name)
    prediction = as_prediction(name, np.arange(50) < 15)
    one, two = (metric(prediction=prediction, reference=SOME, spacing_mm=spacing) for spacing in ((1, 1, 1), (2, 1, 1)))
    assert two == pytest.approx(one if metric.unit == "" else 2 * one)
