"""Folds of a benchmark: one test set, a validation set of healthy subjects for each fold, and small annotated sets.

The protocol of Behrendt et al., MIDL 2024: healthy subjects of the test set are the same in each fold, those of
validation are others in each, and the rest is learned from. Of each disease, a small set is annotated for training and
validation, the same in each fold, and all others are test subjects.
"""

from collections.abc import Mapping
from dataclasses import dataclass, replace

from halebrain.core.errors import DataError
from halebrain.core.registry import suggestion
from halebrain.core.wording import counted
from halebrain.data.splits import draw_groups
from halebrain.io.manifest import Manifest, ScanRecord


@dataclass(frozen=True)
class FoldPlan:
    """How many subjects are used for what.

    Args:
        folds: Number of folds.
        val: Healthy validation subjects of each fold; no two folds share one.
        test: Healthy test subjects, the same in each fold.
        weak: Disease → annotated subjects for training and for validation; the others are test subjects.
        seed: Random seed of the assignment.
    """

    folds: int
    val: int
    test: int
    weak: Mapping[str, tuple[int, int]]
    seed: int = 0


def make_folds(manifest: Manifest, plan: FoldPlan) -> list[Manifest]:
    """Return the manifest of each fold, whatever splits the scans had; each subject is in one split of a fold.

    Healthy and annotated scans only, see `usable`. Subjects of each group are balanced over site and age.

    Raises:
        DataError: There are too few subjects for a group to have its number and for one to remain; a disease has no
            annotated scan; or a person is healthy in one scan and ill in another.
    """
    rows = usable(manifest)
    _check_conditions(rows)
    healthy = rows.select(lambda record: record.is_healthy)
    found = len(healthy.subjects())
    needed = plan.folds * plan.val + plan.test
    if found <= needed:
        raise DataError(
            f"{plan.folds} folds of {plan.val} validation and {plan.test} test subjects need more healthy subjects",
            received=f"{found}, of which {max(found - needed, 0)} remain for training",
            where=manifest.where,
            remedy="lower --folds, --val or --test, or add subjects",
        )
    groups = {f"val {fold}": plan.val for fold in range(plan.folds)}
    drawn = draw_groups(healthy, {"test": plan.test, **groups, "train": found - needed}, plan.seed)
    weak = _weak_splits(rows, plan, manifest)

    def split(record: ScanRecord, fold: int) -> str:
        if record.is_healthy:
            group = drawn[record.subject]
            return "test" if group == "test" else "val" if group == f"val {fold}" else "train"
        return weak.get(record.subject, "test")

    return [
        replace(rows, records=tuple(replace(record, split=split(record, fold)) for record in rows))
        for fold in range(plan.folds)
    ]


def usable(manifest: Manifest) -> Manifest:
    """Return the scans that can be judged: healthy ones and annotated ones."""
    return manifest.select(is_usable)


def is_usable(record: ScanRecord) -> bool:
    """Return whether a scan can be judged: what it shows is declared, as healthy or by a mask."""
    return record.is_healthy or record.is_annotated


def _check_conditions(rows: Manifest) -> None:
    conditions: dict[str, set[str]] = {}
    for record in rows:
        conditions.setdefault(record.subject, set()).add(record.condition)
    mixed = sorted(subject for subject, found in conditions.items() if len(found) > 1)
    if mixed:
        raise DataError(
            "a subject of a fold must have one condition",
            received=f"{mixed[0]} ({', '.join(sorted(conditions[mixed[0]]))})",
            where=rows.where,
            remedy="give the subjects of different data sets different names, or correct the column pathology",
        )


def _weak_splits(rows: Manifest, plan: FoldPlan, manifest: Manifest) -> dict[str, str]:
    """Return subject → "train" or "val" of the small annotated sets."""
    there = sorted({record.condition for record in rows if not record.is_healthy})
    splits: dict[str, str] = {}
    for name, (train, val) in plan.weak.items():
        own = rows.select(lambda record, name=name: not record.is_healthy and record.condition == name)  # type: ignore[misc]
        if name not in there:
            raise DataError(
                "a disease of --weak needs annotated scans",
                received=name,
                where=manifest.where,
                remedy=suggestion(name, there) if there else "add its data set, or remove it",
            )
        found = len(own.subjects())
        if found <= train + val:
            raise DataError(
                f"{train} training and {val} validation subjects with {name} need more annotated subjects",
                received=f"{found}, of which {max(found - train - val, 0)} remain for testing",
                where=manifest.where,
                remedy=f"lower --weak {name}={train}:{val}, or add subjects",
            )
        drawn = draw_groups(own, {"train": train, "val": val, "test": found - train - val}, plan.seed)
        splits |= {subject: group for subject, group in drawn.items() if group != "test"}
    return splits


def unused_notes(count: int) -> list[str]:
    """Return a line about scans that are neither healthy nor annotated, where there is one."""
    if count == 0:
        return []
    return [f"{counted(count, 'scan')} neither healthy nor annotated {'is' if count == 1 else 'are'} left out"]


def fold_notes(manifest: Manifest, plan: FoldPlan) -> list[str]:
    """Return what is left out or used for testing only, one line each."""
    notes = unused_notes(len(manifest) - len(usable(manifest)))
    others: dict[str, set[str]] = {}
    for record in usable(manifest):
        if not record.is_healthy and record.condition not in plan.weak:
            others.setdefault(record.condition, set()).add(record.subject)
    for name, subjects in sorted(others.items()):
        notes.append(f"{name} is not in --weak: its {counted(len(subjects), 'subject')} are for testing only")
    return notes
