"""Figures of an evaluation: curves, reliability, Dice by lesion size, agreement of volumes, best to worst."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import cycle
from typing import TypeVar

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure

from halebrain.core.wording import counted
from halebrain.evaluation.curve import Curve
from halebrain.evaluation.evaluate import Row
from halebrain.evaluation.set_level import Froc, Reliability
from halebrain.evaluation.statistics import Interval
from halebrain.evaluation.sweep import SweepPoint, best_point
from halebrain.evaluation.thumbnails import Thumbnail
from halebrain.report.figures import INK, new_figure, style

Item = TypeVar("Item")
_COLOURS = ("#6ea8fe", "#ffb454", "#7ee0a3", "#c792ea", "#ff8a80", "#9aa4af")


def precision_recall_figure(curves: Mapping[str, Curve]) -> Figure:
    """Return the precision–recall curves over the voxels of all scans, one a method."""
    figure, axes = _new(4.4)
    for colour, (method, curve) in _coloured(curves.items()):
        recall, precision = curve.points()
        label = f"{method}: {curve.average_precision:.2f}"
        axes.plot(recall, precision, color=colour, linewidth=1.6, label=label)
    if curves:
        first = next(iter(curves.values()))
        prevalence = first.true[-1] / (first.true[-1] + first.n_negative)
        axes.axhline(prevalence, color=INK, linewidth=0.8, linestyle=":", label=f"chance: {prevalence:.3f}")
    _finish(figure, axes, "recall", "precision", limits=True)
    return figure


def reliability_figure(reliability: Mapping[str, Reliability]) -> Figure:
    """Return the fraction of lesion voxels among voxels of each score; on the diagonal a score is a probability."""
    figure, axes = _new(4.4)
    axes.plot([0, 1], [0, 1], color=INK, linewidth=0.8, linestyle=":")
    for colour, (method, counts) in _coloured(reliability.items()):
        score, share, _ = counts.curve()
        label = f"{method}: error {counts.expected_error:.3f}"
        axes.plot(score, share, color=colour, marker="o", markersize=3, linewidth=1.4, label=label)
    _finish(figure, axes, "mean score of the bin", "fraction of lesion voxels", limits=True)
    return figure


def froc_figure(froc: Mapping[str, Froc]) -> Figure:
    """Return the FROC curve: lesion sensitivity over false-positive lesions per scan."""
    figure, axes = _new(4.0)
    for colour, (method, counts) in _coloured(froc.items()):
        rate, sensitivity = counts.curve()
        axes.step(rate, sensitivity, where="post", color=colour, linewidth=1.6, label=method)
    axes.set_ylim(-0.01, 1.01)
    _finish(figure, axes, "false-positive lesions per scan", "lesion sensitivity")
    return figure


def levels_figure(means: Mapping[tuple[str, str], Interval]) -> Figure | None:
    """Return the fraction of lesion signal removed over the error outside the lesion, one point per level.

    `None` where the true healthy image is not known. Up and to the left is better.
    """
    levels = [level for level, measure in means if measure == "lesion_removed"]
    known = [level for level in levels if not np.isnan(means[level, "lesion_removed"].mean)]
    if not known:
        return None
    figure, axes = _new(4.0)
    noise = [level for level in known if level != "ensemble"]
    points = {level: (means[level, "error_outside"].mean, means[level, "lesion_removed"].mean) for level in known}
    if noise:
        axes.plot(*zip(*(points[level] for level in noise), strict=True), color=_COLOURS[0], marker="o", linewidth=1.2)
    for level, (x, y) in points.items():
        if level == "ensemble":
            axes.plot([x], [y], color=_COLOURS[1], marker="D", linestyle="none")
        axes.annotate(level, (x, y), textcoords="offset points", xytext=(6, 5), color=INK, fontsize=8)
    _finish(figure, axes, "error outside the lesion (lower = healthy tissue is kept)", "fraction of the lesion removed")
    return figure


def dice_by_size_figure(rows: Sequence[Row]) -> Figure | None:
    """Return Dice at the frozen threshold over the lesion volume of each scan, or `None` where no scan has both."""
    kept = [r for r in rows if r.metric == "dice" and r.lesion_ml > 0 and not np.isnan(r.value)]
    if not kept:
        return None
    figure, axes = _new(4.0)
    for colour, pathology in _coloured(dict.fromkeys(r.pathology for r in kept)):
        volumes, dice = zip(*((r.lesion_ml, r.value) for r in kept if r.pathology == pathology), strict=True)
        axes.scatter(volumes, dice, s=22, color=colour, alpha=0.85, label=pathology)
    axes.set_xscale("log")
    axes.set_ylim(-0.02, 1.02)
    _finish(figure, axes, "lesion volume of the scan [ml]", "Dice at the frozen threshold")
    return figure


def volume_agreement_figure(rows: Sequence[Row]) -> Figure | None:
    """Return a Bland–Altman plot of predicted and true volumes, with the limits of agreement (1.96 s.d.)."""
    kept = [r for r in rows if r.metric == "volume_error" and not np.isnan(r.value)]
    if len(kept) < 2:
        return None
    error = np.array([r.value for r in kept])
    mean = np.array([r.lesion_ml for r in kept]) + error / 2
    figure, axes = _new(4.0)
    axes.scatter(mean, error, s=22, color=_COLOURS[0], alpha=0.85)
    bias, spread = float(error.mean()), float(error.std(ddof=1))
    for value, label in ((bias, f"bias {bias:+.1f} ml"), (bias - 1.96 * spread, ""), (bias + 1.96 * spread, "")):
        axes.axhline(value, color=_COLOURS[1], linewidth=1.2 if label else 0.8, linestyle="-" if label else "--")
        if label:
            axes.plot([], [], color=_COLOURS[1], label=f"{label}, limits ± {1.96 * spread:.1f} ml")
    _finish(figure, axes, "mean of predicted and true volume [ml]", "predicted − true [ml]")
    return figure


def gallery_figure(thumbnails: Sequence[Thumbnail], *, each: int = 3) -> Figure | None:
    """Return the worst, median and best scans by Dice (else AUPRC): image, score, predicted and reference outlines."""
    ranked = sorted((t for t in thumbnails if not np.isnan(t.value)), key=lambda t: t.value)
    if not ranked:
        return None
    columns = _gallery_columns(ranked, each)
    figure = new_figure(1.7 * len(columns) + 0.3, 4.2)
    axes = figure.subplots(2, len(columns), squeeze=False)
    for column, (name, t) in enumerate(columns):
        axes[0, column].set_title(f"{name}\n{t.scan_id}\n{t.value:.2f}", color=INK, fontsize=7)
        axes[0, column].imshow(t.image, cmap="gray", vmin=0, vmax=255)
        axes[1, column].imshow(t.score, cmap="inferno", vmin=0, vmax=255)
        for axis in axes[:, column]:
            axis.axis("off")
            for mask, colour in ((t.reference, "#7ee0a3"), (t.predicted, "#ff4d4d")):
                if mask.any():
                    axis.contour(mask.astype(float), levels=[0.5], colors=colour, linewidths=0.8)
    figure.suptitle(
        "reference in green, predicted in red; slice with the largest lesion area", color=INK, fontsize=9, y=0.99
    )
    figure.tight_layout(pad=0.4, rect=(0, 0, 1, 0.97))
    return figure


def _gallery_columns(ranked: Sequence[Thumbnail], each: int) -> list[tuple[str, Thumbnail]]:
    """Return what is shown and what it is called; of few scans, all, by their third of the ranking."""
    if len(ranked) < 3 * each:
        last = max(len(ranked) - 1, 1)
        names = ("worst", "median", "best")
        return [("the only one" if len(ranked) == 1 else names[round(2 * n / last)], t) for n, t in enumerate(ranked)]
    middle = len(ranked) // 2 - each // 2
    groups = {"worst": ranked[:each], "median": ranked[middle : middle + each], "best": ranked[-each:]}
    return [(name, t) for name, group in groups.items() for t in group]


def sweep_figure(points: Sequence[SweepPoint]) -> Figure:
    """Return AUPRC over the weight of the residual, a line a group, its best weight marked."""
    figure, axes = _new(4.0)
    for colour, group in _coloured(dict.fromkeys(point.group for point in points)):
        own = [point for point in points if point.group == group]
        label = f"{group} pathologies, {counted(own[0].n_scans, 'scan')}"
        axes.plot([p.weight for p in own], [p.auprc for p in own], color=colour, marker="o", linewidth=1.6, label=label)
        best = best_point(points, group)
        if best is not None:
            axes.axvline(best.weight, color=colour, linewidth=0.8, linestyle=":")
    _finish(figure, axes, "β: 0 = segmenter alone", "AUPRC over all voxels")
    return figure


def _new(height: float) -> tuple[Figure, Axes]:
    figure = new_figure(6.4, height)
    return figure, figure.subplots()


def _coloured(items: Iterable[Item]) -> Iterator[tuple[str, Item]]:
    """Return each item with its colour."""
    return zip(cycle(_COLOURS), items, strict=False)


def _finish(figure: Figure, axes: Axes, x: str, y: str, *, limits: bool = False) -> None:
    style(axes)
    if limits:
        axes.set_xlim(-0.01, 1.01)
        axes.set_ylim(-0.01, 1.01)
    axes.set_xlabel(x, color=INK)
    axes.set_ylabel(y, color=INK)
    if axes.get_legend_handles_labels()[0]:
        axes.legend(facecolor=figure.get_facecolor(), edgecolor="none", labelcolor=INK, fontsize=8)
    figure.tight_layout()
