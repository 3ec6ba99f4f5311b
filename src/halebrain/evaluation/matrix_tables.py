"""Result tables of a benchmark: tidy rows, one line per cell, and Markdown with the published figures."""

from collections.abc import Iterable, Mapping, Sequence

from halebrain.evaluation.matrix import MatrixRow, MethodRun, Spread
from halebrain.evaluation.tables import with_interval
from halebrain.io.tables import tsv_text

Published = Mapping[str, Mapping[str, tuple[float, float]]]
"""Row title → column → (⌈Dice⌉, AUPRC) in %."""


def runs_tsv(runs: Iterable[MethodRun]) -> str:
    """Return every value of every test scan: fold and seed × row × scan × metric."""
    header = (
        "run",
        "row",
        "block",
        "trained_on",
        "n_annotated",
        "scan",
        "subject",
        "pathology",
        "metric",
        "unit",
        "value",
    )
    lines = [header]
    for run in runs:
        count = "n/a" if run.n_annotated is None else str(run.n_annotated)
        about = (run.run, run.title, run.block, run.trained_on, count)
        for row in run.rows:
            lines.append((*about, row.scan_id, row.subject, row.pathology, row.metric, row.unit, f"{row.value:.6g}"))
    return tsv_text(lines)


def matrix_tsv(table: Sequence[MatrixRow]) -> str:
    """Return one line a row and column of the matrix, with every figure."""
    lines: list[tuple[str, ...]] = [
        (
            *("row", "block", "trained_on", "n_annotated", "runs", "column", "seen"),
            *("best_dice", "best_dice_std", "pooled_auprc", "pooled_auprc_std"),
            *("auprc", "auprc_low", "auprc_high", "dice", "dice_low", "dice_high"),
            *("difference_to_reference", "p_holm", "healthy_false_positive_rate"),
        )
    ]
    for row in table:
        rate = "n/a" if row.false_positive_rate is None else f"{row.false_positive_rate.mean:.6g}"
        count = "n/a" if row.n_annotated is None else str(row.n_annotated)
        for column, e in row.entries.items():
            numbers = (
                *(e.best_dice.mean, e.best_dice.std, e.pooled_auprc.mean, e.pooled_auprc.std),
                *(e.auprc.mean, e.auprc.low, e.auprc.high, e.dice.mean, e.dice.low, e.dice.high),
                *(e.difference, e.p_holm),
            )
            about = (row.title, row.block, row.trained_on, count, str(row.n_runs), column, "yes" if e.seen else "no")
            lines.append((*about, *(f"{value:.6g}" for value in numbers), rate))
    return tsv_text(lines)


def paper_rows(
    table: Sequence[MatrixRow], columns: Sequence[str], published: Published | None = None
) -> tuple[list[str], list[list[str]]]:
    """Return header and cells in the form of the paper's Table 1: ⌈Dice⌉ / AUPRC in %, over all voxels of a set.

    Cells of a disease that the method learned from carry a star; published figures stand in square brackets.
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
                text = f"{_percent(entry.best_dice)} / {_percent(entry.pooled_auprc)}{' ★' if entry.seen else ''}"
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


def to_markdown(header: Sequence[str], cells: Iterable[Sequence[str]]) -> str:
    """Return a Markdown table."""
    lines = [f"| {' | '.join(header)} |", "|" + "---|" * len(header)]
    lines += [f"| {' | '.join(_escaped(cell) for cell in row)} |" for row in cells]
    return "\n".join(lines) + "\n"


def _escaped(cell: str) -> str:
    return cell.replace("|", "\\|").replace("\n", " ")


def _percent(spread: Spread) -> str:
    std = f" ± {100 * spread.std:.1f}" if spread.n > 1 else ""
    return f"{100 * spread.mean:.1f}{std}"
