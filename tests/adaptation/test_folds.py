"""Who is left out, and how many steps are taken."""

import pytest
import torch

from halebrain.adaptation.folds import Snapshots, assign_folds, choose_steps


@pytest.mark.parametrize("count", [2, 3, 7, 25])
def test_every_subject_is_left_out_once(count):
    annotated, healthy = [f"s{n}" for n in range(count)], ["h1", "h2", "h3"]
    folds = assign_folds(annotated, healthy, 10)
    assert len(folds) == min(count, 10)
    assert sorted(s for fold in folds for s in fold) == sorted(annotated + healthy)
    assert all(set(fold) & set(annotated) for fold in folds)
    assert all(set(annotated) - set(fold) for fold in folds)


def test_a_subject_with_healthy_and_annotated_scans_is_left_out_once():
    assert assign_folds(["a", "b"], ["b", "h"], 10) == [("a", "h"), ("b",)]


def test_one_subject_is_never_left_out():
    assert assign_folds(["a"], ["h"], 10) == []


def test_the_fewest_steps_among_the_best_are_taken():
    tried = (0, 50, 100, 150)
    auprc = {"a": [[0.2, 0.5, 0.502, 0.4]], "b": [[0.2, 0.3, 0.306, 0.2]]}
    # Means: 0.2, 0.4, 0.404, 0.3.
    assert choose_steps(tried, auprc, 0.005).steps == 50
    assert choose_steps(tried, auprc, 0.001).steps == 100
    assert choose_steps(tried, auprc, 0.0).auprc == pytest.approx((0.2, 0.4, 0.404, 0.3))
    assert choose_steps(tried, {"a": [[0.5, 0.4, 0.3, 0.2]]}, 0.005).steps == 0


def test_subjects_count_alike_whatever_their_number_of_scans():
    auprc = {"a": [[0.0, 1.0]] * 9, "b": [[1.0, 0.2]]}
    assert choose_steps((0, 50), auprc, 0).auprc == pytest.approx((0.5, 0.6))


def test_snapshots_come_back(tmp_path):
    snapshots = Snapshots(tmp_path, (3, 6))
    snapshots.save(3, {"w": torch.arange(4.0)})
    assert not snapshots.complete
    snapshots.save(6, {"w": torch.ones(2)})
    assert snapshots.complete
    assert torch.equal(snapshots.load(3)["w"], torch.arange(4.0))
