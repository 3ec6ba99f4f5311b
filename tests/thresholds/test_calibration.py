"""Thresholds: the best by brute force, the false-positive rate kept, and the choice of a stored one."""

import numpy as np
import pytest

from halebrain.core.errors import DataError, UsageError
from halebrain.thresholds.calibration import Calibration, Threshold
from halebrain.thresholds.choose import ThresholdSelector
from halebrain.thresholds.fit import fit_best_dice, fit_false_positive_rate
from halebrain.thresholds.scored_map import LOWEST_THRESHOLD


def select_threshold(calibration, wanted, *, modality=None):
    """Return value and name of the threshold for a scan."""
    chosen = ThresholdSelector(calibration, wanted).at(modality)
    return chosen.value, chosen.name


@pytest.mark.parametrize("seed", range(20))
def test_best_dice_threshold_equals_brute_force(seed: int) -> None:
    rng = np.random.default_rng(seed)
    scores = [(rng.integers(0, 9, n) / 9).astype(np.float32) for n in (7, 12)]
    references = [rng.random(n) < 0.3 for n in (7, 12)]
    references[0][0] = True
    value, dice = fit_best_dice(scores, references)
    score, reference = np.concatenate(scores), np.concatenate(references)

    def at(threshold: float) -> float:
        called = score >= threshold
        return 2 * (called & reference).sum() / (called.sum() + reference.sum())

    # A threshold of 0, which would mark everything, is refused everywhere.
    assert dice == pytest.approx(max(at(t) for t in np.unique(score[score > 0])), abs=1e-12)
    assert at(value) == pytest.approx(dice, abs=1e-12)


def test_a_dice_threshold_needs_a_lesion() -> None:
    with pytest.raises(DataError, match="lesions"):
        fit_best_dice([np.ones(3, dtype=np.float32)], [np.zeros(3, dtype=bool)])


@pytest.mark.parametrize("rate", [0.0, 0.01, 0.05, 0.1, 0.5])
@pytest.mark.parametrize("levels", [2, 7, 10**6])
def test_false_positive_rate_is_kept_by_the_lowest_threshold(rate: float, levels: int) -> None:
    rng = np.random.default_rng(levels)
    scores = [(rng.integers(0, levels, n) / levels).astype(np.float32) for n in (300, 101)]
    value, share = fit_false_positive_rate(scores, rate)
    together = np.concatenate(scores)
    assert share == pytest.approx((together >= value).mean())
    assert share <= rate
    # A written map holds no score between 0 and the lowest threshold.
    lower = 0 if value == LOWEST_THRESHOLD else np.nextafter(np.float32(value), np.float32(-np.inf))
    assert (together >= lower).mean() > rate


def test_a_rate_that_score_0_alone_keeps_gives_a_threshold_that_a_written_map_can_hold() -> None:
    scores = np.array([0] * 95 + [1e-7, 0.2, 0.3, 0.4, 0.5], dtype=np.float32)
    assert fit_false_positive_rate([scores], 0.1) == (LOWEST_THRESHOLD, 0.04)


def test_false_positive_rate_by_hand() -> None:
    value, share = fit_false_positive_rate([np.arange(10, dtype=np.float32) / 10], 0.2)
    assert share == 0.2
    assert 0.7 < value <= 0.8


def test_a_false_positive_threshold_needs_a_healthy_scan() -> None:
    with pytest.raises(DataError, match="healthy"):
        fit_false_positive_rate([], 0.1)


def stored() -> Calibration:
    about = {"split": "val", "manifest_sha256": "0", "n_scans": 2, "achieved": 0.5, "method": "m"}
    thresholds = {"dice": Threshold(value=0.4, **about), "fpr:0.01": Threshold(value=0.6, **about)}
    return Calibration(default="dice", thresholds=thresholds, subjects=("a",))


@pytest.mark.parametrize(
    ("wanted", "expected"), [("auto", (0.4, "dice")), ("fpr:0.01", (0.6, "fpr:0.01")), ("0.25", (0.25, "fixed"))]
)
def test_selection(wanted: str, expected: tuple[float, str]) -> None:
    assert select_threshold(stored(), wanted) == expected


def test_a_number_needs_no_calibration_but_auto_does() -> None:
    assert select_threshold(None, "0.3") == (0.3, "fixed")
    with pytest.raises(UsageError, match="not calibrated"):
        select_threshold(None, "auto")


@pytest.mark.parametrize("wanted", ["0", "-0.1", "nan", "inf"])
def test_a_threshold_that_would_call_everything_or_nothing_is_refused(wanted: str) -> None:
    with pytest.raises(UsageError, match="above 0"):
        select_threshold(None, wanted)


def test_an_unknown_name_lists_the_known() -> None:
    with pytest.raises(UsageError, match=r"stored: dice, fpr:0\.01"):
        select_threshold(stored(), "best")


def test_thresholds_of_a_data_set_stand_beside_the_others() -> None:
    other = Calibration(default="dice", thresholds={"dice": stored().thresholds["fpr:0.01"]}, subjects=("b", "a"))
    both = other.named("siteB", beside=stored())
    assert (both.default, both.subjects) == ("dice", ("a", "b"))
    assert select_threshold(both, "auto") == (0.4, "dice")
    assert select_threshold(both, "dice@siteB") == (0.6, "dice@siteB")
    alone = other.named("siteB", beside=None)
    assert select_threshold(alone, "auto") == (0.6, "dice@siteB")
    assert set(both.named("siteB", beside=both).thresholds) >= set(both.thresholds)


def threshold(value: float, *modalities: str, n_scans: int = 6) -> Threshold:
    about = {"split": "val", "manifest_sha256": "0", "n_scans": n_scans, "achieved": 0.5, "method": f"gives {value}"}
    return Threshold(value=value, modalities=modalities, **about)


def by_modality() -> Calibration:
    return Calibration(
        default="dice",
        thresholds={"dice": threshold(0.4, "FLAIR"), "ml:1": threshold(0.5, "FLAIR", "T2w")},
        subjects=("a",),
        modalities={"FLAIR": {"ml:1": threshold(0.7, "FLAIR")}},
        healthy_scores={"FLAIR": (0.1, 0.2)},
    )


@pytest.mark.parametrize(
    ("wanted", "modality", "expected"),
    [
        ("ml:1", "FLAIR", (0.7, "ml:1")),
        ("ml:1", "T2w", (0.5, "ml:1 (all modalities: FLAIR, T2w)")),
        ("ml:1", None, (0.5, "ml:1 (all modalities: FLAIR, T2w)")),
        ("auto", "FLAIR", (0.4, "dice")),  # chosen on nothing but FLAIR
        ("auto", "T1w", (0.4, "dice (all modalities: FLAIR)")),
        ("ml:1", "T1ce", (0.5, "ml:1 (all modalities: FLAIR, T2w)")),  # T1 has none of its own either
        ("0.25", "FLAIR", (0.25, "fixed")),
    ],
)
def test_a_modality_has_its_own_threshold_or_is_told_whose_it_gets(wanted, modality, expected) -> None:
    assert select_threshold(by_modality(), wanted, modality=modality) == expected
    chosen = ThresholdSelector(by_modality(), wanted).at(modality)
    assert (chosen.value, chosen.name) == expected


def test_t1_with_contrast_medium_takes_the_threshold_of_t1_as_it_takes_its_networks() -> None:
    both = by_modality()
    both.modalities["T1w"] = {"ml:1": threshold(0.6, "T1w")}
    assert select_threshold(both, "ml:1", modality="T1ce") == (0.6, "ml:1 (of T1w)")
    assert select_threshold(both, "auto", modality="T1ce") == (0.4, "dice (all modalities: FLAIR)")
    both.thresholds["dice"] = threshold(0.3, "T1w")
    assert select_threshold(both, "auto", modality="T1ce") == (0.3, "dice (of T1w)")
    both.modalities["T1ce"] = {"ml:1": threshold(0.8, "T1ce")}
    assert select_threshold(both, "ml:1", modality="T1ce") == (0.8, "ml:1")


def test_the_choice_says_how_it_was_made() -> None:
    chosen = ThresholdSelector(by_modality(), "ml:1").at("FLAIR")
    assert (chosen.method, chosen.n_scans, chosen.data_set) == ("gives 0.7", 6, None)
    named = by_modality().named("ours", beside=None)
    assert ThresholdSelector(named, "ml:1@ours").at("FLAIR").data_set == "ours"
    assert ThresholdSelector(named, "0.3").at(None).data_set == "ours", "its default is of that data set"


def test_a_wrong_wish_is_said_before_any_scan() -> None:
    with pytest.raises(UsageError, match=r"ml:2.*stored: dice, ml:1"):
        ThresholdSelector(by_modality(), "ml:2")


def test_a_calibration_of_an_earlier_version_is_read_and_written_as_it_was() -> None:
    about = {"split": "val", "manifest_sha256": "0", "n_scans": 2, "achieved": 0.5, "method": "m", "value": 0.4}
    earlier = {"default": "dice", "thresholds": {"dice": about}, "subjects": ["a"]}
    read = Calibration.model_validate(earlier)
    assert select_threshold(read, "auto", modality="FLAIR") == (0.4, "dice")
    assert read.model_dump(mode="json") == earlier
    assert Calibration.model_validate(by_modality().model_dump(mode="json")) == by_modality()


def test_a_data_set_calibrated_again_leaves_nothing_of_before() -> None:
    general = by_modality()
    once = general.named("ours", beside=general)
    assert set(once.modalities["FLAIR"]) == {"ml:1", "ml:1@ours"}
    assert set(once.healthy_scores) == {"FLAIR", "FLAIR@ours"}
    other = Calibration(
        default="ml:1",
        thresholds={"ml:1": threshold(0.6, "T2w")},
        subjects=("b",),
        modalities={"T2w": {"ml:1": threshold(0.6, "T2w")}},
        healthy_scores={"T2w": (0.3,)},
    )
    again = other.named("ours", beside=once)
    assert again.modalities == {**general.modalities, "T2w": {"ml:1@ours": threshold(0.6, "T2w")}}
    assert set(again.healthy_scores) == {"FLAIR", "T2w@ours"}
    assert (again.default, again.subjects) == ("dice", ("a", "b"))
    assert set(again.thresholds) == {"dice", "ml:1", "ml:1@ours"}
    # A default that is gone, too, becomes that of the new scans.
    alone = other.named("ours", beside=general.named("ours", beside=None))
    assert (alone.default, set(alone.thresholds)) == ("ml:1@ours", {"ml:1@ours"})


def test_added_modalities_stand_beside_those_that_were_there() -> None:
    other = Calibration(
        default="fpr:0.01",
        thresholds={"fpr:0.01": threshold(0.8, "T1w"), "ml:1": threshold(0.9, "T1w")},
        subjects=("b",),
        modalities={"T1w": {"ml:1": threshold(0.9, "T1w")}},
        healthy_scores={"T1w": (0.5,)},
    )
    both = other.added_to(by_modality())
    assert select_threshold(both, "ml:1", modality="T1w") == (0.9, "ml:1")
    assert select_threshold(both, "ml:1", modality="FLAIR") == (0.7, "ml:1")
    assert select_threshold(both, "ml:1") == (0.5, "ml:1 (all modalities: FLAIR, T2w)")
    assert select_threshold(both, "fpr:0.01", modality="T1w") == (0.8, "fpr:0.01")
    assert (both.default, both.subjects, set(both.healthy_scores)) == ("dice", ("a", "b"), {"FLAIR", "T1w"})
    assert both.calibrated_modalities(None) == {"FLAIR", "T1w"}
    assert both.calibrated_modalities("ours") == set()
