"""The claim's figures from committed tables: those of the benchmark that made them, also from several tables."""

import csv
import lzma
import math
from pathlib import Path

import pytest
from benchmarks.claim import contrasts, read_auprc, read_runs

from halebrain.workflows.benchmark import read_matrix
from halebrain.workflows.settings import BenchmarkSettings

RESULTS = Path(__file__).parents[2] / "docs" / "results" / "matrix_cpu2"


def parts(folder: Path) -> list[Path]:
    """Write the committed table as two, of half of the rows each."""
    with lzma.open(RESULTS / "results.tsv.xz", "rt") as handle:
        header, *lines = handle.readlines()
    titles = sorted({line.split("\t")[1] for line in lines})
    for name, own in (("a.tsv", titles[::2]), ("b.tsv", titles[1::2])):
        (folder / name).write_text(header + "".join(line for line in lines if line.split("\t")[1] in own))
    return [folder / "a.tsv", folder / "b.tsv"]


def test_contrasts_of_committed_tables_are_those_of_the_benchmark(tmp_path):
    found = contrasts(read_runs(parts(tmp_path)), read_matrix(BenchmarkSettings(config=Path("cpu2"))))
    made = list(csv.DictReader(found.splitlines(), delimiter="\t"))
    with (RESULTS / "contrasts.tsv").open() as handle:
        stated = list(csv.DictReader(handle, delimiter="\t"))
    assert [row["contrast"] for row in made] == [row["contrast"] for row in stated]
    for one, other in zip(made, stated, strict=True):
        for name in ("second", "holds", "subjects", "runs"):
            assert one[name] == other[name]
        for name in ("difference", "low", "high", "p"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-3, abs=1e-5)


def test_healthy_scans_have_no_auprc_and_take_no_part():
    table = read_auprc(read_runs([RESULTS / "results.tsv.xz"]))
    assert "healthy" not in table["cDDPM"]
    assert not any(math.isnan(value) for own in table["cDDPM"].values() for value in own.values())
