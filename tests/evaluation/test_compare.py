import numpy as np
import pytest
from scipy import stats

from halebrain.evaluation.statistics import compare_methods, holm


def one_scan_each(values):
    return {(subject, "scan"): value for subject, value in values.items()}


def test_holm_by_hand():
    assert holm([0.01, 0.04, 0.03]) == pytest.approx([0.03, 0.06, 0.06])
    assert holm([0.5, 0.9]) == pytest.approx([1.0, 1.0])
    assert holm([]) == []


def test_pairs_are_made_by_subject():
    rng = np.random.default_rng(0)
    subjects = [f"s{i}" for i in range(12)]
    base = dict(zip(subjects, rng.random(12), strict=True))
    better = {s: v + 0.1 + 0.01 * rng.random() for s, v in reversed(base.items())} | {"other": 5.0}
    (found,) = compare_methods("dice", {"new": one_scan_each(better), "old": one_scan_each(base)})
    assert found.n_subjects == 12
    assert found.median_difference == pytest.approx(0.105, abs=0.01)
    difference = [better[s] - base[s] for s in subjects]
    assert found.p == pytest.approx(stats.wilcoxon(difference).pvalue)
    assert found.p_holm == found.p


def test_equal_methods_do_not_differ():
    values = {"a": 0.1, "b": 0.2, "c": float("nan")}
    (found,) = compare_methods("dice", {"one": one_scan_each(values), "two": one_scan_each(values)})
    assert (found.p, found.median_difference, found.n_subjects) == (1.0, 0.0, 2)


def test_methods_without_common_subjects_are_not_compared():
    assert compare_methods("dice", {"one": one_scan_each({"a": 1.0}), "two": one_scan_each({"b": 1.0})}) == []


def test_only_scans_count_that_both_have():
    # On FLAIR the atlas is worse for everybody. Without the harder T1w, its means alone would be higher.
    values = {"model": {}, "atlas": {}}
    for n in range(6):
        flair, t1w = (f"s{n}", "FLAIR"), (f"s{n}", "T1w")
        values["model"] |= {flair: 0.8, t1w: 0.2}
        values["atlas"] |= {flair: 0.7 - 0.01 * n, t1w: float("nan")} if n else {flair: 0.7}
    (found,) = compare_methods("auprc", values)
    assert found.median_difference == pytest.approx(0.125)
    assert found.p == pytest.approx(2 / 2**6)
