"""Splits by subject, balanced over site, age and disease.

A split is a function of the subjects and the seed alone: neither the order of rows nor the number of scans of a subject
changes it. Small subsets that lie within each other (n-shot training) come from `Manifest.subset`.
"""

import hashlib
import math
from collections import defaultdict
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace

from halebrain.core.errors import ConfigError, DataError, UsageError
from halebrain.core.registry import suggestion
from halebrain.io.manifest import SPLITS, Manifest, ScanRecord

_MAX_BLOCK = 10


def assign_splits(manifest: Manifest, fractions: Mapping[str, float], seed: int) -> Manifest:
    """Return the manifest with each subject in one split, whatever splits it had.

    Subjects of one site and pathology are sorted by age and assigned in small blocks of neighbours, in an order that
    the seed draws within each block. So each split has its share of every site, pathology and age, to within a few.

    Args:
        manifest: The scans.
        fractions: Share of the subjects in each split, `{"train": 0.7, "val": 0.1, "test": 0.2}`; together 1.
        seed: Random seed of the assignment.

    Raises:
        ConfigError: A split is unknown, or the fractions are no shares that add up to 1.
        DataError: There are too few subjects for a split to have any.
    """
    _check_fractions(fractions)
    shares = {name: fractions[name] for name in SPLITS if fractions.get(name, 0) > 0}
    subjects = _dealt(_subjects(manifest.records), seed=seed, block=_block(min(shares.values())))
    given: dict[str, str] = {}
    counts = dict.fromkeys(shares, 0)
    for place, subject in enumerate(subjects, start=1):
        name = max(shares, key=lambda split: shares[split] * place - counts[split])
        counts[name] += 1
        given[subject] = name
    lacking = [name for name in shares if not counts[name]]
    if lacking:
        raise DataError(
            "every split needs a subject",
            received=f"{len(subjects)} subjects, none for {', '.join(lacking)}",
            where=manifest.where,
            remedy="give it a larger fraction or remove it",
        )
    return replace(manifest, records=tuple(replace(r, split=given[r.subject]) for r in manifest.records))


def draw_groups(manifest: Manifest, sizes: Mapping[str, int], seed: int) -> dict[str, str]:
    """Return subject → group, groups of exactly these sizes, each with its share of every site, pathology and age.

    Args:
        manifest: The scans; it must have as many subjects as the groups together.
        sizes: Number of subjects in each group.
        seed: Random seed of the assignment.
    """
    given: dict[str, str] = {}
    left, total = dict(sizes), sum(sizes.values())
    if not total:
        return given
    smallest = min(size for size in sizes.values() if size)
    subjects = _dealt(_subjects(manifest.records), seed=seed, block=_block(smallest / total))
    for place, subject in enumerate(subjects, start=1):
        # The group that is furthest behind its share of the subjects so far.
        behind = {name: size * place / total - (size - left[name]) for name, size in sizes.items() if left[name]}
        given[subject] = name = max(behind, key=lambda group: behind[group])
        left[name] -= 1
    return given


def _block(smallest: float) -> int:
    """Return how many neighbours in age are assigned together, for groups of which the smallest has this share."""
    return min(_MAX_BLOCK, math.ceil(1 / smallest))


@dataclass(frozen=True)
class _Subject:
    name: str
    stratum: tuple[str, str]
    age: float | None


def _subjects(records: Sequence[ScanRecord]) -> list[_Subject]:
    """Return each subject once, with its disease and site as stratum and its mean age."""
    rows: dict[str, list[ScanRecord]] = defaultdict(list)
    for record in records:
        rows[record.subject].append(record)
    subjects = []
    for name, own in sorted(rows.items()):
        ages = sorted(record.age for record in own if record.age is not None)
        stratum = (_joined(record.pathology for record in own), _joined(record.site for record in own))
        subjects.append(_Subject(name, stratum, math.fsum(ages) / len(ages) if ages else None))
    return subjects


def _joined(values: Iterator[str | None]) -> str:
    return "+".join(sorted({value or "" for value in values}))


def _dealt(subjects: Sequence[_Subject], *, seed: int, block: int) -> list[str]:
    """Return the subjects in the order of assignment: stratum by stratum, young to old in blocks."""
    strata: dict[tuple[str, str], list[_Subject]] = defaultdict(list)
    for subject in subjects:
        strata[subject.stratum].append(subject)
    order = []
    # The strata too come in a drawn order, or the subjects of a small one would go to the same split for every seed.
    for stratum in sorted(strata, key=lambda key: _draw(seed, *key)):
        by_age = sorted(strata[stratum], key=lambda s: (s.age is None, s.age or 0.0, _draw(seed, "age", s.name)))
        for start in range(0, len(by_age), block):
            order += sorted((s.name for s in by_age[start : start + block]), key=lambda name: _draw(seed, name))
    return order


def _draw(seed: int, *names: str) -> bytes:
    return hashlib.sha256("\t".join((str(seed), *names)).encode()).digest()


def read_fractions(text: str) -> dict[str, float]:
    """Return the shares of train, val and test of "0.7,0.1,0.2".

    Raises:
        UsageError: They are not three numbers.
        ConfigError: They are no shares that add up to 1.
    """
    example = "for example 0.7,0.1,0.2"
    try:
        shares = [float(share) for share in text.split(",")]
    except ValueError as error:
        raise UsageError("--split takes numbers", received=repr(text), remedy=example) from error
    if len(shares) != len(SPLITS):
        raise UsageError("--split takes three fractions: train,val,test", received=repr(text), remedy=example)
    fractions = dict(zip(SPLITS, shares, strict=True))
    _check_fractions(fractions)
    return fractions


def _check_fractions(fractions: Mapping[str, float]) -> None:
    for name, value in fractions.items():
        if name not in SPLITS:
            remedy = suggestion(name, list(SPLITS))
            raise ConfigError("a split must be a known one", received=repr(name), where="fractions", remedy=remedy)
        if not 0 <= value <= 1:
            raise ConfigError(
                "a fraction must be from 0 to 1",
                received=f"{name}: {value}",
                where="fractions",
                remedy="for example 0.7,0.1,0.2",
            )
    total = math.fsum(fractions.values())
    if not math.isclose(total, 1, abs_tol=1e-6):
        raise ConfigError(
            "the fractions must add up to 1", received=f"{total:g}", where="fractions", remedy="for example 0.7,0.1,0.2"
        )
