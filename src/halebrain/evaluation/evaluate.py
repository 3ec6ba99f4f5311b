"""From cases to a tidy table, set-level values and summaries with intervals; scans stream through, one at a time."""

from collections.abc import Collection, Iterable
from dataclasses import dataclass, field, replace
from itertools import pairwise

import numpy as np
import numpy.typing as npt
from scipy import stats

from halebrain.core.types import FloatArray
from halebrain.evaluation.case import Case
from halebrain.evaluation.curve import Curve, PooledCurve, Scores, split_by_label
from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.metrics.lesionwise import SIZE_BINS_ML
from halebrain.evaluation.provenance import EvaluationProvenance
from halebrain.evaluation.reconstruction_quality import LevelQuality
from halebrain.evaluation.set_level import FROC_RATES, SMALL_ML, Froc, ImageLevel, Reliability
from halebrain.evaluation.statistics import Comparison, Interval, bootstrap_mean, compare_methods
from halebrain.evaluation.thumbnails import Thumbnail, thumbnail

COMPARED = ("auprc", "dice_oracle_per_scan")
"""Metrics on which methods are compared: those that every method has, without a threshold."""

_ENOUGH_SITES = 5
_AGES = (0, 20, 40, 60, 80, 200)


@dataclass(frozen=True)
class Row:
    """One value of one scan."""

    scan_id: str
    subject: str
    modality: str
    pathology: str
    site: str | None
    age: float | None
    sex: str | None
    lesion_ml: float
    method: str
    metric: str
    unit: str
    value: float


@dataclass(frozen=True)
class Summary:
    """The mean over scans (macro) of one metric in one group of scans, with its interval."""

    group: str
    method: str
    metric: str
    unit: str
    interval: Interval


@dataclass(frozen=True)
class SetValue:
    """One value of the whole set: voxels of all scans together (micro), or slices and scans as units."""

    method: str
    metric: str
    value: float
    says: str


@dataclass
class Evaluation:
    """All that an evaluation found.

    Args:
        rows: Tidy table, one row a scan, method and metric.
        summaries: Means over scans, of everything and of each stratum.
        set_values: Values of the whole set.
        comparisons: Paired tests between methods.
        curves: Method → curve over all voxels.
        reliability: Method → counts over bins of the score.
        thumbnails: A slice of each scan that came with one.
        froc: Method → lesions and false candidates.
        provenance: What all this comes from.
        reconstruction: Quality of the reconstruction, one entry a scan and level; empty where it was not asked for.
    """

    rows: list[Row]
    summaries: list[Summary]
    set_values: list[SetValue]
    comparisons: list[Comparison]
    curves: dict[str, Curve]
    reliability: dict[str, Reliability]
    thumbnails: list[Thumbnail]
    froc: dict[str, Froc]
    provenance: EvaluationProvenance
    reconstruction: list[LevelQuality] = field(default_factory=list)

    def mean(self, metric: str, *, group: str = "all", method: str = "model") -> Interval:
        """Return the macro mean of one metric."""
        for summary in self.summaries:
            if (summary.group, summary.method, summary.metric) == (group, method, metric):
                return summary.interval
        raise KeyError(f"no summary of {metric} for {method} in {group}")

    @property
    def labels(self) -> dict[str, str]:
        """Method → its name beside others; of one that has not scored every scan, with the number that it has."""
        scans: dict[str, set[str]] = {}
        for row in self.rows:
            scans.setdefault(row.method, set()).add(row.scan_id)
        total = len(set().union(*scans.values()))
        return {
            name: name if len(own) == total else f"{name} ({len(own)} of {total} scans)" for name, own in scans.items()
        }


@dataclass(frozen=True)
class MethodScores:
    """What one scan, as one method sees it, adds to an evaluation; `None` where there is no map, or no mask.

    Args:
        rows: Its rows of the tidy table.
        voxels: Sorted scores of lesion voxels, and of the others.
        images: It and its slices as units.
        reliability: Counts over bins of the score; `None` too where scores leave [0, 1].
        counts: Voxels of the mask: true, false, missed, and true negatives.
        froc: Its lesions and false candidates.
    """

    rows: list[Row]
    voxels: tuple[Scores, Scores] | None = None
    images: ImageLevel | None = None
    reliability: Reliability | None = None
    counts: tuple[int, ...] | None = None
    froc: Froc | None = None

    @classmethod
    def of(cls, case: Case, method: str) -> "MethodScores":
        """Return what a case adds."""
        found = cls(score_case(case, method=method))
        if case.score is not None:
            images = ImageLevel()
            images.add(case)
            voxels = split_by_label(case.values, case.labels, needs_lesion=False)
            found = replace(found, voxels=voxels, images=images)
            if case.values.size and case.values.min() >= 0 and case.values.max() <= 1:
                reliability = Reliability()
                reliability.add(case.values, case.labels)
                found = replace(found, reliability=reliability)
        if case.mask is not None:
            found = replace(found, counts=tuple(case.counts))
            if case.score is not None:
                froc = Froc()
                froc.add(case)
                found = replace(found, froc=froc)
        return found


@dataclass(frozen=True)
class ScanScores:
    """What one scan adds to an evaluation, by method, and its thumbnail; it can be sent between processes."""

    methods: dict[str, MethodScores]
    thumbnail: Thumbnail | None = None

    @classmethod
    def of(
        cls, methods: Iterable[tuple[str, Case]], *, image: FloatArray | None = None, shown: str | None = None
    ) -> "ScanScores":
        """Return what one scan adds, as every method sees it.

        `image` is for the figure of best and worst, and `shown` the method that it shows; `None` = none of these.
        """
        scored, picture = dict[str, MethodScores](), None
        for method, case in methods:
            scored[method] = MethodScores.of(case, method)
            if method == shown:
                values = {row.metric: row.value for row in scored[method].rows}
                picture = thumbnail(case, values.get("dice", values.get("auprc", float("nan"))), image)
        return cls(scored, picture)


class Evaluator:
    """Collects scans one at a time; it keeps only a few numbers and the lesion scores of each."""

    def __init__(self, *, seed: int) -> None:
        self.seed = seed
        self._rows: list[Row] = []
        self._sets: dict[str, _SetLevel] = {}
        self._thumbnails: list[Thumbnail] = []

    def add(self, method: str, case: Case, *, image: FloatArray | None = None, show: bool = False) -> None:
        """Score one scan as one method sees it; `image` and `show`: for the figure of best and worst scans."""
        self.take(ScanScores.of([(method, case)], image=image, shown=method if show else None))

    def take(self, scan: ScanScores) -> None:
        """Add a scan that is scored."""
        for method, found in scan.methods.items():
            self._rows += found.rows
            self._sets.setdefault(method, _SetLevel()).take(found)
        if scan.thumbnail is not None:
            self._thumbnails.append(scan.thumbnail)

    def finish(self, provenance: EvaluationProvenance) -> Evaluation:
        """Return everything that was found."""
        values, curves, reliability = [], {}, {}
        for method, level in self._sets.items():
            if level.pooled.has_lesion:
                curves[method] = level.pooled.finish()
            if level.has_reliability:
                reliability[method] = level.reliability
            values += level.values(method, curves.get(method))
            own = [row for row in self._rows if row.method == method]
            values += _volume_correlation(own) + _share_of_best_dice(own)
        return Evaluation(
            rows=self._rows,
            summaries=summarise(self._rows, seed=self.seed),
            set_values=values,
            comparisons=[c for metric in COMPARED for c in compare_methods(metric, _by_scan(self._rows, metric))],
            curves=curves,
            reliability=reliability,
            thumbnails=self._thumbnails,
            froc={method: level.froc for method, level in self._sets.items() if level.froc.found},
            provenance=provenance,
        )


@dataclass
class _SetLevel:
    """What one method's scans add up to."""

    pooled: PooledCurve = field(default_factory=PooledCurve)
    reliability: Reliability = field(default_factory=Reliability)
    are_probabilities: bool = True
    images: ImageLevel = field(default_factory=ImageLevel)
    counts: npt.NDArray[np.int64] = field(default_factory=lambda: np.zeros(4, np.int64))
    masks: int = 0
    froc: Froc = field(default_factory=Froc)

    def take(self, found: MethodScores) -> None:
        if found.voxels is not None:
            self.pooled.add_sorted(*found.voxels)
        if found.images is not None:
            self.images.take(found.images)
        if found.reliability is not None:
            self.reliability.take(found.reliability)
        elif found.voxels is not None:
            self.are_probabilities = False
        if found.counts is not None:
            self.counts += np.array(found.counts)
            self.masks += 1
        if found.froc is not None:
            self.froc.take(found.froc)

    @property
    def has_reliability(self) -> bool:
        """Whether all scores are probabilities: those of the scans that stay in [0, 1] by chance say nothing."""
        return self.are_probabilities and bool(self.reliability.count.any())

    def values(self, method: str, curve: Curve | None) -> list[SetValue]:
        found: dict[str, tuple[float, str]] = {}
        if curve is not None:
            dice, threshold = curve.best_dice
            found["micro_auprc"] = (curve.average_precision, "over the voxels of all scans together")
            found["micro_auroc"] = (curve.auroc, "over the voxels of all scans together")
            says = "over all voxels, at the threshold that is best for this set: an upper bound, not a result"
            found["dice_oracle_set"] = (dice, says)
            found["dice_oracle_set_threshold"] = (threshold, "the threshold that is best for this set")
        if self.masks:
            true, false, missed, _ = (int(v) for v in self.counts)
            if true + missed:
                says = "over all voxels, at the frozen threshold"
                found["micro_dice"] = (2 * true / (2 * true + false + missed), says)
        if self.has_reliability:
            found["expected_calibration_error"] = (self.reliability.expected_error, "15 equal bins of the score")
        if self.froc.found:
            for rate in FROC_RATES:
                says = f"lesion sensitivity at {rate:g} false positives per scan (FROC, at the frozen threshold)"
                found[f"froc_sensitivity_{rate:g}"] = (self.froc.sensitivity_at(rate), says)
            small = self.froc.small()
            for rate in FROC_RATES if small.found else ():
                says = f"the same, lesions below {SMALL_ML:g} ml alone, of which there are {len(small.found)}"
                found[f"froc_small_sensitivity_{rate:g}"] = (small.sensitivity_at(rate), says)
        for name, value in self.images.finish().items():
            found[name] = (value, f"{name.split('_')[0]}s as units")
        return [SetValue(method, name, value, says) for name, (value, says) in found.items()]


def _share_of_best_dice(rows: list[Row]) -> list[SetValue]:
    """Return what the frozen threshold keeps of the Dice that the score allows, over scans that have both."""
    dice = {row.scan_id: row.value for row in rows if row.metric == "dice"}
    best = {row.scan_id: row.value for row in rows if row.metric == "dice_oracle_per_scan"}
    both = [scan for scan in dice if scan in best and np.isfinite(dice[scan]) and np.isfinite(best[scan])]
    if not both or (whole := sum(best[scan] for scan in both)) == 0:
        return []
    says = "mean Dice at the frozen threshold over the mean of each scan's best Dice"
    return [SetValue(rows[0].method, "dice_share_of_best", sum(dice[scan] for scan in both) / whole, says)]


def _volume_correlation(rows: list[Row]) -> list[SetValue]:
    errors = [row for row in rows if row.metric == "volume_error"]
    true = [row.lesion_ml for row in errors]
    predicted = [row.lesion_ml + row.value for row in errors]
    if len(errors) < 3 or np.ptp(true) == 0 or np.ptp(predicted) == 0:
        return []
    value = float(stats.spearmanr(true, predicted).statistic)
    return [SetValue(rows[0].method, "volume_correlation", value, "Spearman's rank correlation of volumes over scans")]


def score_case(case: Case, *, method: str = "model", only: Collection[str] | None = None) -> list[Row]:
    """Return every metric that the case allows, those on masks only where there is a mask; `None` = all metrics."""
    lesion_ml = float(case.labels.sum()) * case.voxel_ml
    r = case.record
    about = (case.scan_id, r.subject, r.contrast, r.condition, r.site, r.age, r.sex, lesion_ml)
    rows = []
    for name in METRICS if only is None else only:
        metric = METRICS.get(name)
        if (case.score if metric.needs == "score" else case.mask) is not None:
            rows.append(Row(*about, method, name, metric.unit, metric(case)))
    return rows


def summarise(rows: Iterable[Row], *, seed: int) -> list[Summary]:
    """Return macro means with bootstrap intervals, for all scans and for each stratum of `groups_of`."""
    cells: dict[tuple[str, str, str, str], list[Row]] = {}
    for row in rows:
        for group in groups_of(row):
            cells.setdefault((group, row.method, row.metric, row.unit), []).append(row)
    found = []
    for key, members in cells.items():
        bounds = METRICS.get(members[0].metric).bounds
        interval = bootstrap_mean([r.value for r in members], clusters_of(members), seed=seed, bounds=bounds)
        found.append(Summary(*key, interval))
    return found


def groups_of(row: Row) -> list[str]:
    """Return the names of the groups that a scan belongs to, "all" first.

    Healthy scans are grouped by site, age and sex under their own names: every marked voxel is false positive, and a
    difference between sites is an effect of the scanner.
    """
    groups = ["all", row.modality, row.pathology, f"{row.pathology} {row.modality}"]
    kinds = []
    if row.site is not None:
        kinds.append(f"site={row.site}")
    if row.age is not None:
        kinds.append(f"age={_bin_of(row.age)}")
    if row.sex is not None:
        kinds.append(f"sex={row.sex}")
    if row.lesion_ml > 0:
        kinds.append(f"size={size_bin(row.lesion_ml)}")
    groups += kinds
    if row.pathology == "healthy":
        groups += [f"healthy {kind}" for kind in kinds]
    return list(dict.fromkeys(groups))


def size_bin(lesion_ml: float) -> str:
    """Return the bin of a scan's total lesion volume."""
    for name, (low, high) in SIZE_BINS_ML.items():
        if low <= lesion_ml < high:
            return name
    raise ValueError(f"a volume cannot be negative, got {lesion_ml}")


def _bin_of(age: float) -> str:
    for low, high in pairwise(_AGES):
        if low <= age < high:
            return f"{low}-{high - 1}"
    return "other"


def clusters_of(rows: list[Row]) -> list[str]:
    """Return what is drawn together: sites where every scan has one and there are five or more, else subjects.

    Scans of one scanner resemble each other, so drawing subjects alone makes intervals too narrow; from fewer sites
    than five no interval can be had by drawing them. Only scans count that define the metric: healthy scans of many
    sites say nothing about the sites of patients.
    """
    sites = {row.site for row in rows if not np.isnan(row.value)}
    if None not in sites and len(sites) >= _ENOUGH_SITES:
        return [str(row.site) for row in rows]
    return [row.subject for row in rows]


def _by_scan(rows: Iterable[Row], metric: str) -> dict[str, dict[tuple[str, str], float]]:
    """Return method → (subject, scan) → value."""
    found: dict[str, dict[tuple[str, str], float]] = {}
    for row in rows:
        if row.metric == metric:
            found.setdefault(row.method, {})[row.subject, row.scan_id] = row.value
    return found


_BEHRENDT = "Behrendt et al. 2024, Table 1"


def behrendt2024(evaluation: Evaluation) -> Evaluation:
    """Return the evaluation with ⌈Dice⌉ and AUPRC of Behrendt et al. 2024, Table 1, ahead of the others.

    The paper does not say whether they are those of each scan, averaged, or those of all voxels of the test set
    together. Its published code averages over scans, so `behrendt2024_best_dice` (each scan at the threshold that is
    best for it) and `behrendt2024_auprc` are means over scans; the pooled ones have other names. All are on the
    2 mm grid with resampled labels, so the evaluation must be one on the working grid, and ⌈Dice⌉ is an upper bound, as
    its threshold is chosen on the test labels.
    """
    per_scan = {
        "dice_oracle_per_scan": ("behrendt2024_best_dice", "best Dice of each scan, mean over scans: an upper bound"),
        "auprc": ("behrendt2024_auprc", "AUPRC of each scan, mean over scans"),
    }
    pooled = {"dice_oracle_set": "behrendt2024_pooled_best_dice", "micro_auprc": "behrendt2024_pooled_auprc"}
    ahead = [
        SetValue(s.method, per_scan[s.metric][0], s.interval.mean, f"{_BEHRENDT}: {per_scan[s.metric][1]}")
        for s in evaluation.summaries
        if s.group == "all" and s.metric in per_scan and not np.isnan(s.interval.mean)
    ]
    ahead += [
        SetValue(v.method, pooled[v.metric], v.value, f"{_BEHRENDT}, if read as pooled: {v.says}")
        for v in evaluation.set_values
        if v.metric in pooled
    ]
    provenance = replace(evaluation.provenance, protocol="behrendt2024")
    return replace(evaluation, set_values=ahead + evaluation.set_values, provenance=provenance)
