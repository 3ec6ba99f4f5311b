"""Folds of a benchmark: who learns, validates and tests; too few subjects and persons in two conditions are refused."""

from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halebrain.core.errors import DataError
from halebrain.data.folds import FoldPlan, make_folds
from halebrain.data.splits import draw_groups
from halebrain.io.manifest import Manifest, ScanRecord

PLAN = FoldPlan(folds=3, val=4, test=10, weak={"tumour": (6, 2), "stroke": (0, 3)})


def people(count, pathology, *, lesion=True):
    return [
        ScanRecord(
            subject=f"{pathology}{n:03}",
            image=Path(f"{pathology}{n}.nii.gz"),
            modality="T1w",
            site="AB"[n % 2],
            age=20.0 + n,
            pathology=pathology,
            lesion=Path("l.nii.gz") if lesion and pathology != "healthy" else None,
        )
        for n in range(count)
    ]


def table(*, healthy=40, tumour=30, stroke=20, more=()):
    rows = people(healthy, "healthy") + people(tumour, "tumour") + people(stroke, "stroke") + list(more)
    return Manifest(tuple(rows), source=Path("all.tsv"))


def members(fold, split, condition):
    return {r.subject for r in fold if r.split == split and r.condition == condition}


def test_each_fold_has_what_was_asked_for():
    folds = make_folds(table(), PLAN)
    assert len(folds) == 3
    for fold in folds:
        counts = Counter((r.split, r.condition) for r in fold)
        assert counts == {
            ("train", "healthy"): 40 - 10 - 4,
            ("val", "healthy"): 4,
            ("test", "healthy"): 10,
            ("train", "tumour"): 6,
            ("val", "tumour"): 2,
            ("test", "tumour"): 22,
            ("val", "stroke"): 3,
            ("test", "stroke"): 17,
        }


def test_folds_share_tests_and_annotated_sets_but_no_healthy_validation():
    folds = make_folds(table(), PLAN)
    for split, condition in (("test", "healthy"), ("train", "tumour"), ("val", "tumour"), ("test", "stroke")):
        assert len({frozenset(members(fold, split, condition)) for fold in folds}) == 1
    validated = [members(fold, "val", "healthy") for fold in folds]
    assert len(set().union(*validated)) == 3 * 4
    for fold, own in zip(folds, validated, strict=True):
        others = set().union(*validated) - own
        assert others < members(fold, "train", "healthy"), "who validates another fold is learned from"


def test_groups_are_balanced_over_site_and_age():
    test = [r for r in make_folds(table(healthy=80), PLAN)[0] if r.split == "test" and r.is_healthy]
    assert Counter(r.site for r in test) == {"A": 5, "B": 5}
    assert 2 <= sum(r.age < 60 for r in test) <= 8


def test_the_seed_draws_and_neither_order_nor_earlier_splits_matter():
    manifest = table()
    turned = Manifest(tuple(replace(r, split="test") for r in reversed(manifest.records)))
    drawn = [members(make_folds(m, PLAN)[1], "val", "healthy") for m in (manifest, turned)]
    assert drawn[0] == drawn[1]
    other = make_folds(manifest, replace(PLAN, seed=1))
    assert members(other[1], "val", "healthy") != drawn[0]


def test_scans_without_annotation_are_not_used_and_diseases_without_numbers_test():
    more = people(5, "ms") + [replace(r, subject=f"x{r.subject}") for r in people(4, "tumour", lesion=False)]
    (fold, *_) = make_folds(table(more=more), PLAN)
    assert len(members(fold, "test", "ms")) == 5
    assert not [r for r in fold if r.subject.startswith("x")]


@settings(max_examples=60, deadline=None)
@given(sizes=st.lists(st.integers(0, 30), min_size=1, max_size=8), seed=st.integers(0, 100))
def test_groups_have_exactly_their_sizes(sizes, seed):
    rows = Manifest(tuple(people(sum(sizes), "healthy")))
    named = {str(number): size for number, size in enumerate(sizes)}
    found = draw_groups(rows, named, seed)
    assert set(found) == set(rows.subjects())
    assert Counter(found.values()) == {name: size for name, size in named.items() if size}


@pytest.mark.parametrize(
    ("rows", "plan", "words"),
    [
        (table(healthy=22), PLAN, "need more healthy subjects, got 22, of which 0 remain for training in 'all.tsv'"),
        (table(healthy=0), PLAN, "need more healthy subjects, got 0"),
        (table(tumour=8), PLAN, "6 training and 2 validation subjects with tumour need more annotated subjects, got 8"),
        (table(), replace(PLAN, weak={"tumor": (1, 1)}), "got tumor in 'all.tsv'; did you mean 'tumour'?"),
        (table(), replace(PLAN, weak={"brats": (1, 1)}), "known: stroke, tumour"),
        (
            table(more=[replace(people(1, "healthy")[0], subject="tumour003", session="2")]),
            PLAN,
            r"a subject of a fold must have one condition, got tumour003 \(healthy, tumour\)",
        ),
    ],
)
def test_what_cannot_be_split_is_said_in_one_line(rows, plan, words):
    with pytest.raises(DataError, match=words) as caught:
        make_folds(rows, plan)
    assert "\n" not in str(caught.value)
