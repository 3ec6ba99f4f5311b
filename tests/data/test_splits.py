import random
from collections import Counter
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from halebrain.core.errors import ConfigError, DataError
from halebrain.data.splits import assign_splits
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
)
def test_any_cohort_is_dealt_out_evenly(ages, sites, seed):
    rows = tuple(
        ScanRecord(f"{n}", Path(f"{n}.nii"), "T1w", age=a, site=s)
        for n, (a, s) in enumerate(zip(ages, sites, strict=False))
    )
    counts = Counter(splits_of(assign_splits(Manifest(rows), THIRDS, seed=seed)).values())
    assert all(abs(counts[name] - share * len(rows)) < 1 for name, share in THIRDS.items())


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
