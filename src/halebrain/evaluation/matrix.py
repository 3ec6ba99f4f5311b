"""One table from the runs of many methods: methods in rows, diseases in columns, seen and unseen separate."""

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

import numpy as np
from scipy import stats

from halebrain.evaluation.evaluate import Row
from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.statistics import SHARE, Interval, bootstrap_mean, holm

HEALTHY = "healthy"


@dataclass(frozen=True)
class MethodRun:
    """One method, trained once and evaluated.

    Args:
        title: The row that it belongs to, unique a method and training.
        block: Heading of the row.
        trained_on: Pathologies or kind of anomalies that it learned from, joined by " + ".
        n_annotated: Annotated subjects that it learned from; `None` = all, or none needed.
        run: Name of fold and seed.
        rows: Metrics of the test scans; healthy ones are called "healthy".
        pooled: Column → {"auprc", "dice_oracle_set"} over all voxels together.
    """

    title: str
    block: str
    trained_on: str
    n_annotated: int | None
    run: str
    rows: Sequence[Row]
    pooled: dict[str, dict[str, float]]


@dataclass(frozen=True)
class Spread:
    """Mean and standard deviation over runs; the latter NaN with one run."""

    mean: float
    std: float
    n: int


@dataclass(frozen=True)
class MatrixEntry:
    """One method on one disease.

    Args:
        best_dice: ⌈Dice⌉ over all voxels at the threshold best for this set, over runs: the paper's number.
        pooled_auprc: AUPRC over all voxels, over runs: the paper's number.
        auprc: Mean over scans, each averaged over runs, with its interval over subjects.
        dice: The same at the threshold frozen on validation scans.
        difference: Median over subjects of AUPRC minus the reference's; NaN for the reference itself.
        p_holm: Wilcoxon's test of that difference, corrected for the rows of the column.
        seen: Whether the method learned from this disease.
    """

    best_dice: Spread
    pooled_auprc: Spread
    auprc: Interval
    dice: Interval
    difference: float
    p_holm: float
    seen: bool


@dataclass(frozen=True)
class MatrixRow:
    """One method, trained in one way.

    Args:
        title: The row.
        block: Its heading.
        trained_on: What it learned from.
        n_annotated: From how many annotated subjects; `None` = all.
        n_runs: Seeds and folds.
        entries: Column → what was found there.
        false_positive_rate: Fraction of false-positive voxels in healthy brains, with its interval.
    """

    title: str
    block: str
    trained_on: str
    n_annotated: int | None
    n_runs: int
    entries: dict[str, MatrixEntry] = field(default_factory=dict)
    false_positive_rate: Interval | None = None


def build_matrix(
    runs: Iterable[MethodRun], columns: Sequence[str], *, reference: str, seed: int = 0
) -> list[MatrixRow]:
    """Return the table's rows, in the order in which their first runs come.

    Args:
        runs: Every run of every method.
        columns: Diseases.
        reference: Title of the row that the others are tested against.
        seed: Of the bootstrap.
    """
    by_title: dict[str, list[MethodRun]] = {}
    for run in runs:
        by_title.setdefault(run.title, []).append(run)
    tests = {column: _tests(by_title, column, reference) for column in columns}
    table = []
    for title, own in by_title.items():
        entries = {
            column: _entry(own, column, tests[column].get(title, (float("nan"), float("nan"))), seed)
            for column in columns
            if any(column in run.pooled for run in own)
        }
        first = own[0]
        specificity = _per_scan(own, "specificity", HEALTHY)
        rate = None
        if specificity:
            rates = [1 - value for value in specificity.values()]
            rate = bootstrap_mean(rates, [subject for _, subject in specificity], seed=seed, bounds=SHARE)
        table.append(
            MatrixRow(title, first.block, first.trained_on, first.n_annotated, len(own), entries, rate),
        )
    return table


def _entry(own: list[MethodRun], column: str, test: tuple[float, float], seed: int) -> MatrixEntry:
    pooled = [run.pooled[column] for run in own if column in run.pooled]
    means = []
    for metric in ("auprc", "dice"):
        values = _per_scan(own, metric, column)
        subjects = [subject for _, subject in values]
        means.append(bootstrap_mean(list(values.values()), subjects, seed=seed, bounds=METRICS.get(metric).bounds))
    return MatrixEntry(
        best_dice=_spread([p["dice_oracle_set"] for p in pooled]),
        pooled_auprc=_spread([p["auprc"] for p in pooled]),
        auprc=means[0],
        dice=means[1],
        difference=test[0],
        p_holm=test[1],
        seen=column in own[0].trained_on.split(" + "),
    )


def _per_scan(own: list[MethodRun], metric: str, pathology: str) -> dict[tuple[str, str], float]:
    """Return (scan, subject) → value, averaged over the runs that include the scan."""
    found: dict[tuple[str, str], list[float]] = {}
    for run in own:
        for row in run.rows:
            if row.metric == metric and row.pathology == pathology:
                found.setdefault((row.scan_id, row.subject), []).append(row.value)
    return {key: float(np.mean(values)) for key, values in found.items()}


def _tests(by_title: dict[str, list[MethodRun]], column: str, reference: str) -> dict[str, tuple[float, float]]:
    """Return title → median difference to the reference over subjects, and its corrected p-value."""
    base = _per_subject(by_title.get(reference, []), column)
    found: dict[str, tuple[float, float]] = {}
    for title, own in by_title.items():
        values = _per_subject(own, column)
        both = [subject for subject in values if subject in base]
        difference = np.array([values[s] - base[s] for s in both])
        difference = difference[~np.isnan(difference)]
        if title == reference or difference.size == 0:
            continue
        p = float(stats.wilcoxon(difference).pvalue) if difference.any() else 1.0
        found[title] = (float(np.median(difference)), p)
    corrected = holm([p for _, p in found.values()])
    return {t: (difference, p) for (t, (difference, _)), p in zip(found.items(), corrected, strict=True)}


def _per_subject(own: list[MethodRun], column: str) -> dict[str, float]:
    found: dict[str, list[float]] = {}
    for (_, subject), value in _per_scan(own, "auprc", column).items():
        found.setdefault(subject, []).append(value)
    return {subject: float(np.mean(values)) for subject, values in found.items()}


def _spread(values: list[float]) -> Spread:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Spread(float(np.mean(values)), std, len(values))
