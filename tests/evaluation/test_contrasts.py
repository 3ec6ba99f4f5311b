"""Contrasts stated before the run: the analysis of variance by hand, which rows are compared, and what holds."""

import json
import math
from dataclasses import replace

import numpy as np
import pytest
from scipy import stats

from halebrain.evaluation.contrasts import (
    Contrast,
    assess_contrasts,
    contrast_rows,
    contrasts_tsv,
    mean_over_both,
    method_name,
)
from halebrain.evaluation.evaluate import Row
from halebrain.evaluation.matrix import MethodRun

DISEASES = ("tumour", "stroke", "ms")


def run(name, values, *, trained_on="–", seed=0, fold=0, n_annotated=None):
    """Return a run of a row; `values` is column → AUPRC of its subjects."""
    title = name if trained_on == "–" else f"{name} ({trained_on})"
    rows = [
        Row(f"sub-{column}{n}", f"{column}{n}", "T1w", column, None, None, None, 1.0, title, "auprc", "", float(value))
        for column, own in values.items()
        for n, value in enumerate(own)
    ]
    return MethodRun(title, "block", trained_on, n_annotated, f"fold{fold} seed{seed}", rows, {})


def test_the_analysis_of_variance_by_hand():
    table = np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]])
    # Means of subjects 1.5, 3.5, 7; of runs 3, 5; of all 4. Mean squares: subjects 15.5, runs 6, rest 1.5.
    mean, error, freedom = mean_over_both([table])
    assert mean == 4
    assert error == pytest.approx(math.sqrt((15.5 + 6 - 1.5) / 6))
    assert freedom == pytest.approx(20**2 / (15.5**2 / 2 + 6**2 / 1 + 1.5**2 / 2))


def test_one_run_is_a_paired_t_test_over_subjects():
    values = np.array([0.1, 0.3, -0.2, 0.4, 0.25])
    mean, error, freedom = mean_over_both([values[:, None]])
    expected = stats.ttest_1samp(values, 0)
    assert mean / error == pytest.approx(expected.statistic)
    assert freedom == 4


def test_two_sets_of_subjects_weigh_by_their_number():
    first, second = np.array([[1.0], [3.0]]), np.array([[6.0], [7.0], [8.0], [9.0], [10.0], [11.0]])
    mean, error, _ = mean_over_both([first, second])
    assert mean == pytest.approx((1 + 3 + 51) / 8)
    parts = (2 / 8) ** 2 * np.var(first, ddof=1) / 2 + (6 / 8) ** 2 * np.var(second, ddof=1) / 6
    assert error == pytest.approx(math.sqrt(parts))


def test_seeds_that_differ_widen_the_interval_and_equal_ones_do_not():
    rng = np.random.default_rng(0)
    subjects = rng.normal(0.1, 0.1, (60, 1))
    alike, apart = subjects + np.zeros((1, 3)), subjects + np.array([[-0.2, 0.0, 0.2]])
    assert mean_over_both([alike])[1] == pytest.approx(float(subjects.std(ddof=1)) / math.sqrt(60))
    assert mean_over_both([apart])[1] > 5 * mean_over_both([alike])[1]


def test_the_level_is_kept_where_subjects_and_seeds_are_random():
    rng, wrong = np.random.default_rng(1), 0
    for _ in range(400):
        table = rng.normal(0, 0.2, (40, 1)) + rng.normal(0, 0.05, (1, 3)) + rng.normal(0, 0.1, (40, 3))
        mean, error, freedom = mean_over_both([table])
        wrong += stats.t.sf(mean / error, freedom) < 0.05
    # Pooling 120 differences as if they were independent would be wrong in more than 0.15 of the cases.
    assert wrong / 400 < 0.07


def test_mean_squares_below_the_rest_count_as_the_rest():
    mean, error, freedom = mean_over_both([np.array([[1.0, 2.0], [2.0, 1.0]])])
    # Means of subjects and of runs are all 1.5, so their mean squares are 0; that of the rest is 1.
    assert (mean, error) == (1.5, math.sqrt(1 / 4))
    assert freedom == pytest.approx(1 / 3)


def test_one_run_has_the_p_of_a_one_sided_paired_t_test_and_says_so():
    first, second = np.array([0.5, 0.62, 0.48, 0.7, 0.66]), np.array([0.4, 0.6, 0.5, 0.5, 0.6])
    both = [run("A", {"ms": first}), run("B", {"ms": second})]
    (found,) = assess_contrasts(both, [Contrast("c", "A", ("B",), "all")], DISEASES)
    expected = stats.ttest_1samp(first - second, 0, alternative="greater")
    assert found.p == pytest.approx(expected.pvalue)
    assert found.note == "one run: says nothing of other seeds"


def test_a_scan_without_a_lesion_takes_no_part():
    both = [run("A", {"ms": [0.5, 0.7, math.nan]}), run("B", {"ms": [0.4, 0.5, math.nan]})]
    (found,) = assess_contrasts(both, [Contrast("c", "A", ("B",), "all")], DISEASES)
    assert (found.n_subjects, found.difference) == (2, pytest.approx(0.15))


def test_rows_that_are_equal_are_not_better():
    both = [run(name, {"ms": [0.5, 0.7]}, seed=seed) for name in "AB" for seed in (0, 1)]
    better, as_good = Contrast("c", "A", ("B",), "all"), Contrast("d", "A", ("B",), "all", 0.1)
    found = assess_contrasts(both, [better, as_good], DISEASES)
    assert [(one.p, one.low, one.high, one.holds) for one in found] == [(1, 0, 0, False), (0, 0, 0, True)]


def in_folds(effects, held_out, seeds, rng):
    """Return a table for each fold, in which all people but the `held_out` of that fold are tested, and their names."""
    tables, names = [], []
    for out in held_out:
        tested = [n for n in range(len(effects)) if n not in out]
        noise = rng.normal(0, 0.03, (1, seeds)) + rng.normal(0, 0.05, (len(tested), seeds))
        tables.append(effects[tested][:, None] + noise)
        names.append([("ms", str(n)) for n in tested])
    return tables, names


def test_the_level_is_kept_where_folds_test_most_people_again():
    rng, wrong = np.random.default_rng(2), 0
    for _ in range(300):
        folds = [range(3 * fold, 3 * fold + 3) for fold in range(5)]
        mean, error, freedom = mean_over_both(*in_folds(rng.normal(0, 0.2, 40), folds, 3, rng))
        wrong += stats.t.sf(mean / error, freedom) < 0.05
    # As if each fold had people of its own, it would be wrong in 0.2 of the cases.
    assert 0.02 < wrong / 300 < 0.08


def test_sets_without_a_common_subject_are_independent_and_one_subject_of_both_is_not():
    first, second = np.array([[1.0], [3.0], [2.0]]), np.array([[6.0], [7.0], [9.0]])
    apart = mean_over_both([first, second])
    names = [[("ms", "a"), ("ms", "b"), ("ms", "c")], [("ms", "d"), ("ms", "e"), ("ms", "f")]]
    assert mean_over_both([first, second], names) == apart
    names[1][0] = ("ms", "a")
    mean, error, freedom = mean_over_both([first, second], names)
    assert (mean, freedom) == (apart[0], 2)
    at_most = 2 * np.std(first, ddof=1) * np.std(second, ddof=1) / 6**2
    assert error == pytest.approx(math.sqrt(apart[1] ** 2 + at_most))


def test_a_subject_of_several_folds_is_counted_once():
    both = [
        run(name, {"ms": [value + 0.01 * n for n in range(number)]}, fold=fold)
        for name, value in (("A", 0.6), ("B", 0.5))
        for fold, number in ((0, 4), (1, 5))
    ]
    (found,) = assess_contrasts(both, [Contrast("c", "A", ("B",), "all")], DISEASES)
    assert found.n_subjects == 5


def runs_of_two():
    """Pairs and images trained on tumour and on stroke; pairs are 0.1 better on the disease, 0.05 worse on others."""
    found = []
    for seed in (0, 1, 2):
        for trained_on in ("tumour", "stroke"):
            image = {c: 0.3 + 0.02 * np.arange(5) + 0.01 * seed for c in DISEASES}
            pair = {c: v + (0.1 if c == trained_on else -0.05) + 0.001 * seed for c, v in image.items()}
            found += [run("Unet", image, trained_on=trained_on, seed=seed)]
            found += [run("Unet_res", pair, trained_on=trained_on, seed=seed)]
    return found


def test_rows_are_paired_by_training_and_diseases_by_what_was_learned():
    stated = [
        Contrast("seen", "Unet_res", ("Unet",), "seen"),
        Contrast("unseen", "Unet_res", ("Unet",), "unseen"),
        Contrast("unseen, not inferior", "Unet_res", ("Unet",), "unseen", margin=0.06),
        Contrast("all", "Unet_res", ("Unet",), "all"),
    ]
    seen, unseen, not_inferior, everything = assess_contrasts(runs_of_two(), stated, DISEASES)
    assert seen.difference == pytest.approx(0.101)
    assert (seen.n_subjects, seen.n_runs, seen.holds) == (10, 3, True)
    assert unseen.difference == pytest.approx(-0.049)
    assert (unseen.n_subjects, unseen.holds) == (15, False)
    assert not_inferior.holds
    # A subject with a tumour is seen by one training and not by the other; one with ms by none.
    assert everything.difference == pytest.approx((10 * 0.026 - 5 * 0.049) / 15)


@pytest.mark.parametrize("columns", ["seen", "unseen", "all"])
def test_trainings_on_synthetic_anomalies_take_no_part(columns):
    # Of a training on anomalies and a disease, neither what was seen nor what was not is a fair column.
    others = [
        run(name, dict.fromkeys(DISEASES, [value] * 5), trained_on=trained_on, seed=seed)
        for trained_on in ("DRAEM", "DRAEM + tumour")
        for name, value in (("Unet_res", 0.9), ("Unet", 0.1))
        for seed in (0, 1, 2)
    ]
    stated = [Contrast("a", "Unet_res", ("Unet",), columns)]
    assert assess_contrasts(runs_of_two() + others, stated, DISEASES) == assess_contrasts(
        runs_of_two(), stated, DISEASES
    )


def test_the_strongest_of_several_is_taken_and_untrained_rows_stand_for_each_seed():
    level = {"ms": [0.5, 0.6, 0.7]}
    runs = [run("fused", {"ms": [0.58, 0.66, 0.79]}, trained_on="tumour", seed=seed) for seed in (0, 1)]
    runs += [run("AE", {"ms": [0.1, 0.1, 0.1]}, seed=seed) for seed in (0, 1)]
    runs += [run("DAE", {"ms": [0.3, 0.4, 0.3]}, seed=seed) for seed in (0, 1)]
    runs += [run("atlas z-score", level)]
    strongest, atlas, absent = assess_contrasts(
        runs,
        [
            Contrast("a", "fused", ("AE", "DAE"), "unseen"),
            Contrast("b", "fused", ("atlas z-score",), "unseen"),
            Contrast("c", "fused", ("AE", "VAE"), "unseen"),
        ],
        DISEASES,
    )
    assert strongest.second == "DAE"
    assert (atlas.n_subjects, atlas.n_runs) == (3, 2)
    assert atlas.difference == pytest.approx((0.08 + 0.06 + 0.09) / 3)
    assert absent.second == "AE"
    assert "not finished: VAE" in absent.note


def test_an_easy_fold_alone_makes_no_row_the_strongest():
    easy, hard = [0.8, 0.82, 0.84], [0.3, 0.32, 0.34]
    runs = [run("fused", {"ms": values}, trained_on="tumour", fold=n) for n, values in enumerate((easy, hard))]
    runs += [run("DAE", {"ms": np.array(values) - 0.02}, fold=n) for n, values in enumerate((easy, hard))]
    runs += [run("AE", {"ms": np.array(easy) - 0.1})]
    for n, one in enumerate(runs):
        fold = one.run.split()[0]
        runs[n] = replace(one, rows=[replace(row, subject=fold + row.subject) for row in one.rows])
    (found,) = assess_contrasts(runs, [Contrast("a", "fused", ("DAE", "AE"), "unseen")], DISEASES)
    assert (found.second, found.n_subjects) == ("DAE", 6)
    assert found.difference == pytest.approx(0.02)
    assert "not in every run: AE" in found.note


def test_rows_without_a_common_run_are_not_compared():
    runs = [run("fused", {"ms": [0.5, 0.6]}, trained_on="tumour", fold=n) for n in (0, 1)]
    runs += [run("DAE", {"ms": [0.4, 0.4]}, fold=0), run("AE", {"ms": [0.4, 0.4]}, fold=1)]
    (found,) = assess_contrasts(runs, [Contrast("a", "fused", ("DAE", "AE"), "unseen")], DISEASES)
    assert (found.n_subjects, found.holds) == (0, False)
    assert found.note == "no subject in a run that all have: DAE, AE"


def test_one_subject_has_no_interval():
    runs = [run("fused", {"ms": [0.5]}, trained_on="tumour"), run("DAE", {"ms": [0.4]})]
    (found,) = assess_contrasts(runs, [Contrast("a", "fused", ("DAE",), "unseen")], DISEASES)
    assert math.isnan(found.low)
    assert not found.holds
    assert contrast_rows([found])[1][0][5] == "+0.100 [no interval]"
    assert found.to_json()["low"] is None


def test_p_values_are_corrected_for_all_contrasts_those_without_a_result_too():
    stated = [Contrast(str(n), "Unet_res", ("Unet",), "seen") for n in range(3)]
    stated += [Contrast("none", "SADM", ("Unet",), "seen")]
    *found, none = assess_contrasts(runs_of_two(), stated, DISEASES)
    assert found[0].p_holm == pytest.approx(min(1.0, 4 * found[0].p))
    assert (none.p, none.p_holm, none.holds) == (1.0, 1.0, False)
    assert none.note == "no finished run of both"
    assert none.to_json()["difference"] is None
    json.dumps([result.to_json() for result in (*found, none)], allow_nan=False)
    header, cells = contrast_rows([*found, none])
    assert {len(line) for line in cells} == {len(header)}
    assert cells[0][-1] == "yes"
    assert cells[-1][-1] == "not tested (no finished run of both)"
    lines = contrasts_tsv([*found, none]).splitlines()
    assert len(lines) == 5
    assert len({line.count("\t") for line in lines}) == 1


def test_rows_of_synthetic_anomalies_and_of_few_annotations_are_others():
    runs = [*runs_of_two(), run("Unet_res", {"ms": [0.0] * 5}, trained_on="DRAEM", seed=0)]
    runs += [run("Unet_res", {"ms": [0.0] * 5}, trained_on="tumour", seed=0, n_annotated=2)]
    (found,) = assess_contrasts(runs, [Contrast("unseen", "Unet_res", ("Unet",), "unseen")], DISEASES)
    assert found.difference == pytest.approx(-0.049)
    assert method_name(runs[-2]) == "Unet_res"


def test_what_learned_otherwise_is_no_counterpart():
    runs = [run("Unet_res", {"ms": [0.5, 0.6]}, trained_on="tumour")]
    others = [run("Unet", {"ms": [0.4, 0.4]}, trained_on=name) for name in ("stroke", "DRAEM")]
    (found,) = assess_contrasts([*runs, *others], [Contrast("a", "Unet_res", ("Unet",), "unseen")], DISEASES)
    assert (found.n_subjects, found.note) == (0, "no finished run of both")


def test_no_other_training_stands_for_one_that_is_not_finished():
    runs = runs_of_two()
    planned = {(method_name(one), one.trained_on, one.run) for one in runs}
    left = [one for one in runs if one.title != "Unet (stroke)"]
    stated = [Contrast("seen", "Unet_res", ("Unet",), "seen")]
    (found,) = assess_contrasts(left, stated, DISEASES, planned)
    # Of strokes, what learned from strokes would be compared with what learned from tumours.
    assert (found.n_subjects, found.n_runs) == (5, 3)
    assert found.note == "without unfinished runs of: Unet (stroke)"
    (found,) = assess_contrasts(runs[:-1], stated, DISEASES, planned)
    assert found.note == "without unfinished runs of: Unet_res (stroke)"
    (whole,) = assess_contrasts(runs, stated, DISEASES, planned)
    assert (whole.n_subjects, whole.note) == (10, "")


def test_no_other_seed_stands_for_one_that_is_not_finished():
    stated = Contrast("pair − alone", "pair", ("alone",), "all")
    pairs = [run("pair", {"ms": [0.5, 0.6, 0.8]}, trained_on="ms", seed=seed) for seed in (0, 1)]
    alone = [run("alone", {"ms": [0.4, 0.6, 0.5]}, seed=seed) for seed in (0, 1)]
    planned = {(method_name(one), one.trained_on, one.run) for one in (*pairs, *alone)}
    (whole,) = assess_contrasts([*pairs, *alone], [stated], DISEASES, planned)
    assert (whole.n_runs, whole.note) == (2, "")
    (part,) = assess_contrasts([*pairs, alone[0]], [stated], DISEASES, planned)
    assert part.n_runs == 1
    assert part.note == "one run: says nothing of other seeds; without unfinished runs of: alone"
    # What is not trained has one run, which stands beside each seed.
    planned -= {("alone", "–", "fold0 seed1")}
    (once,) = assess_contrasts([*pairs, alone[0]], [stated], DISEASES, planned)
    assert (once.n_runs, once.note) == (2, "")


def test_a_row_trained_in_one_way_only_stands_beside_every_training():
    runs = [one for one in runs_of_two() if one.title.startswith("Unet_res")]
    runs += [run("bound", {c: [0.9] * 5 for c in DISEASES}, trained_on="tumour + stroke", seed=n) for n in range(3)]
    (found,) = assess_contrasts(runs, [Contrast("a", "Unet_res", ("bound",), "seen")], DISEASES)
    assert (found.n_subjects, found.n_runs, found.note) == (10, 3, "")


def test_two_cohorts_are_two_sets_of_subjects():
    runs = []
    for fold in (0, 1):
        for seed in (0, 1):
            own = {"tumour": [0.4, 0.5, 0.7]}
            rows = run("Unet", own, trained_on="tumour", seed=seed, fold=fold).rows
            better = run("Unet_res", {"tumour": [0.5, 0.65, 0.75]}, trained_on="tumour", seed=seed, fold=fold).rows
            for name, values in (("Unet", rows), ("Unet_res", better)):
                moved = [replace(row, subject=f"{fold}{row.subject}") for row in values]
                runs.append(MethodRun(f"{name} (tumour)", "b", "tumour", None, f"fold{fold} seed{seed}", moved, {}))
    (found,) = assess_contrasts(runs, [Contrast("seen", "Unet_res", ("Unet",), "seen")], DISEASES)
    assert (found.n_subjects, found.n_runs) == (6, 2)
    assert found.difference == pytest.approx(0.1)
