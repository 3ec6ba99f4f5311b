import random
from collections import Counter
from dataclasses import replace
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halebrain.core.errors import ConfigError, DataError
from halebrain.data.splits import assign_splits, check_disjoint, make_folds
from halebrain.io.manifest import Manifest, ScanRecord

THIRDS = {"train": 0.6, "val": 0.2, "test": 0.2}


def cohort(count=60, *, sites=("A", "B", "C"), scans=2):
    return Manifest(
        tuple(
            ScanRecord(
                subject=f"{n:03}",
                image=Path(f"{n}_{modality}.nii.gz"),
                modality=modality,
                site=sites[n % len(sites)],
                age=20.0 + n,
                pathology="healthy" if n % 4 else "ms",
            )
            for n in range(count)
            for modality in ("T1w", "FLAIR")[:scans]
        )
    )


def splits_of(manifest):
    return {record.subject: record.split for record in manifest}


def test_every_subject_is_in_one_split_and_the_shares_are_met():
    result = assign_splits(cohort(), THIRDS, seed=1)
    assert len(result) == 120
    assert Counter(splits_of(result).values()) == {"train": 36, "val": 12, "test": 12}


def test_sites_pathologies_and_ages_are_spread_over_the_splits():
    result = assign_splits(cohort(240), THIRDS, seed=1)
    subjects = {r.subject: r for r in result}.values()
    for of in (lambda r: r.site, lambda r: r.pathology, lambda r: r.age // 60):
        groups = Counter(of(r) for r in subjects)
        for split, share in THIRDS.items():
            there = Counter(of(r) for r in subjects if r.split == split)
            # Groups are cut into strata, each of which is dealt out to within two subjects.
            assert all(abs(there[group] - share * size) <= 8 for group, size in groups.items())


def test_the_seed_draws_and_the_order_of_rows_and_scans_does_not():
    manifest = cohort()
    rows = list(manifest.records)
    random.Random(0).shuffle(rows)
    first = splits_of(assign_splits(manifest, THIRDS, seed=1))
    assert splits_of(assign_splits(Manifest(tuple(rows)), THIRDS, seed=1)) == first
    assert splits_of(assign_splits(cohort(scans=1), THIRDS, seed=1)) == first
    assert splits_of(assign_splits(assign_splits(manifest, THIRDS, seed=2), THIRDS, seed=1)) == first
    assert splits_of(assign_splits(manifest, THIRDS, seed=2)) != first


def test_a_subject_alone_at_its_site_goes_elsewhere_with_another_seed():
    manifest = cohort(20, sites=[f"site{n}" for n in range(20)])
    assert {splits_of(assign_splits(manifest, THIRDS, seed=s))["000"] for s in range(20)} == {"train", "val", "test"}


@settings(max_examples=60, deadline=None)
@given(
    ages=st.lists(st.one_of(st.none(), st.floats(0, 100)), min_size=5, max_size=40),
    sites=st.lists(st.sampled_from([None, "A", "B"]), min_size=40, max_size=40),
    seed=st.integers(0, 2**32),
    k=st.integers(2, 5),
)
def test_any_cohort_is_dealt_out_evenly(ages, sites, seed, k):
    rows = tuple(
        ScanRecord(f"{n}", Path(f"{n}.nii"), "T1w", age=a, site=s)
        for n, (a, s) in enumerate(zip(ages, sites, strict=False))
    )
    counts = Counter(splits_of(assign_splits(Manifest(rows), THIRDS, seed=seed)).values())
    assert all(abs(counts[name] - share * len(rows)) < 1 for name, share in THIRDS.items())
    folds = make_folds(Manifest(rows), k, seed)
    tested = [r.subject for fold in folds for r in fold if r.split == "val"]
    assert sorted(tested) == sorted(r.subject for r in rows)
    sizes = [len(fold.split("val")) for fold in folds]
    assert max(sizes) - min(sizes) <= 1


def test_folds_keep_the_test_subjects_out_and_do_not_depend_on_order():
    manifest = assign_splits(cohort(), THIRDS, seed=1)
    folds = make_folds(manifest, 5, seed=3)
    assert all(fold.split("test").records == manifest.split("test").records for fold in folds)
    assert sorted(s for fold in folds for s in fold.split("val").subjects()) == sorted(
        {*manifest.split("train").subjects(), *manifest.split("val").subjects()}
    )
    backwards = make_folds(Manifest(manifest.records[::-1]), 5, seed=3)
    assert [splits_of(f) for f in backwards] == [splits_of(f) for f in folds]
    assert [splits_of(f) for f in make_folds(manifest, 5, seed=4)] != [splits_of(f) for f in folds]


def test_a_subject_or_an_image_in_two_manifests_is_a_leak_that_names_it():
    manifest = assign_splits(cohort(), THIRDS, seed=1)
    train, test = manifest.split("train"), manifest.split("test")
    check_disjoint({"training": train, "test": test})
    leaked = train.records[0]
    with pytest.raises(DataError, match=rf"training and test .* {leaked.subject} "):
        check_disjoint({"training": train, "test": Manifest((*test.records, replace(leaked, split="test")))})
    renamed = replace(leaked, subject="other", split="test")
    with pytest.raises(DataError, match="other"):
        check_disjoint({"training": train, "test": Manifest((*test.records, renamed))})


@pytest.mark.parametrize(
    ("fractions", "kind", "word"),
    [
        ({"train": 0.5, "tset": 0.5}, ConfigError, "did you mean 'test'"),
        ({"train": 0.5, "test": 0.4}, ConfigError, "add up to 1, got 0.9"),
        ({"train": 1.5, "test": -0.5}, ConfigError, "from 0 to 1"),
        ({"train": float("nan")}, ConfigError, "from 0 to 1"),
        ({}, ConfigError, "add up to 1"),
        ({"train": 0.98, "test": 0.02}, DataError, "none for test"),
    ],
)
def test_refuses_shares_that_cannot_be_met(fractions, kind, word):
    with pytest.raises(kind) as caught:
        assign_splits(cohort(10), fractions, seed=0)
    assert word in str(caught.value)


def test_refuses_folds_that_cannot_be_made():
    with pytest.raises(ConfigError, match="at least 2"):
        make_folds(cohort(), 1, seed=0)
    with pytest.raises(DataError, match="3 subjects for 4 folds"):
        make_folds(cohort(3), 4, seed=0)
