"""The paper's claim on a benchmark's results: what learning from one disease gives on it, and on the others.

For every segmenter that learned from one disease: mean difference of its AUPRC to the reference, subject by subject, on
each disease, with a bootstrap interval over subjects and an uncorrected Wilcoxon p. Runs are averaged first.

    python benchmarks/claim.py results.tsv [--reference cDDPM]

With `--pair FIRST SECOND` (repeatable) the difference of two rows instead, on the disease that FIRST learned from and
on the others together:

    python benchmarks/claim.py results.tsv --pair "Unet_DAE (tumour)" "Unet (tumour)"
"""

import argparse
import csv
import lzma
from collections import defaultdict
from pathlib import Path

import numpy as np
from scipy import stats

from halebrain.benchmarking.config import SYNTHETIC
from halebrain.evaluation.statistics import SHARE_DIFFERENCE, bootstrap_mean

_ROWS = ("Unet", "SADM", "Unet_res", "SADM_res")


def read_auprc(path: Path) -> dict[str, dict[str, dict[str, float]]]:
    """Return row → disease → subject → AUPRC, averaged over scans and runs; rows with all annotated subjects only."""
    values: dict[tuple[str, str, str], list[float]] = defaultdict(list)
    with lzma.open(path, "rt") if path.suffix == ".xz" else path.open(encoding="utf-8") as handle:
        for line in csv.DictReader(handle, delimiter="\t"):
            if line["metric"] == "auprc" and line["n_annotated"] == "n/a" and line["pathology"] != "healthy":
                values[line["row"], line["pathology"], line["subject"]].append(float(line["value"]))
    found: dict[str, dict[str, dict[str, float]]] = defaultdict(lambda: defaultdict(dict))
    for (row, disease, subject), numbers in values.items():
        found[row][disease][subject] = float(np.mean(numbers))
    return found


def differences(table: dict[str, dict[str, dict[str, float]]], first: str, second: str) -> list[str]:
    """Return the mean difference of two rows on the disease that the first learned from, and on the others together."""
    if unknown := [row for row in (first, second) if row not in table]:
        raise SystemExit(f"no row {unknown[0]!r}; there are {', '.join(sorted(table))}")
    cells = []
    for seen in (True, False):
        diseases = [d for d in table[first] if d != SYNTHETIC and first.endswith(f"({d})") == seen]
        pairs = [(d, s) for d in diseases for s in sorted(table[first][d])]
        if not pairs:
            cells.append("–")
            continue
        gain = [table[first][d][s] - table[second][d][s] for d, s in pairs]
        interval = bootstrap_mean(gain, [s for _, s in pairs], seed=0, bounds=SHARE_DIFFERENCE)
        cells.append(f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] ({len(pairs)})")
    return cells


def main() -> None:
    """Print the table as Markdown."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("results", type=Path)
    parser.add_argument("--reference", default="cDDPM")
    parser.add_argument("--pair", nargs=2, action="append", metavar=("FIRST", "SECOND"), default=[])
    options = parser.parse_args()
    table = read_auprc(options.results)
    if options.pair:
        print("| difference | learned from | others |\n|---|---|---|")
        for first, second in options.pair:
            print(f"| {first} − {second} | {' | '.join(differences(table, first, second))} |")
        return
    diseases = list(table[options.reference])
    print(f"| learned from | method | {' | '.join(diseases)} |\n|{'---|' * (len(diseases) + 2)}")
    for learned in diseases:
        for method in _ROWS:
            row = table.get(f"{method} ({learned})")
            if row is None:
                continue
            cells = []
            for disease in diseases:
                subjects = sorted(row[disease])
                gain = [row[disease][s] - table[options.reference][disease][s] for s in subjects]
                interval = bootstrap_mean(gain, subjects, seed=0, bounds=SHARE_DIFFERENCE)
                p = stats.wilcoxon(gain).pvalue
                star = " ★" if disease == learned else ""
                cells.append(f"{interval.mean:+.3f} [{interval.low:+.3f}, {interval.high:+.3f}] p {p:.3f}{star}")
            print(f"| {learned} | {method} | {' | '.join(cells)} |")


if __name__ == "__main__":
    main()
