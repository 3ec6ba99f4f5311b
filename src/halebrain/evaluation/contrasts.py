"""Contrasts between rows of a benchmark that its configuration states before it runs.

The difference of AUPRC is a table of subjects × runs (seeds, on the same test subjects). Both are drawn at random from
many, so its mean is tested as in studies of many readers and cases (Dorfman, Berbaum & Metz 1992; Hillis 2007): a
two-way analysis of variance gives the standard error, in which neither a few lucky seeds nor a few lucky subjects count
as many. Tests are one-sided, of "first − second > −margin", and corrected for all contrasts (Holm 1979).
"""

import math
from collections import defaultdict
from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import numpy.typing as npt
from scipy import stats

from halebrain.evaluation.matrix import MethodRun
from halebrain.evaluation.statistics import holm, means_by_key
from halebrain.io.tables import MISSING, number_cell, tsv_text

Relation = Literal["seen", "unseen", "all"]
LEVEL = 0.025
"""One-sided level at which a contrast holds; the intervals are two-sided at twice of it."""
TEST = (
    "first − second of AUPRC, mean over subjects × runs, both random (two-way analysis of variance); one-sided test of "
    "first − second > −margin at 0.025, Holm-corrected over the contrasts; 95 % interval"
)
_ALONE = "–"
Subject = tuple[str, str]
"""Column and subject."""
Values = dict[str, dict[Subject, float]]
"""Run → subject → AUPRC."""
Planned = tuple[str, str, str]
"""A run as it is planned: name of its row, what it learns from, and name of fold and seed."""


@dataclass(frozen=True)
class Contrast:
    """A contrast as it is stated before the run.

    Args:
        name: In words.
        first: Name of the rows that should be better.
        second: Name of the rows that they are compared with; of several names the one that is best on the same scans,
            which makes the contrast harder.
        columns: Diseases that `first` learned from ("seen"), did not ("unseen"), or "all".
        margin: How much worse `first` may be and still count as not inferior; 0 = it must be better.
    """

    name: str
    first: str
    second: tuple[str, ...]
    columns: Relation
    margin: float = 0.0


@dataclass(frozen=True)
class ContrastResult:
    """What came of a contrast.

    Args:
        stated: The contrast.
        second: The row that it was compared with.
        difference: Mean of first − second; NaN where there is nothing to compare.
        low: Lower bound of its 95 % interval.
        high: Upper bound.
        p: One-sided, of "first − second > −margin".
        p_holm: The same, corrected for all contrasts.
        n_subjects: Subjects with both.
        n_runs: Runs of `first`.
        note: What limits the result, or why there is none; "" = nothing.
    """

    stated: Contrast
    second: str = ""
    difference: float = math.nan
    low: float = math.nan
    high: float = math.nan
    p: float = 1.0
    p_holm: float = 1.0
    n_subjects: int = 0
    n_runs: int = 0
    note: str = ""

    @property
    def holds(self) -> bool:
        """Whether it is shown, corrected for all contrasts."""
        return self.p_holm < LEVEL

    def to_json(self) -> dict[str, object]:
        """Return everything for a JSON document, where what is not known is null."""
        values = {**asdict(self), "holds": self.holds}
        return {name: None if isinstance(v, float) and math.isnan(v) else v for name, v in values.items()}


def assess_contrasts(
    runs: Sequence[MethodRun],
    stated: Iterable[Contrast],
    diseases: Sequence[str],
    planned: Iterable[Planned] | None = None,
) -> list[ContrastResult]:
    """Return the result of each contrast; one that cannot be tested counts in the correction, with p = 1.

    `planned` are all runs with all annotated subjects, finished or not; `None` = no more than there are.
    """
    whole = [run for run in runs if run.n_annotated is None]
    plan = set(_planned(whole) if planned is None else planned)
    found = [_assess(whole, contrast, diseases, plan) for contrast in stated]
    corrected = holm([result.p for result in found])
    return [replace(result, p_holm=p) for result, p in zip(found, corrected, strict=True)]


def why_untestable(contrast: Contrast, diseases: Sequence[str], planned: Iterable[Planned]) -> str:
    """Return why no finished run can ever test a contrast; "" = one can."""
    plan = set(planned)
    ours = _trainings(plan, contrast.first)
    usable = {trained_on for trained_on in ours if _columns(trained_on, contrast.columns, diseases)}
    if not usable:
        learned = " or ".join(sorted(ours)) or "few annotated subjects alone"
        return f"{contrast.first} learns from {learned}, columns: {contrast.columns}"
    for second in contrast.second:
        theirs = _trainings(plan, second)
        if not usable & theirs and len(theirs) != 1:
            learned = " or ".join(sorted(theirs)) or "few annotated subjects alone"
            return f"{second} learns from {learned}, {contrast.first} from {' or '.join(sorted(usable))}"
    return ""


def _planned(runs: Iterable[MethodRun]) -> set[Planned]:
    return {(method_name(run), run.trained_on, run.run) for run in runs}


def _trainings(plan: Collection[Planned], name: str) -> set[str]:
    """Return all that a row learns from, each once."""
    return {trained_on for own, trained_on, _ in plan if own == name}


def _title(name: str, trained_on: str) -> str:
    return name if trained_on == _ALONE else f"{name} ({trained_on})"


def _assess(
    runs: Sequence[MethodRun], contrast: Contrast, diseases: Sequence[str], plan: Collection[Planned]
) -> ContrastResult:
    pairs = [_paired(runs, contrast.first, name, contrast.columns, diseases, plan) for name in contrast.second]
    complete = [(name, *pair) for name, pair in zip(contrast.second, pairs, strict=True) if pair is not None]
    if not complete:
        return ContrastResult(contrast, note="no finished run of both")
    # Of several, the best one on the subjects and runs that all of them have; else an easy fold makes one the best.
    places = [{(run, subject) for run, own in values.items() for subject in own} for _, _, values in complete]
    common = set.intersection(*places)
    if not common:
        return ContrastResult(contrast, note=f"no subject in a run that all have: {', '.join(e[0] for e in complete)}")
    second, first, other = max(complete, key=lambda entry: _mean_at(entry[2], common))
    sets = _tables(first, other)
    if not sets:
        return ContrastResult(contrast, second, note="no subject with a value in all runs")
    tables = list(sets.values())
    mean, error, freedom = mean_over_both(tables, list(sets))
    n_runs = max(table.shape[1] for table in tables)
    note = "" if n_runs > 1 else "one run: says nothing of other seeds"
    lacking = sorted(set(contrast.second) - {name for name, *_ in complete})
    short = sorted(e[0] for e, own in zip(complete, places, strict=True) if own != set.union(*places))
    missing = _unfinished(runs, contrast.first, second, diseases, plan)
    for what, names in (
        ("not finished", lacking),
        ("not in every run", short),
        ("without unfinished runs of", missing),
    ):
        if names:
            note = "; ".join(filter(None, (note, f"{what}: {', '.join(names)}")))
    width = math.nan if math.isnan(error) else float(stats.t.ppf(1 - LEVEL, freedom)) * error if error > 0 else 0.0
    return ContrastResult(
        contrast,
        second,
        difference=mean,
        low=mean - width,
        high=mean + width,
        p=_one_sided(mean + contrast.margin, error, freedom),
        n_subjects=len(set[Subject]().union(*sets)),
        n_runs=n_runs,
        note=note,
    )


def _one_sided(distance: float, error: float, freedom: float) -> float:
    if not error > 0:
        return 1.0 if math.isnan(error) or distance <= 0 else 0.0
    return float(stats.t.sf(distance / error, freedom))


def mean_over_both(
    tables: Sequence[npt.NDArray[np.float64]], subjects: Sequence[Sequence[Subject]] = ()
) -> tuple[float, float, float]:
    """Return mean, standard error and degrees of freedom of differences, subjects and runs both drawn at random.

    Args:
        tables: `(subjects, runs)` for each set of test subjects; of several sets each weighs by its subjects. With one
            run the error is that over subjects alone; NaN with one subject.
        subjects: The subjects of each set, in their order: folds may test the same ones; empty = all are different.

    Returns:
        Mean; standard error; Satterthwaite's degrees of freedom.
    """
    total = sum(len(table) for table in tables)
    mean = sum(float(table.mean()) * len(table) for table in tables) / total
    variance, squares = 0.0, 0.0
    for table in tables:
        own, freedom = _variance_of_mean(table)
        share = own * (len(table) / total) ** 2
        variance += share
        squares += share**2 / freedom
    freedom = variance**2 / squares if squares else math.inf
    shared = [_shared_covariance(*pair) for pair in combinations(zip(tables, subjects, strict=False), 2)]
    if any(shared):  # the same subjects in two sets count as one draw of them
        variance += 2 * sum(shared) / total**2
        freedom = min(freedom, *(_variance_of_mean(table)[1] for table in tables))
    return mean, math.sqrt(variance), freedom


_Set = tuple[npt.NDArray[np.float64], Sequence[Subject]]


def _shared_covariance(one: _Set, other: _Set) -> float:
    """Return the covariance of the sums of two sets over subjects, by those that are in both; 0 where none is."""
    means = [dict(zip(subjects, table.mean(axis=1), strict=True)) for table, subjects in (one, other)]
    both = [subject for subject in means[0] if subject in means[1]]
    if len(both) > 1:
        return len(both) * max(float(np.cov([[own[subject] for subject in both] for own in means])[0, 1]), 0.0)
    spread = [float(np.std(list(own.values()), ddof=1)) if len(own) > 1 else math.nan for own in means]
    return spread[0] * spread[1] if both else 0.0  # one subject has no covariance: at most that


def _variance_of_mean(table: npt.NDArray[np.float64]) -> tuple[float, float]:
    subjects, runs = table.shape
    if subjects < 2:
        return math.nan, 1.0
    of_subject, of_run, grand = table.mean(axis=1), table.mean(axis=0), table.mean()
    between = runs * float(((of_subject - grand) ** 2).sum()) / (subjects - 1)
    if runs < 2:
        return between / subjects, subjects - 1.0
    seeds = subjects * float(((of_run - grand) ** 2).sum()) / (runs - 1)
    rest = float(((table - of_subject[:, None] - of_run[None] + grand) ** 2).sum()) / ((subjects - 1) * (runs - 1))
    # Where chance makes a mean square smaller than the rest, that part of the variance is 0, not negative.
    between, seeds = max(between, rest), max(seeds, rest)
    parts = between**2 / (subjects - 1) + seeds**2 / (runs - 1) + rest**2 / ((subjects - 1) * (runs - 1))
    whole = between + seeds - rest
    return whole / (subjects * runs), whole**2 / parts if parts else math.inf


def _columns(trained_on: str, relation: Relation, diseases: Sequence[str]) -> list[str]:
    """Return the diseases on which a row that learned from these is compared; none if it learned from others, too."""
    learned = () if trained_on == _ALONE else tuple(trained_on.split(" + "))
    if not set(learned) <= set(diseases):
        return []  # learned from synthetic anomalies
    return [name for name in diseases if relation == "all" or (name in learned) == (relation == "seen")]


def _unfinished(
    runs: Iterable[MethodRun], first: str, second: str, diseases: Sequence[str], plan: Collection[Planned]
) -> list[str]:
    """Return the titles of rows of which a planned run that the comparison of both needs is not there."""
    ours, theirs = _trainings(plan, first), _trainings(plan, second)
    usable = {trained_on for trained_on in ours if _columns(trained_on, "all", diseases)}
    needed = {first: usable, second: theirs if len(theirs) == 1 else theirs & usable}
    left = set(plan) - _planned(runs)
    return sorted({_title(name, trained_on) for name, trained_on, _ in left if trained_on in needed.get(name, ())})


def _paired(
    runs: Sequence[MethodRun],
    first: str,
    second: str,
    relation: Relation,
    diseases: Sequence[str],
    plan: Collection[Planned],
) -> tuple[Values, Values] | None:
    """Return the AUPRC of both rows by run and subject, mean over the trainings of `first` on diseases."""
    ours: dict[tuple[str, Subject], list[float]] = defaultdict(list)
    theirs: dict[tuple[str, Subject], list[float]] = defaultdict(list)
    others = _trainings(plan, second)
    for trained_on in dict.fromkeys(run.trained_on for run in runs if method_name(run) == first):
        columns = _columns(trained_on, relation, diseases)
        # What learned from the same; of a method that is trained in one way only, that.
        wanted = trained_on if trained_on in others or len(others) != 1 else next(iter(others))
        here = {run.run: run for run in runs if method_name(run) == first and run.trained_on == trained_on}
        there = {run.run: run for run in runs if method_name(run) == second and run.trained_on == wanted}
        planned = {run for *row, run in plan if row == [second, wanted]}
        for name, run in here.items():
            other = there.get(name) or _of_every_seed(there, name, planned)
            if other is None:
                continue
            for values, one in ((ours, run), (theirs, other)):
                for subject, value in _per_subject(one, columns).items():
                    values[name, subject].append(value)
    if not ours or not theirs:
        return None
    return _by_run(ours), _by_run(theirs)


def _of_every_seed(there: Mapping[str, MethodRun], name: str, planned: Collection[str]) -> MethodRun | None:
    """Return the run that stands for every seed of a fold: of a row that is not trained one is planned."""
    fold = name.split(" ")[0]
    same = [run for other, run in there.items() if other.split(" ")[0] == fold]
    is_alone = sum(other.split(" ")[0] == fold for other in planned) <= 1
    return same[0] if is_alone and len(same) == 1 and same[0].trained_on == _ALONE else None


def method_name(run: MethodRun) -> str:
    """Return the name of a run's method, without what it learned from."""
    return run.title.removesuffix(f" ({run.trained_on})")


def _per_subject(run: MethodRun, columns: Sequence[str]) -> dict[Subject, float]:
    return means_by_key(
        ((row.pathology, row.subject), row.value)
        for row in run.rows
        if row.metric == "auprc" and row.pathology in columns and not math.isnan(row.value)
    )


def _by_run(values: Mapping[tuple[str, Subject], list[float]]) -> Values:
    found: Values = {}
    for (run, subject), own in values.items():
        found.setdefault(run, {})[subject] = float(np.mean(own))
    return found


def _mean_at(values: Values, places: Iterable[tuple[str, Subject]]) -> float:
    return float(np.mean([values[run][subject] for run, subject in sorted(places)]))


def _tables(first: Values, second: Values) -> dict[tuple[Subject, ...], npt.NDArray[np.float64]]:
    """Return the differences as subjects × runs, one table for each set of test subjects."""
    groups: dict[frozenset[Subject], list[str]] = defaultdict(list)
    for run, own in first.items():
        groups[frozenset(set(own) & set(second.get(run, {})))].append(run)
    return {
        tuple(sorted(subjects)): np.array(
            [[first[run][subject] - second[run][subject] for run in names] for subject in sorted(subjects)]
        )
        for subjects, names in groups.items()
        if subjects
    }


def contrast_rows(results: Sequence[ContrastResult]) -> tuple[list[str], list[list[str]]]:
    """Return header and cells of the contrasts, as they are printed."""
    header = ["contrast", "first", "second", "diseases", "margin", "difference", "subjects × runs", "p", "holds"]
    cells = []
    for result in results:
        stated = result.stated
        if result.n_subjects:
            size = f"{result.n_subjects} × {result.n_runs}"
            interval = "no interval" if math.isnan(result.low) else f"{result.low:+.3f}, {result.high:+.3f}"
            text = f"{result.difference:+.3f} [{interval}]"
            answer = "yes" if result.holds else "no"
        else:
            size, text, answer = "–", "–", "not tested"
        answer += f" ({result.note})" if result.note else ""
        about = [stated.name, stated.first, result.second or " / ".join(stated.second), stated.columns]
        cells.append([*about, f"{stated.margin:g}", text, size, f"{result.p_holm:.2g}", answer])
    return header, cells


def contrasts_tsv(results: Sequence[ContrastResult]) -> str:
    """Return a line for each contrast with every figure."""
    names = "contrast first second candidates columns margin difference low high p p_holm holds subjects runs note"
    lines = [tuple(names.split())]
    for result in results:
        stated = result.stated
        figures = (stated.margin, result.difference, result.low, result.high, result.p, result.p_holm)
        about = (stated.name, stated.first, result.second or MISSING, ", ".join(stated.second), stated.columns)
        rest = ("yes" if result.holds else "no", str(result.n_subjects), str(result.n_runs), result.note or MISSING)
        lines.append((*about, *map(number_cell, figures), *rest))
    return tsv_text(lines)
