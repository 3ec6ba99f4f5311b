"""The paper's claim on a benchmark's results: what learning from one disease gives on it, and on the others.

For every segmenter that learned from one disease: mean difference of its AUPRC to the reference, subject by subject, on
each disease, with a bootstrap interval over subjects and an uncorrected Wilcoxon p. Runs are averaged first.

    python benchmarks/claim.py results.tsv [--reference cDDPM]

With `--pair FIRST SECOND` (repeatable) the difference of two rows instead, on the disease that FIRST learned from and
on the others together:

    python benchmarks/claim.py results.tsv --pair "Unet_DAE (tumour)" "Unet (tumour)"

With `--rows FIRST SECOND` (repeatable) that of two rows whatever they learned from, on diseases learned from and on
others, tested as contrasts are, and not corrected:

    python benchmarks/claim.py fold0/results.tsv fold1/results.tsv --rows SADM_res cDDPM

With `--mean ROW` (repeatable) the mean AUPRC of a row on what it learned from and on other diseases:

    python benchmarks/claim.py results.tsv --mean "Unet_res (tumour, 5)" --mean "Unet_res (tumour)"

With `--contrasts CONFIG` the contrasts that a benchmark's configuration states, tested as the benchmark itself does.

    python benchmarks/claim.py fold0/results.tsv fold1/results.tsv --contrasts cpu2

With `--each-run` beside it, their differences in each run (a seed on a cohort) alone, not tested.

Several tables, of other folds or seeds that ran apart, count as one.
"""

import argparse
import csv
import lzma
import math
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
from scipy import stats

from halebrain.benchmarking.config import SYNTHETIC, MatrixConfig
from halebrain.benchmarking.plan import plan, planned_runs
from halebrain.evaluation.contrasts import Contrast, assess_contrasts, contrasts_tsv
from halebrain.evaluation.evaluate import Row
from halebrain.evaluation.matrix import MethodRun
from halebrain.evaluation.statistics import SHARE, SHARE_DIFFERENCE, bootstrap_mean
from halebrain.io.tables import MISSING
from halebrain.workflows.benchmark import read_matrix
from halebrain.workflows.settings import BenchmarkSettings

_ROWS = ("Unet", "SADM", "Unet_res", "SADM_res")


def read_runs(paths: Sequence[Path]) -> list[MethodRun]:
    """Return every training of the tables with the AUPRC of its test scans; of other figures nothing."""
    rows: dict[tuple[str, ...], list[Row]] = defaultdict(list)
    for path in paths:
        with lzma.open(path, "rt") if path.suffix == ".xz" else path.open(encoding="utf-8") as handle:
            for line in csv.DictReader(handle, delimiter="\t"):
                if line["metric"] == "auprc":
                    about = tuple(line[name] for name in ("row", "block", "trained_on", "n_annotated", "run"))
                    rows[about].append(_row(line))
    return [
        MethodRun(title, block, trained_on, None if count == MISSING else int(count), run, own, {})
        for (title, block, trained_on, count, run), own in rows.items()
    ]


def _row(line: dict[str, str]) -> Row:
    """Return one value; what the table of a benchmark does not hold is not known."""
    names = ("subject", "pathology", "metric", "unit")
    subject, pathology, metric, unit = (line[name] for name in names)
    place = (line["scan"], subject, "", pathology, None, None, None, float("nan"))
    return Row(*place, line["row"], metric, unit, float("nan" if line["value"] == MISSING else line["value"]))


def contrasts(runs: Sequence[MethodRun], config: MatrixConfig) -> str:
    """Return the contrasts of a configuration as a table: those of the benchmark itself, of runs that it did apart.

    Every fold that has a run in the tables should have all of them.
    """
    folds = {int(run.run.split()[0].removeprefix("fold")) for run in runs}
    cells = [replace(cell, fold=fold) for cell in plan(config) if cell.fold == 0 for fold in folds]
    stated = [entry.contrast for entry in config.contrasts]
    return contrasts_tsv(assess_contrasts(runs, stated, config.pathologies, planned_runs(cells)))


def of_each_run(runs: Sequence[MethodRun], config: MatrixConfig) -> list[str]:
    """Return lines of a Markdown table: each contrast in each run, with a 95 % interval over subjects."""
    names = sorted({run.run for run in runs})
    alone = {}
    for name in names:
        fold = name.split(" ")[0]
        # Rows that are not trained ran with one seed and stand for all of a fold.
        own = [r for r in runs if r.run == name or (r.title in config.baselines and r.run.split(" ")[0] == fold)]
        alone[name] = assess_contrasts(own, [entry.contrast for entry in config.contrasts], config.pathologies)
    lines = [f"| contrast | {' | '.join(names)} |", f"|{'---|' * (len(names) + 1)}"]
    for number, entry in enumerate(config.contrasts):
        found = [alone[name][number] for name in names]
        cells = [f"{f.difference:+.3f} [{f.low:+.3f}, {f.high:+.3f}]" if f.n_subjects else "–" for f in found]
        lines.append(f"| {entry.name} | {' | '.join(cells)} |")
    return lines


def of_rows(runs: Sequence[MethodRun], pairs: Sequence[tuple[str, str]]) -> list[str]:
    """Return lines of a Markdown table: the difference of two rows on diseases learned from and on others."""
    columns = dict.fromkeys(str(row.pathology) for run in runs for row in run.rows)
    diseases = [name for name in columns if name not in ("healthy", SYNTHETIC)]
    lines = ["| difference | learned from | others |", "|---|---|---|"]
    for first, second in pairs:
        stated = [Contrast(columns, first, (second,), columns) for columns in ("seen", "unseen")]
        found = assess_contrasts(runs, stated, diseases)
        cells = [
            f"{one.difference:+.3f} [{one.low:+.3f}, {one.high:+.3f}] ({one.n_subjects})" if one.n_subjects else "–"
            for one in found
        ]
        lines.append(f"| {first} − {second} | {' | '.join(cells)} |")
    return lines


def read_auprc(runs: Sequence[MethodRun]) -> dict[str, dict[str, dict[str, float]]]:
    """Return row → disease → subject → AUPRC, averaged over scans and runs; rows with all annotated subjects only.

    Scans without a lesion have no AUPRC.
    """
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    for run in runs:
        for row in run.rows:
            if run.n_annotated is None and row.pathology != "healthy" and not math.isnan(row.value):
                values[run.title, row.pathology, row.subject].append(row.value)
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for (title, disease, subject), numbers in values.items():
        found[title][disease][subject] = float(np.mean(numbers))
    return found


def differences(table: dict[str, dict[str, dict[str, float]]], first: str, second: str) -> list[str]:
    """Return the mean difference of two rows on the disease that the first learned from, and on the others together."""
    if unknown := [row for row in (first, second) if row not in table]:
        raise SystemExit(f"no row {unknown[0]!r}; there are {', '.join(sorted(table))}")
    learned, cells = _learned(first), []
    for seen in (True, False):
        diseases = [d for d in table[first] if d != SYNTHETIC and (d in learned) == seen]
        pairs = [(d, s) for d in diseases for s in sorted(table[first][d])]
        if not pairs:
            cells.append("–")
            continue
        gain = [table[first][d][s] - table[second][d][s] for d, s in pairs]
        interval = bootstrap_mean(gain, [s for _, s in pairs], seed=0, bounds=SHARE_DIFFERENCE)
        cells.append(f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] ({len(pairs)})")
    return cells


def _learned(title: str) -> list[str]:
    """Return what the row `Unet_res (DAG + tumour, 5)` learned from."""
    return title.rpartition("(")[2].removesuffix(")").split(", ")[0].split(" + ")


def means(runs: Sequence[MethodRun], title: str) -> list[str]:
    """Return the mean AUPRC of a row on what it learned from and on other diseases, with intervals over subjects."""
    own = [replace(run, n_annotated=None) for run in runs if run.title == title]
    if not own:
        raise SystemExit(f"no row {title!r}; there are {', '.join(sorted({run.title for run in runs}))}")
    table, cells = read_auprc(own)[title], []
    for seen in (True, False):
        diseases = [disease for disease in table if disease != SYNTHETIC and (disease in _learned(title)) == seen]
        values = {subject: value for disease in diseases for subject, value in table[disease].items()}
        interval = bootstrap_mean(list(values.values()), list(values), seed=0, bounds=SHARE)
        cells.append(f"{interval.mean:.3f} [{interval.low:.3f}, {interval.high:.3f}] ({len(values)})")
    return cells


def gains(table: dict[str, dict[str, dict[str, float]]], reference: str) -> list[str]:
    """Return lines of a Markdown table: each segmenter of one disease minus the reference, on each disease."""
    diseases = list(table[reference])
    lines = [f"| learned from | method | {' | '.join(diseases)} |", f"|{'---|' * (len(diseases) + 2)}"]
    for learned in diseases:
        for method in _ROWS:
            row = table.get(f"{method} ({learned})")
            if row is None:
                continue
            cells = []
            for disease in diseases:
                subjects = sorted(row[disease])
                gain = [row[disease][s] - table[reference][disease][s] for s in subjects]
                interval = bootstrap_mean(gain, subjects, seed=0, bounds=SHARE_DIFFERENCE)
                p = stats.wilcoxon(gain).pvalue
                star = " ★" if disease == learned else ""
                cells.append(f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] p {p:.3f}{star}")
            lines.append(f"| {learned} | {method} | {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path, nargs="+")
    parser.add_argument("--reference", default="cDDPM")
    parser.add_argument("--pair", nargs=2, action="append", metavar=("FIRST", "SECOND"), default=[])
    parser.add_argument("--rows", nargs=2, action="append", metavar=("FIRST", "SECOND"), default=[])
    parser.add_argument("--mean", action="append", metavar="ROW", default=[])
    parser.add_argument("--contrasts", metavar="CONFIG", type=Path, help="a file, or the name of a shipped one: cpu2")
    parser.add_argument("--each-run", action="store_true", help="the contrasts in each run alone")
    options = parser.parse_args()
    if options.each_run and options.contrasts is None:
        parser.error("--each-run goes with --contrasts")
    runs = read_runs(options.results)
    if options.contrasts is not None:
        config = read_matrix(BenchmarkSettings(config=options.contrasts))
        print("\n".join(of_each_run(runs, config)) + "\n" if options.each_run else contrasts(runs, config), end="")
        return
    if options.rows:
        print("\n".join(of_rows(runs, options.rows)))
        return
    if options.mean:
        print("| row | learned from | others |\n|---|---|---|")
        for title in options.mean:
            print(f"| {title} | {' | '.join(means(runs, title))} |")
        return
    table = read_auprc(runs)
    if options.pair:
        print("| difference | learned from | others |\n|---|---|---|")
        for first, second in options.pair:
            print(f"| {first} − {second} | {' | '.join(differences(table, first, second))} |")
        return
    print("\n".join(gains(table, options.reference)))


if __name__ == "__main__":
    main()
