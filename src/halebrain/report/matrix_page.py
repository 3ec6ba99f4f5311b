"""The page of a benchmark: the table of results, seen and unseen diseases, number of annotations, example pictures."""

from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from halebrain.core.wording import counted
from halebrain.evaluation.contrasts import TEST, ContrastResult, contrast_rows
from halebrain.evaluation.matrix import MatrixRow, Published, interval_rows, paper_rows
from halebrain.evaluation.statistics import SUBJECT_INTERVAL
from halebrain.report.figures import INK, new_figure, radiological, save_figure, style
from halebrain.report.page import Page, Section, write_page

Pictures = Mapping[str, npt.NDArray[np.floating]]
"""Slices `(i, j)` by "image|column", "lesion|column" and "row title|column"."""
_FORM = (
    "As in the published code of the paper: ⌈Dice⌉ / AUPRC in % of each scan, mean over scans, then mean ± standard "
    "deviation over runs. "
    "⌈Dice⌉ stands at the threshold that is best for each test scan: an upper bound, not a result. "
    "★ = the method learned from this disease. False positives: share of the voxels of healthy test brains above "
    "the threshold that was best on validation scans."
)
_POOLED = (
    "The same over all voxels of a set together, with the one threshold that is best for the set. The paper does not "
    "say which of the two its table has."
)
_INTERVALS = (
    f"Mean AUPRC over scans, each averaged over runs. Intervals: {SUBJECT_INTERVAL}. *↑ and *↓: better or "
    "worse than the reference (Wilcoxon signed-rank over subjects, Holm-corrected within the column, p < 0.05)."
)


def write_matrix_page(
    table: Sequence[MatrixRow],
    columns: Sequence[str],
    path: Path,
    *,
    title: str,
    reference: str,
    pictures: Pictures,
    most: Mapping[str, int],
    notes: Sequence[str],
    provenance: dict[str, Any],
    published: Published | None = None,
    contrasts: Sequence[ContrastResult] = (),
) -> None:
    """Write the page, and its figures as PNG in `figures/` beside it."""
    whole = [row for row in table if row.n_annotated is None]
    header, cells = paper_rows(whole, columns, published)
    sections = [Section("Results", text=[_FORM], header=header, rows=cells)]
    if contrasts:
        stated, rows = contrast_rows(contrasts)
        sections.insert(0, Section("Contrasts stated before the run", text=[f"{TEST}."], header=stated, rows=rows))
    if notes:
        rows = [note.split(": ", 1) for note in notes]
        sections.append(Section("Not finished or left out", header=("what", "why"), rows=rows))
    header, cells = paper_rows(whole, columns, pooled=True)
    sections.append(Section("Pooled", text=[_POOLED], header=header, rows=cells))
    header, cells = interval_rows(whole, columns, reference=reference)
    sections.append(Section("With intervals", text=[_INTERVALS], header=header, rows=cells))
    figures = {"seen_and_unseen": transfer_figure(table, reference=reference)}
    sections.append(Section("Seen and unseen", figure=figures["seen_and_unseen"]))
    counts = counts_figure(table, most, reference=reference)
    if counts is not None:
        figures["annotated_subjects"] = counts
        sections.append(Section("Number of annotated subjects", figure=counts))
    for column in columns:
        if f"image|{column}" in pictures:
            figures[f"example_{column}"] = examples_figure(pictures, column, [row.title for row in whole])
            sections.append(
                Section(
                    f"One scan: {column}",
                    figure=figures[f"example_{column}"],
                    caption="Test scan of median lesion volume; lesion in green, first run, each map on its own scale.",
                )
            )
    least, most_runs = min(row.n_runs for row in table), max(row.n_runs for row in table)
    runs = ("" if least == most_runs else f"{least} to ") + counted(most_runs, "run")
    lead = f"{counted(len(whole), 'method')} on {counted(len(columns), 'disease')}, {runs} each."
    write_page(Page(title=title, lead=lead, sections=sections, provenance=provenance), path)
    for name, figure in figures.items():
        save_figure(figure, path.parent / "figures" / f"{name}.png", dpi=150)


def examples_figure(pictures: Pictures, column: str, titles: Sequence[str], *, per_line: int = 8) -> Figure:
    """Return one test scan of a disease with its lesion, and the score of every method, each on its own colours."""
    shown = [title for title in titles if f"{title}|{column}" in pictures]
    count = len(shown) + 1
    lines = -(-count // per_line)
    height = 2.1 * lines + 0.1
    figure = new_figure(1.6 * min(per_line, count) + 0.2, height)
    figure.subplots_adjust(left=0.01, right=0.99, bottom=0.05 / height, top=1 - 0.42 / height, wspace=0.04, hspace=0.24)
    axes = figure.subplots(lines, min(per_line, count), squeeze=False).ravel()
    for axis in axes:
        axis.axis("off")
    lesion = radiological(pictures[f"lesion|{column}"])
    axes[0].imshow(radiological(pictures[f"image|{column}"]), cmap="gray", vmin=0, vmax=1)
    axes[0].set_title(f"{column}: scan", color=INK, fontsize=7)
    for axis, title in zip(axes[1:], shown, strict=False):
        score = radiological(pictures[f"{title}|{column}"])
        axis.imshow(score, cmap="inferno", vmin=0, vmax=max(float(score.max()), 1e-3))
        axis.set_title(title.replace(" (", "\n("), color=INK, fontsize=7)
    for axis in axes[:count]:
        if lesion.any():
            axis.contour(lesion, levels=[0.5], colors="#4dff88", linewidths=0.6)
    return figure


def transfer_figure(table: Sequence[MatrixRow], *, reference: str) -> Figure:
    """Return a line a method: its mean AUPRC on diseases that it learned from (●) and on the others (□).

    Rows that learned from no disease have one mark, over all of them. The AUPRC of the row `reference` on the same
    diseases stands beside each mark as a tick (|), where it was evaluated on all of them.
    """
    rows = [row for row in table if row.n_annotated is None and row.entries]
    alone = next((row for row in rows if row.title == reference), None)
    height = 0.24 * len(rows) + 1.0
    figure = new_figure(8.2, height)
    figure.subplots_adjust(left=0.30, right=0.98, top=1 - 0.45 / height, bottom=0.5 / height)
    axes = figure.subplots()
    style(axes)
    for place, row in enumerate(rows):
        means = []
        for seen, face, edge, marker in ((True, "#ffb454", "#ffb454", "o"), (False, "none", "#59c2ff", "s")):
            columns = [name for name, entry in row.entries.items() if entry.seen == seen]
            if not columns:
                continue
            means.append(_mean(row, columns))
            axes.scatter(means[-1], place, marker=marker, s=34, facecolor=face, edgecolor=edge, zorder=3)
            if alone is not None and row is not alone and set(columns) <= alone.entries.keys():
                axes.scatter(_mean(alone, columns), place, marker="|", s=70, color=edge, alpha=0.7, zorder=2)
        axes.plot(means, [place] * len(means), color="#6c7683", lw=1.0, zorder=1, label=row.title)
    axes.set_yticks(range(len(rows)), [row.title for row in rows])
    axes.invert_yaxis()
    axes.set_xlim(left=0)
    axes.set_xlabel("mean AUPRC over scans", color=INK)
    axes.set_title(f"● seen diseases   □ unseen diseases   | {reference} on the same diseases", color=INK, fontsize=9)
    return figure


def _mean(row: MatrixRow, columns: Sequence[str]) -> float:
    return float(np.mean([row.entries[name].auprc.mean for name in columns]))


def counts_figure(table: Sequence[MatrixRow], most: Mapping[str, int], *, reference: str) -> Figure | None:
    """Return AUPRC over the number of annotated subjects, seen and unseen apart; `None` where none was varied.

    `most` is disease → subjects that there are for training: where "all" stands on the axis. The row `reference`
    learned from none: a level line of each kind, where it was evaluated on every disease that the others were.
    """
    lines = _counts_lines(table, most)
    if not lines:
        return None
    figure = new_figure(8.2, 4.6)
    figure.subplots_adjust(left=0.09, right=0.98, bottom=0.11, top=0.97)
    axes = figure.subplots()
    style(axes)
    for number, ((name, disease), points) in enumerate(lines.items()):
        counts, seen_line, unseen_line = zip(*points, strict=True)
        colour = f"C{number}"
        axes.plot(counts, seen_line, "o-", color=colour, label=f"{name}, trained on {disease}: {disease}")
        axes.plot(counts, unseen_line, "s--", color=colour, label=f"{name}, trained on {disease}: unseen diseases")
    every = {name for row in table for name in row.entries}
    alone = [row for row in table if row.title == reference and row.entries.keys() == every]
    for row, disease in ((row, disease) for row in alone for disease in dict.fromkeys(key[1] for key in lines)):
        others = float(np.mean([e.auprc.mean for name, e in row.entries.items() if name != disease]))
        axes.axhline(row.entries[disease].auprc.mean, color=INK, lw=0.9, ls="-", label=f"{reference}: {disease}")
        axes.axhline(others, color=INK, lw=0.9, ls="--", label=f"{reference}: all but {disease}")
    axes.set_xscale("log")
    ticks = sorted({count for points in lines.values() for count, *_ in points})
    axes.set_xticks(ticks, [str(tick) for tick in ticks])
    axes.minorticks_off()
    axes.set_ylim(bottom=0)
    axes.set_xlabel("annotated training subjects", color=INK)
    axes.set_ylabel("mean AUPRC over scans", color=INK)
    axes.legend(labelcolor=INK, fontsize=8, frameon=False)
    return figure


def _counts_lines(
    table: Sequence[MatrixRow], most: Mapping[str, int]
) -> dict[tuple[str, str], list[tuple[int, float, float]]]:
    """Return (row, disease) → (subjects, AUPRC on it, mean AUPRC on the others), where the number was varied."""
    lines: dict[tuple[str, str], list[tuple[int, float, float]]] = {}
    for row in table:
        if row.trained_on not in most:
            continue
        count = most[row.trained_on] if row.n_annotated is None else row.n_annotated
        seen = [e.auprc.mean for e in row.entries.values() if e.seen]
        unseen = [e.auprc.mean for e in row.entries.values() if not e.seen]
        if seen and unseen:
            point = (count, float(np.mean(seen)), float(np.mean(unseen)))
            lines.setdefault((row.title.split(" (")[0], row.trained_on), []).append(point)
    # Only where few were tried, or a method that learned from all of them alone would be a line of one point.
    return {key: sorted(points) for key, points in lines.items() if len(points) > 1}
