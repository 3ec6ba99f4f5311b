"""Folds: from the tables of prepared data sets to one table for each fold of a benchmark."""

import re
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from halebrain.core.errors import CannotWriteError, MissingInputError, UsageError
from halebrain.core.files import atomic_folder
from halebrain.data.folds import FoldPlan, fold_notes, make_folds
from halebrain.io.manifest import SPLITS, Manifest, ScanRecord
from halebrain.io.manifest_sidecar import Origin, write_sidecar
from halebrain.workflows.settings import FoldSettings

_WEAK = re.compile(r"(?P<name>[^=:,]+)=(?P<train>\d+):(?P<val>\d+)")
_TABLE = re.compile(r"fold(\d+)\.tsv")


@dataclass(frozen=True)
class FoldTables:
    """The tables of the folds.

    Args:
        tables: One for each fold, in order.
        subjects: For each fold, split → condition → number of subjects.
        notes: What is left out or used for testing only.
    """

    tables: list[Path]
    subjects: list[dict[str, dict[str, int]]]
    notes: list[str]


def write_folds(output: Path, settings: FoldSettings) -> FoldTables:
    """Write `fold0.tsv`, `fold1.tsv` … in a new folder, each with the scans of all tables and their splits.

    Raises:
        UsageError: A value of `weak` is not DISEASE=TRAIN:VAL, or a disease comes twice.
        DataError: There are too few subjects, or a scan stands in two tables.
        CannotWriteError: The folder exists, and `overwrite` is not set or it holds other things.
    """
    plan = FoldPlan(settings.folds, settings.val, settings.test, _parse_weak(settings.weak), settings.seed)
    if not settings.manifests:
        raise UsageError("folds need at least one table of scans", remedy="give --manifest")
    _check_output(output, overwrite=settings.overwrite)
    rows: list[ScanRecord] = []
    for path in dict.fromkeys(settings.manifests):
        table = Manifest.read(path)
        if any(record.split is not None for record in table):
            settings.notify(f"warning: the splits of {path} are replaced")
        rows += (replace(record, split=None) for record in table)
    together = ", ".join(map(str, settings.manifests))
    manifest = Manifest(tuple(rows), source=Path(together))
    folds, notes = make_folds(manifest, plan), fold_notes(manifest, plan)
    for note in notes:
        settings.notify(f"warning: {note}")
    with atomic_folder(output, overwrite=settings.overwrite) as folder:
        for number, fold in enumerate(folds):
            path = folder / f"fold{number}.tsv"
            fold.write(path)
            write_sidecar(fold, path, Origin(split_seed=plan.seed, fold=f"{number + 1} of {plan.folds}"))
    tables = [output / f"fold{number}.tsv" for number in range(plan.folds)]
    return FoldTables(tables, [_count(fold) for fold in folds], notes)


def fold_tables(folder: Path) -> list[Path]:
    """Return the tables of a folder of `halebrain folds`, in order.

    Raises:
        MissingInputError: There is none, or one between them is missing.
    """
    found = {int(match[1]): path for path in folder.glob("fold*.tsv") if (match := _TABLE.fullmatch(path.name))}
    if not found or sorted(found) != list(range(len(found))):
        raise MissingInputError(
            "a folder of folds must hold fold0.tsv, fold1.tsv …",
            received=", ".join(found[number].name for number in sorted(found)) or "none",
            where=folder,
            remedy="make it with halebrain folds",
        )
    return [found[number] for number in sorted(found)]


def _parse_weak(texts: Sequence[str]) -> dict[str, tuple[int, int]]:
    weak: dict[str, tuple[int, int]] = {}
    for text in texts:
        match = _WEAK.fullmatch(text.strip())
        if match is None:
            raise UsageError(
                "--weak takes DISEASE=TRAIN:VAL", received=repr(text), remedy="for example --weak tumour=90:10"
            )
        if match["name"] in weak:
            raise UsageError("--weak takes each disease once", received=match["name"], remedy="remove one of them")
        if match["name"] == "healthy":
            raise UsageError("--weak is for diseases", received="healthy", remedy="use --val and --test")
        weak[match["name"]] = int(match["train"]), int(match["val"])
    return weak


def _check_output(output: Path, *, overwrite: bool) -> None:
    """Refuse to replace a folder that holds anything but folds."""
    if not output.exists():
        return
    if not overwrite:
        raise CannotWriteError("the output must not exist yet", where=output, remedy="choose another or --overwrite")
    others = sorted(path.name for path in output.iterdir() if not re.fullmatch(r"fold\d+\.(tsv|json)", path.name))
    if others:
        raise CannotWriteError(
            "--overwrite replaces a folder of folds only", received=others[0], where=output, remedy="choose another"
        )


def _count(fold: Manifest) -> dict[str, dict[str, int]]:
    people = {(record.split or "", record.condition, record.subject) for record in fold}
    counts = Counter((split, condition) for split, condition, _ in people)
    return {
        split: {condition: number for (own, condition), number in sorted(counts.items()) if own == split}
        for split in SPLITS
    }
