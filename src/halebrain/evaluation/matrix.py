"""One table from the runs of many methods: methods in rows, diseases in columns, seen and unseen apart; its files."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np

from halebrain.evaluation.evaluate import Row
from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.statistics import SHARE, Interval, bootstrap_mean, holm, means_by_key, paired_test
from halebrain.evaluation.tables import with_interval
from halebrain.io.tables import MISSING, number_cell, tsv_text

HEALTHY = "healthy"
Published = Mapping[str, Mapping[str, tuple[float, float]]]
"""Row title → column → (⌈Dice⌉, AUPRC) in %."""


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
        best_dice: ⌈Dice⌉ of each scan at the threshold best for it, mean over scans, over runs: what the published code
            of Behrendt et al. 2024 prints.
        run_auprc: AUPRC of each scan, mean over scans, over runs: the same.
        pooled_best_dice: ⌈Dice⌉ over all voxels of the set at the one threshold best for it, over runs.
        pooled_auprc: AUPRC over all voxels of the set, over runs.
        auprc: Mean over scans, each averaged over runs, with its interval over subjects.
        dice: The same at the threshold frozen on validation scans.
        difference: Median over subjects of AUPRC minus the reference's; NaN for the reference itself.
        p_holm: Wilcoxon's test of that difference, corrected for the rows of the column.
        seen: Whether the method learned from this disease.
    """

    best_dice: Spread
    run_auprc: Spread
    pooled_best_dice: Spread
    pooled_auprc: Spread
    auprc: Interval
    dice: Interval
    difference: float
    p_holm: float
    seen: bool


@dataclass(frozen=True)
class MatrixRow:
    """One method, trained in one way: its column → entry, and false-positive voxels of healthy brains, in [0, 1]."""

    title: str
    block: str
    trained_on: str
    n_annotated: int | None
    n_runs: int
    entries: dict[str, MatrixEntry] = field(default_factory=dict)
    false_positive_rate: Interval | None = None


def build_matrix(runs: Iterable[MethodRun], columns: Sequence[str], *, reference: str) -> list[MatrixRow]:
    """Return the table's rows, in the order in which their first runs come; all are tested against `reference`."""
    by_title: dict[str, list[MethodRun]] = {}
    for run in runs:
        by_title.setdefault(run.title, []).append(run)
    tests = {column: _tests(by_title, column, reference) for column in columns}
    table = []
    for title, own in by_title.items():
        entries = {
            column: _entry(own, column, tests[column].get(title, (float("nan"), float("nan"))))
            for column in columns
            if any(column in run.pooled for run in own)
        }
        first = own[0]
        specificity = _per_scan(own, "specificity", HEALTHY)
        rate = None
        if specificity:
            rates = [1 - value for value in specificity.values()]
            rate = bootstrap_mean(rates, [subject for _, subject in specificity], seed=0, bounds=SHARE)
        table.append(
            MatrixRow(title, first.block, first.trained_on, first.n_annotated, len(own), entries, rate),
        )
    return table


def _entry(own: list[MethodRun], column: str, test: tuple[float, float]) -> MatrixEntry:
    pooled = [run.pooled[column] for run in own if column in run.pooled]
    means = []
    for metric in ("auprc", "dice"):
        values = _per_scan(own, metric, column)
        subjects = [subject for _, subject in values]
        means.append(bootstrap_mean(list(values.values()), subjects, seed=0, bounds=METRICS.get(metric).bounds))
    return MatrixEntry(
        best_dice=_spread(_run_means(own, "dice_oracle_per_scan", column)),
        run_auprc=_spread(_run_means(own, "auprc", column)),
        pooled_best_dice=_spread([p["dice_oracle_set"] for p in pooled]),
        pooled_auprc=_spread([p["auprc"] for p in pooled]),
        auprc=means[0],
        dice=means[1],
        difference=test[0],
        p_holm=test[1],
        seen=column in own[0].trained_on.split(" + "),
    )


def _run_means(own: list[MethodRun], metric: str, pathology: str) -> list[float]:
    """Return the mean over the scans of a column for each run that has one; undefined values are left out."""
    values = [
        [
            row.value
            for row in run.rows
            if row.metric == metric and row.pathology == pathology and not np.isnan(row.value)
        ]
        for run in own
    ]
    return [float(np.mean(found)) for found in values if found]


def _per_scan(own: list[MethodRun], metric: str, pathology: str) -> dict[tuple[str, str], float]:
    """Return (scan, subject) → value, averaged over the runs that include the scan."""
    return means_by_key(
        ((row.scan_id, row.subject), row.value)
        for run in own
        for row in run.rows
        if row.metric == metric and row.pathology == pathology
    )


def _tests(by_title: dict[str, list[MethodRun]], column: str, reference: str) -> dict[str, tuple[float, float]]:
    """Return title → median difference to the reference over subjects, and its corrected p-value."""
    base = _per_subject(by_title.get(reference, []), column)
    tests = {title: paired_test(_per_subject(own, column), base) for title, own in by_title.items()}
    found = {title: (test[0], test[2]) for title, test in tests.items() if test is not None and title != reference}
    corrected = holm([p for _, p in found.values()])
    return {t: (difference, p) for (t, (difference, _)), p in zip(found.items(), corrected, strict=True)}


def _per_subject(own: list[MethodRun], column: str) -> dict[str, float]:
    values = _per_scan(own, "auprc", column)
    return means_by_key((subject, value) for (_, subject), value in values.items() if not np.isnan(value))


def _spread(values: list[float]) -> Spread:
    std = float(np.std(values, ddof=1)) if len(values) > 1 else float("nan")
    return Spread(float(np.mean(values)) if values else float("nan"), std, len(values))


def runs_tsv(runs: Iterable[MethodRun]) -> str:
    """Return every value of every test scan: fold and seed × row × scan × metric."""
    header = "run row block trained_on n_annotated scan subject pathology metric unit value"
    lines = [tuple(header.split())]
    for run in runs:
        count = MISSING if run.n_annotated is None else str(run.n_annotated)
        about = (run.run, run.title, run.block, run.trained_on, count)
        for row in run.rows:
            value = number_cell(row.value)
            lines.append((*about, row.scan_id, row.subject, row.pathology, row.metric, row.unit, value))
    return tsv_text(lines)


def matrix_tsv(table: Sequence[MatrixRow]) -> str:
    """Return one line a row and column of the matrix, with every figure."""
    lines: list[tuple[str, ...]] = [
        (
            *("row", "block", "trained_on", "n_annotated", "runs", "column", "seen"),
            *("best_dice_per_scan", "best_dice_per_scan_std", "auprc_per_scan", "auprc_per_scan_std"),
            *("pooled_best_dice", "pooled_best_dice_std", "pooled_auprc", "pooled_auprc_std"),
            *("auprc", "auprc_low", "auprc_high", "dice", "dice_low", "dice_high"),
            *("difference_to_reference", "p_holm", "healthy_false_positive_rate"),
        )
    ]
    for row in table:
        rate = number_cell(None if row.false_positive_rate is None else row.false_positive_rate.mean)
        count = MISSING if row.n_annotated is None else str(row.n_annotated)
        for column, e in row.entries.items():
            numbers = (
                *(e.best_dice.mean, e.best_dice.std, e.run_auprc.mean, e.run_auprc.std),
                *(e.pooled_best_dice.mean, e.pooled_best_dice.std, e.pooled_auprc.mean, e.pooled_auprc.std),
                *(e.auprc.mean, e.auprc.low, e.auprc.high, e.dice.mean, e.dice.low, e.dice.high),
                *(e.difference, e.p_holm),
            )
            about = (row.title, row.block, row.trained_on, count, str(row.n_runs), column, "yes" if e.seen else "no")
            lines.append((*about, *map(number_cell, numbers), rate))
    return tsv_text(lines)


def paper_rows(
    table: Sequence[MatrixRow], columns: Sequence[str], published: Published | None = None, *, pooled: bool = False
) -> tuple[list[str], list[list[str]]]:
    """Return header and cells in the form of the paper's Table 1: ⌈Dice⌉ / AUPRC in %.

    Both are means over scans, each at its own best threshold, as in the published code; with `pooled`, they are over
    all voxels of a set at one threshold. Cells of a disease that the method learned from carry a star; published
    figures stand in square brackets.
    """
    header = ["block", "method", "trained on", *columns, "healthy false positives [%]"]
    cells, block = [], ""
    for row in table:
        line = [row.block if row.block != block else "", row.title, row.trained_on]
        block = row.block
        for column in columns:
            entry = row.entries.get(column)
            text = "–"
            if entry is not None:
                each = (entry.pooled_best_dice, entry.pooled_auprc) if pooled else (entry.best_dice, entry.run_auprc)
                text = f"{_percent(each[0])} / {_percent(each[1])}{' ★' if entry.seen else ''}"
            known = (published or {}).get(row.title, {}).get(column)
            line.append(text + (f" [{known[0]:.1f} / {known[1]:.1f}]" if known else ""))
        rate = row.false_positive_rate
        line.append("–" if rate is None else f"{100 * rate.mean:.2f}")
        cells.append(line)
    return header, cells


def interval_rows(
    table: Sequence[MatrixRow], columns: Sequence[str], *, reference: str
) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the mean AUPRC over scans with intervals; * = differs from the reference."""
    header = ["method", *columns]
    cells = []
    for row in table:
        line = [row.title + (" (reference)" if row.title == reference else "")]
        for column in columns:
            entry = row.entries.get(column)
            if entry is None:
                line.append("–")
                continue
            star = "" if not entry.p_holm < 0.05 else (" *↑" if entry.difference > 0 else " *↓")
            line.append(with_interval(entry.auprc, digits=2) + (" ★" if entry.seen else "") + star)
        cells.append(line)
    return header, cells


def _percent(spread: Spread) -> str:
    if spread.n == 0:
        return "–"
    std = f" ± {100 * spread.std:.1f}" if spread.n > 1 else ""
    return f"{100 * spread.mean:.1f}{std}"
