"""Figures of a benchmark: score maps, seen against unseen diseases, and the effect of annotated scans."""

from collections.abc import Mapping, Sequence

import numpy as np
import numpy.typing as npt
from matplotlib.figure import Figure

from halebrain.evaluation.matrix import MatrixRow
from halebrain.report.figures import INK, new_figure, style

Pictures = Mapping[str, npt.NDArray[np.floating]]
"""Slices `(i, j)` by "image|column", "lesion|column" and "row title|column"."""


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
    lesion = _turned(pictures[f"lesion|{column}"])
    axes[0].imshow(_turned(pictures[f"image|{column}"]), cmap="gray", vmin=0, vmax=1)
    axes[0].set_title(f"{column}: scan", color=INK, fontsize=7)
    for axis, title in zip(axes[1:], shown, strict=False):
        score = _turned(pictures[f"{title}|{column}"])
        axis.imshow(score, cmap="inferno", vmin=0, vmax=max(float(score.max()), 1e-3))
        axis.set_title(title.replace(" (", "\n("), color=INK, fontsize=7)
    for axis in axes[:count]:
        if lesion.any():
            axis.contour(lesion, levels=[0.5], colors="#4dff88", linewidths=0.6)
    return figure


def transfer_figure(table: Sequence[MatrixRow], *, reference: str) -> Figure:
    """Return a line a method: its mean AUPRC on diseases that it learned from (●) and on the others (□).

    Args:
        table: The rows; those that learned from no disease have one mark, over all of them.
        reference: Title of the row whose AUPRC on the same diseases stands beside each mark as a tick (|).
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
            if alone is not None and row is not alone:
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

    Args:
        table: The rows.
        most: Disease → subjects that there are for training: where "all" stands on the axis.
        reference: Title of the row that learned from none: a level line of each kind.
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
    alone = [row for row in table if row.title == reference]
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


def _turned(data: npt.NDArray[np.floating]) -> npt.NDArray[np.floating]:
    # As radiologists hold it: front up, the patient's right on the left.
    return np.asarray(data, dtype=np.float32)[::-1, ::-1].T
