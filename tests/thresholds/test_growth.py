"""The lower threshold that findings grow to: exact on one scan, the promise kept, and the right one preferred."""

import numpy as np
import pytest
from scipy import ndimage

from halebrain.core.mask import Cut, dice, to_mask
from halebrain.thresholds.calibration import Calibration
from halebrain.thresholds.choose import ThresholdSelector
from halebrain.thresholds.false_positive_volume import fit_false_volume
from halebrain.thresholds.fit import by_healthy
from halebrain.thresholds.growth import MIN_PATIENTS, choose_growth
from halebrain.thresholds.scored_map import ScoredMap

ABOUT = {"split": "val", "manifest_sha256": "0"}


def scan(score, lesion=None, *, subject="a", voxel_mm3=100.0, min_lesion_mm3=0.0):
    score = np.asarray(score, dtype=np.float32)
    score = score.reshape(-1, 1, 1) if score.ndim == 1 else score
    lesion = None if lesion is None else np.asarray(lesion, dtype=bool).reshape(score.shape)
    return ScoredMap(
        score,
        np.ones(score.shape, bool),
        voxel_mm3=voxel_mm3,
        min_lesion_mm3=min_lesion_mm3,
        modality="FLAIR",
        scan_score=0.0,
        lesion=lesion,
        subject=subject,
    )


def just_above(value):
    return float(np.nextafter(np.float32(value), np.float32(np.inf)))


def test_volumes_by_hand():
    # Voxels of 0.1 ml; at 0.2 two components: of 3 voxels with the peak 0.9, and of 2 with 0.6.
    grown = scan([0.2, 0.9, 0.3, 0.1, 0.6, 0.2], [0, 1, 1, 1, 0, 0]).grown(0.2)
    assert grown.marked_ml(0.5) == pytest.approx(0.5)
    assert grown.marked_ml(0.7) == pytest.approx(0.3)
    assert grown.marked_ml(0.95) == 0
    found = grown.found(0.7)
    assert (found.overlap_ml, found.lesion_ml) == pytest.approx((0.2, 0.3))
    assert found.dice == pytest.approx(2 * 0.2 / 0.6)
    assert grown.lowest_threshold(0.3) == just_above(0.6)
    assert grown.lowest_threshold(0.2) == just_above(0.9)
    assert grown.lowest_threshold(0.5) == just_above(0.2), "a threshold lies above the lower one"


def test_two_findings_of_one_peak_come_and_go_together():
    grown = scan([0.6, 0.0, 0.6, 0.0, 0.9]).grown(0.3)
    assert grown.lowest_threshold(0.2) == just_above(0.6)
    assert grown.lowest_threshold(0.1) == just_above(0.6)


@pytest.mark.parametrize("smallest", [0.0, 3.0, 6.0])
@pytest.mark.parametrize("seed", range(4))
def test_it_is_the_mask_that_detect_makes(seed, smallest):
    rng = np.random.default_rng(seed)
    score = ndimage.gaussian_filter(rng.random((10, 11, 9)), 0.8).astype(np.float32)
    lesion = ndimage.gaussian_filter(rng.random(score.shape), 1.0) > 0.5
    low = float(np.float32(np.quantile(score, 0.75)))
    known = scan(score, lesion, voxel_mm3=1.0, min_lesion_mm3=smallest)
    grown = known.grown(low)
    for threshold in (float(t) for t in np.quantile(score, [0.8, 0.9, 0.97, 0.995])):
        mask = to_mask(score, Cut(threshold, smallest, low), voxel_mm3=1.0)
        assert grown.marked_ml(threshold) * 1000 == pytest.approx(mask.sum())
        assert grown.found(threshold).dice == pytest.approx(dice(mask, lesion))
        plain = to_mask(score, Cut(threshold, smallest), voxel_mm3=1.0)
        assert known.found(threshold).dice == pytest.approx(dice(plain, lesion))
    steps = np.unique(score[score > np.float32(low)])
    for allowed in (0, 20, 60, 150, 10**4):
        found = grown.lowest_threshold(allowed / 1000)
        assert to_mask(score, Cut(found, smallest, low), voxel_mm3=1.0).sum() <= allowed
        below = steps[steps < np.float32(found)]
        assert all(to_mask(score, Cut(float(t), smallest, low), voxel_mm3=1.0).sum() > allowed for t in below)


# A lesion of ten voxels: its middle has 0.9, its rim 0.4; beyond it a halo of 0.1. Healthy scans have peaks of 0.5.
LESION = [0, 0, 0, *[1] * 10, 0, 0, 0]
PATIENT = [0.1, 0.1, 0.1, *[0.4] * 4, 0.9, 0.9, *[0.4] * 4, 0.1, 0.1, 0.1]
HEALTHY = [0.5, 0.1, 0.1, 0.0, *[0.05] * 12]
MUCH = [*[0.5] * 12, 0.0, 0.0, 0.0, 0.0]


def patients(count=MIN_PATIENTS, score=PATIENT):
    return [scan(score, LESION, subject=f"p{n}") for n in range(count)]


def healthy(count=5, score=HEALTHY):
    return [scan(score) for _ in range(count)]


def test_the_chooser_prefers_the_lower_threshold_that_delineates_the_lesion():
    chosen = choose_growth(healthy(), patients(), 0.0)
    assert chosen is not None
    assert 0.1 < chosen.grow_to <= 0.4, "the rim belongs to the lesion, the halo does not"
    assert chosen.mean_dice == 1.0
    assert chosen.mean_dice_without == pytest.approx(2 * 2 / 12)
    assert chosen.n_scans == MIN_PATIENTS


def test_too_few_patients_choose_nothing_and_scans_of_one_patient_are_one():
    assert choose_growth(healthy(), patients(MIN_PATIENTS - 1), 0.0) is None
    again = [scan(PATIENT, LESION, subject="p") for _ in range(MIN_PATIENTS)]
    assert choose_growth(healthy(), again, 0.0) is None
    assert choose_growth([], patients(), 0.0) is None


def test_findings_do_not_grow_where_that_is_no_better():
    exact = [0.05, 0.3, 0.3, *[0.9] * 10, 0.3, 0.3, 0.05]
    assert choose_growth(healthy(), patients(score=exact), 0.0) is None


def test_the_order_of_the_scans_does_not_matter():
    ill = [*patients(), scan(HEALTHY, LESION, subject="missed"), scan(PATIENT[::-1], LESION, subject="other")]
    well = [*healthy(), scan([0.6, 0.2, 0.0])]
    one, other = choose_growth(well, ill, 0.0), choose_growth(well[::-1], ill[::-1], 0.0)
    assert one is not None
    assert other is not None
    assert (one.grow_to, one.mean_dice) == (other.grow_to, pytest.approx(other.mean_dice))


def test_where_growth_would_break_the_limit_the_seed_threshold_rises():
    # Ten voxels of 0.3 around a peak of 0.5: within 0.1 ml without growth, 1.1 ml with it.
    wide = [*[0.3] * 5, 0.5, *[0.3] * 5, 0.0, 0.45, 0.0, 0.0, 0.0]
    well = healthy(score=wide)
    faint = [0.3 if value == 0.4 else value for value in PATIENT]
    found = by_healthy(well, 0.5, patients=patients(score=faint), default="ml:0.1", **ABOUT)
    limit = found["ml:0.1"]
    assert limit.growth is not None
    assert limit.growth.value <= 0.3
    assert limit.growth.value_without == fit_false_volume(well, 0.1)[0] == just_above(0.45)
    assert limit.value == just_above(0.5)
    assert limit.growth.unadjusted_ml == pytest.approx(1.1)
    assert limit.achieved == 0.0
    assert limit.method.endswith(f", grown to {limit.growth.value:.4f}")
    for name in ("ml:0.1", "ml:0.5", "ml:1"):
        one = found[name]
        assert one.growth is not None
        assert one.growth.value == limit.growth.value, "findings of every threshold have one extent"
        cut = Cut(one.value, 0.0, one.growth.value)
        volumes = [to_mask(np.float32(wide).reshape(-1, 1, 1), cut, voxel_mm3=100.0).sum() / 10 for _ in well]
        assert np.median(volumes) == pytest.approx(one.achieved)
        assert np.median(volumes) <= float(name[3:])


# Ten voxels of 0.3 around a peak of 0.5; the same without them. Patients whose peak lies between 0.45 and 0.5.
WIDE = [*[0.3] * 5, 0.5, *[0.3] * 5, 0.0, 0.45, 0.0, 0.0, 0.0]
NARROW = [0.5 if value == 0.5 else 0.45 if value == 0.45 else 0.0 for value in WIDE]
FAINT = [{0.9: 0.47, 0.4: 0.3}.get(value, value) for value in PATIENT]


def test_growth_that_loses_the_patients_through_its_higher_seed_threshold_is_not_chosen():
    # Without growth the threshold lies above 0.45. Growth to 0.3 would fit the lesions exactly, but lifts it above 0.5.
    assert choose_growth(healthy(score=WIDE), patients(score=FAINT), 0.1) is None
    chosen = choose_growth(healthy(score=NARROW), patients(score=FAINT), 0.1)
    assert chosen is not None
    assert chosen.mean_dice == 1.0


def test_the_seed_threshold_of_growth_holds_for_the_wanted_fraction_of_people():
    # Growth lifts the threshold of one of five people, who counts only where all must keep the limit.
    well = [scan(WIDE if number == 0 else NARROW, subject=f"h{number}") for number in range(5)]
    half = choose_growth(well, patients(score=FAINT), 0.1, population_fraction=0.5)
    assert half is not None
    assert half.mean_dice == 1.0
    assert choose_growth(well, patients(score=FAINT), 0.1, population_fraction=0.9) is None


def test_true_volumes_are_estimated_from_the_grown_masks():
    ill = patients(9)  # lesions of 1 ml, of which the threshold alone marks 0.2 ml
    held = by_healthy(healthy(score=MUCH), 0.5, patients=ill, grow=False, **ABOUT)["ml:1"].volume
    grown = by_healthy(healthy(score=MUCH), 0.5, patients=ill, **ABOUT)["ml:1"].volume
    assert held is not None
    assert grown is not None
    assert (held.smallest_ml, held.log_factor) == pytest.approx((0.2, np.log(5)))
    assert (grown.smallest_ml, grown.log_factor) == pytest.approx((1.0, 0.0), abs=1e-9)


def test_rates_and_thresholds_without_patients_are_as_before():
    plain = by_healthy(healthy(score=MUCH), 0.5, **ABOUT)
    with_patients = by_healthy(healthy(score=MUCH), 0.5, patients=patients(), **ABOUT)
    assert all(one.growth is None for one in plain.values())
    assert {name: with_patients[name] for name in plain if name.startswith("fpr")} == {
        name: one for name, one in plain.items() if name.startswith("fpr")
    }
    assert with_patients["ml:1"].growth is not None
    assert with_patients["ml:1"].growth.chosen_at == "ml:1"
    assert with_patients["ml:1"].growth.value_without == plain["ml:1"].value
    chosen = by_healthy(healthy(score=MUCH), 0.5, patients=patients(), default="dice", **ABOUT)["ml:1"].growth
    assert chosen is not None
    assert chosen.chosen_at == "ml:1", "dice is no limit on false positives"


def test_a_calibration_with_growth_is_read_as_it_was_written_and_chosen_with_it():
    table = by_healthy(healthy(score=MUCH), 0.5, patients=patients(), **ABOUT)
    plain = by_healthy(healthy(score=MUCH), 0.5, **ABOUT)
    calibration = Calibration(default="ml:1", thresholds=plain, subjects=("a",), modalities={"FLAIR": table})
    read = Calibration.model_validate(calibration.model_dump(mode="json"))
    assert read == calibration
    assert "growth" not in calibration.model_dump(mode="json")["thresholds"]["ml:1"], "older versions read it"
    chosen = ThresholdSelector(read).at("FLAIR")
    assert chosen.cut == Cut(table["ml:1"].value, 0.0, table["ml:1"].growth.value)
    assert ThresholdSelector(read).at("T2w").cut == Cut(plain["ml:1"].value)
    assert ThresholdSelector(read, "0.4").at("FLAIR").cut == Cut(0.4), "a number is plain"
    assert ThresholdSelector(read, "0.4", 0.2).at("FLAIR").cut == Cut(0.4, 0.0, 0.2)


def test_without_growth_true_volumes_are_estimated_all_the_same():
    well, ill = healthy(score=MUCH), patients(9)
    plain, held = by_healthy(well, 0.5, **ABOUT), by_healthy(well, 0.5, patients=ill, grow=False, **ABOUT)
    assert by_healthy(well, 0.5, patients=ill, **ABOUT)["ml:1"].growth is not None
    for name, one in held.items():
        assert one.growth is None
        assert (one.value, one.method) == (plain[name].value, plain[name].method)
    assert plain["ml:1"].volume is None
    assert held["ml:1"].volume is not None
    assert held["ml:1"].volume.n_patients + held["ml:1"].volume.n_missed == 9


@pytest.mark.parametrize("rounding", [0, -1e-7, -1e-16])
def test_a_seed_of_just_the_smallest_size_holds_down_to_its_lowest_voxel(rounding):
    grown = scan([0.3, 0.4, 0.9, 0.0, 0.6], voxel_mm3=1 + rounding, min_lesion_mm3=3.0).grown(0.2)
    assert grown.levels.tolist() == pytest.approx([0.3])
