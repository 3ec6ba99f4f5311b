"""True volume from that of the mask: exact lines are found, the interval is that of the errors, few say nothing."""

import math

import numpy as np
import pytest

from halebrain.core.provenance import VolumeEstimate
from halebrain.thresholds.calibration import Calibration, Threshold, VolumeFit
from halebrain.thresholds.choose import ThresholdSelector
from halebrain.thresholds.scored_map import FoundVolume
from halebrain.thresholds.volume import MIN_PATIENTS, fit_volume

MARKED = (0.5, 1.0, 2.0, 3.0, 5.0, 8.0, 13.0, 21.0, 34.0, 50.0)


def pairs(true_of, marked=MARKED):
    return [(f"p{n}", FoundVolume(ml, 0.0, true_of(ml))) for n, ml in enumerate(marked)]


def fitted(found):
    fit = fit_volume(found, min_lesion_mm3=0.0)
    assert fit is not None
    return fit


def test_a_constant_ratio_is_found_and_preferred_where_both_lines_fit():
    fit = fitted(pairs(lambda ml: 3 * ml))
    assert fit.method == "constant ratio"
    assert (fit.slope, fit.log_factor) == pytest.approx((1.0, math.log(3)))
    assert fit.half_width == pytest.approx(0.0, abs=1e-9)
    assert (fit.smallest_ml, fit.largest_ml, fit.n_patients) == (pytest.approx(0.5), pytest.approx(50), 10)
    expected = VolumeEstimate(value_ml=12.0, low_ml=12.0, high_ml=12.0, n_patients=10, method="constant ratio")
    assert fit.estimate(4.0) == expected


def test_large_lesions_that_lose_more_ask_for_a_slope():
    fit = fitted(pairs(lambda ml: 1.5 * ml**1.4))
    assert fit.method == "Theil–Sen line"
    assert (fit.slope, fit.log_factor) == pytest.approx((1.4, math.log(1.5)))
    assert fit.estimate(13.0).value_ml == pytest.approx(1.5 * 13**1.4, abs=1e-3)


def test_the_interval_by_hand():
    # Errors of ±0.1 but one of 1: of ten, the ⌈0.9 · 11⌉ = 10th smallest bounds nine of ten further patients.
    logs = [0.1, -0.1, 0.1, -0.1, 0.1, -0.1, 0.1, -0.1, 0.1, -1.0]
    found = [(f"p{n}", FoundVolume(2.0 + n, 0.0, (2.0 + n) * math.exp(e))) for n, e in enumerate(logs)]
    fit = fitted(found)
    assert fit.method == "constant ratio"
    # Left out, the outlier meets the median of five times 0.1 and four times −0.1.
    assert fit.half_width == pytest.approx(1.1)
    estimate = fit.estimate(5.0)
    assert estimate.low_ml == pytest.approx(estimate.value_ml * math.exp(-1.1), rel=1e-3)
    assert estimate.high_ml == pytest.approx(estimate.value_ml * math.exp(1.1), rel=1e-3)


@pytest.mark.slow
def test_the_interval_holds_nine_of_ten_further_patients():
    rng, held = np.random.default_rng(0), []
    for _ in range(300):
        logs = rng.normal(1.0, 1.0, 21)
        true = 0.5 + 1.2 * logs + rng.standard_t(4, 21) * 0.3
        volumes = [FoundVolume(math.exp(m), 0.0, math.exp(t)) for m, t in zip(logs, true, strict=True)]
        fit = fitted([(f"p{n}", one) for n, one in enumerate(volumes[:20])])
        estimate = fit.estimate(volumes[20].marked_ml)
        if estimate is not None:
            held.append(estimate.low_ml <= volumes[20].lesion_ml <= estimate.high_ml)
    assert len(held) > 200
    assert np.mean(held) >= 0.87


def test_one_wrong_annotation_moves_the_line_little():
    found = pairs(lambda ml: 1.5 * ml**1.4)
    wrong = [*found[:-1], ("p9", FoundVolume(50.0, 0.0, 0.01))]
    assert fitted(wrong).slope == pytest.approx(1.4, abs=0.05)


def test_order_and_repeated_scans_of_a_patient_change_nothing():
    found = pairs(lambda ml: 2 * ml**1.1)
    assert fitted(found[::-1]) == fitted(found)
    assert fitted([*found, *found[:3]]) == fitted(found)


def test_few_patients_say_nothing_and_missed_ones_do_not_count():
    found = pairs(lambda ml: 2 * ml)
    assert fit_volume(found[: MIN_PATIENTS - 1], min_lesion_mm3=0.0) is None
    missed = [("m", FoundVolume(0.0, 0.0, 4.0))]
    assert fit_volume([*found[: MIN_PATIENTS - 1], *missed], min_lesion_mm3=0.0) is None
    fit = fitted([*found, *missed])
    assert (fit.n_patients, fit.n_missed) == (10, 1)
    # Where no lesion is annotated, none is missed.
    without = [("a", FoundVolume(0.0, 0.0, 0.0)), ("b", FoundVolume(2.0, 0.0, 0.0))]
    assert fitted([*found, *missed, *without]).n_missed == 1
    assert (fit.slope, fit.log_factor) == pytest.approx((1.0, math.log(2)))


@pytest.mark.parametrize("ml", [0.0, 0.4, 51.0])
def test_outside_the_range_of_the_patients_nothing_is_estimated(ml):
    assert fitted(pairs(lambda ml: 2 * ml)).estimate(ml) is None


def calibrated():
    fit = fitted(pairs(lambda ml: 2 * ml))
    about = {"split": "val", "manifest_sha256": "0", "n_scans": 9, "achieved": 0.5, "method": "m", "value": 0.4}
    plain, own = Threshold(**about), Threshold(**about, volume=fit)
    return Calibration(
        default="ml:1",
        thresholds={"ml:1": plain, "dice": plain},
        subjects=(),
        modalities={"FLAIR": {"ml:1": own}, "T1w": {"ml:1": own}},
    )


def test_a_fit_is_read_as_it_was_written_and_belongs_to_its_contrast_and_threshold_alone():
    read = Calibration.model_validate(calibrated().model_dump(mode="json"))
    assert read == calibrated()
    assert "volume" not in read.model_dump(mode="json")["thresholds"]["ml:1"], "older versions read it"

    def fit(wanted, modality, **changes):
        selector = ThresholdSelector(read, wanted)
        chosen = selector.at(modality)
        return selector.volume_fit(type(chosen)(**(vars(chosen) | changes)))

    assert isinstance(fit("ml:1", "FLAIR"), VolumeFit)
    for wanted, modality in (("dice", "FLAIR"), ("0.4", "FLAIR"), ("ml:1", "T2w"), ("ml:1", None), ("ml:1", "T1ce")):
        assert fit(wanted, modality) is None, (wanted, modality)
    assert fit("ml:1", "FLAIR", min_lesion_mm3=50.0) is None, "masks of another kind"
    named = read.named("ours", beside=None)
    selector = ThresholdSelector(named)
    assert selector.volume_fit(selector.at("FLAIR")) is not None
