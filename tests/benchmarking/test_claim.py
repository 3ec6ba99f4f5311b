"""The claim's figures from committed tables: those of the benchmark that made them, also from several tables."""

import csv
import lzma
import math
from dataclasses import replace
from pathlib import Path

import pytest
from benchmarks.claim import contrasts, differences, means, of_each_run, of_rows, read_auprc, read_runs

from halebrain.workflows.benchmark import read_matrix
from halebrain.workflows.settings import BenchmarkSettings

ALL_RESULTS = Path(__file__).parents[2] / "docs" / "results"
RESULTS = ALL_RESULTS / "matrix_cpu2"


COHORTS = ("", "_cohort2")


def tables(modality: str) -> list[Path]:
    """Return the committed tables of all runs of a contrast."""
    return [ALL_RESULTS / f"matrix_cpu2{modality}{part}" / "results.tsv.xz" for part in (*COHORTS, "_seed1", "_seed2")]


def parts(results: Path, folder: Path) -> list[Path]:
    """Write a committed table as two, of half of the rows each."""
    with lzma.open(results / "results.tsv.xz", "rt") as handle:
        header, *lines = handle.readlines()
    titles = sorted({line.split("\t")[1] for line in lines})
    for name, own in (("a.tsv", titles[::2]), ("b.tsv", titles[1::2])):
        (folder / name).write_text(header + "".join(line for line in lines if line.split("\t")[1] in own))
    return [folder / "a.tsv", folder / "b.tsv"]


@pytest.mark.parametrize(
    ("run", "config"),
    [
        ("matrix_cpu2", "cpu2"),
        ("matrix_cpu2_cohort2", "cpu2"),
        ("matrix_cpu2_flair", "cpu2_flair"),
        ("matrix_cpu2_flair_cohort2", "cpu2_flair_dae"),
    ],
)
def test_contrasts_of_committed_tables_are_those_of_the_benchmark(tmp_path, run, config):
    results = ALL_RESULTS / run
    found = contrasts(read_runs(parts(results, tmp_path)), read_matrix(BenchmarkSettings(config=Path(config))))
    made = list(csv.DictReader(found.splitlines(), delimiter="\t"))
    with (results / "contrasts.tsv").open() as handle:
        stated = list(csv.DictReader(handle, delimiter="\t"))
    assert [row["contrast"] for row in made] == [row["contrast"] for row in stated]
    for one, other in zip(made, stated, strict=True):
        for name in ("second", "holds", "subjects", "runs"):
            assert one[name] == other[name]
        for name in ("difference", "low", "high", "p"):
            assert float(one[name]) == pytest.approx(float(other[name]), rel=1e-3, abs=1e-5)


@pytest.mark.slow
def test_the_page_states_what_both_cohorts_give_together():
    page = (ALL_RESULTS.parent / "explanation" / "claim.md").read_text(encoding="utf-8")
    for modality in ("", "_flair"):
        config = read_matrix(BenchmarkSettings(config=Path(f"cpu2{modality}")))
        for row in csv.DictReader(contrasts(read_runs(tables(modality)), config).splitlines(), delimiter="\t"):
            stated = "{:+.3f}".format(float(row["difference"])).replace("-", "−")
            low, high = (f"{float(row[name]):+.3f}".replace("-", "−") for name in ("low", "high"))
            assert f"[{low}, {high}]" in page, (row["contrast"], stated, low, high)
            assert stated in page


@pytest.mark.slow
def test_the_page_states_the_comparison_of_the_paper():
    page = (ALL_RESULTS.parent / "explanation" / "claim.md").read_text(encoding="utf-8")
    for modality in ("", "_flair"):
        runs = read_runs(tables(modality))
        for first in ("SADM_res", "SADM", "Unet_res"):
            (line,) = of_rows(runs, [(first, "cDDPM")])[2:]
            seen, unseen = (cell.rpartition(" (")[0].replace("-", "−") for cell in line.split(" | ")[1:])
            for figures in (seen, unseen):
                difference, _, interval = figures.partition(" ")
                assert difference in page, (modality, first, figures)
                assert interval in page, (modality, first, figures)


def test_the_contrasts_of_each_run_are_those_of_its_table():
    committed = tables("_flair")[: len(COHORTS)]
    config = read_matrix(BenchmarkSettings(config=Path("cpu2_flair")))
    heading, _, *lines = of_each_run(read_runs(committed), config)
    assert heading.split(" | ")[1:] == ["fold0 seed0", "fold1 seed0 |"]
    for column, table in enumerate(committed, start=1):
        alone = list(csv.DictReader(contrasts(read_runs([table]), config).splitlines(), delimiter="\t"))
        for line, row in zip(lines, alone, strict=True):
            assert line.strip("| ").split(" | ")[column].startswith(f"{float(row['difference']):+.3f} ")


@pytest.mark.parametrize("modality", ["", "_flair"])
def test_the_page_states_each_run(modality):
    runs = [f"fold{cohort} seed{seed}" for cohort in (0, 1) for seed in (0, 1, 2)]
    page = (ALL_RESULTS.parent / "explanation" / "claim.md").read_text(encoding="utf-8")
    config = read_matrix(BenchmarkSettings(config=Path(f"cpu2{modality}")))
    heading, _, *lines = of_each_run(read_runs(tables(modality)), config)
    assert heading.strip("| ").split(" | ")[1:] == runs
    for line in lines:
        assert line.split(" | ", 1)[1].replace("-", "−") in page


def test_healthy_scans_have_no_auprc_and_take_no_part():
    table = read_auprc(read_runs([RESULTS / "results.tsv.xz"]))
    assert "healthy" not in table["cDDPM"]
    assert not any(math.isnan(value) for own in table["cDDPM"].values() for value in own.values())


def test_all_that_a_row_learned_from_is_seen():
    table = {
        "pair (DAG + ms)": {"ms": {"a": 0.9, "b": 0.8, "c": 0.9}, "wmh": {"d": 0.2, "e": 0.3, "f": 0.3}},
        "image": {"ms": {"a": 0.4, "b": 0.3, "c": 0.3}, "wmh": {"d": 0.2, "e": 0.2, "f": 0.3}},
    }
    seen, unseen = differences(table, "pair (DAG + ms)", "image")
    assert seen.startswith("+0.533 [")
    assert seen.endswith(" (3)")
    assert unseen.startswith("+0.033 [")


def test_a_scan_without_a_lesion_takes_no_subject_out():
    (run, *_) = read_runs([RESULTS / "results.tsv.xz"])
    whole = read_auprc([run])
    row = next(row for row in run.rows if not math.isnan(row.value))
    more = replace(run, rows=[*run.rows, replace(row, scan_id="later", value=math.nan)])
    assert read_auprc([more]) == whole


def test_the_mean_of_a_row_is_that_of_its_subjects_by_what_it_learned_from():
    runs = read_runs([ALL_RESULTS / "matrix_cpu" / "results.tsv.xz"])
    for title in ("Unet_res (tumour, 5)", "Unet_res (DAG + tumour)"):
        values: dict[bool, dict[str, list[float]]] = {True: {}, False: {}}
        for run in runs:
            for row in run.rows if run.title == title else ():
                if not math.isnan(row.value) and row.pathology != "synthetic":
                    values[row.pathology == "tumour"].setdefault(row.subject, []).append(row.value)
        for cell, own in zip(means(runs, title), (values[True], values[False]), strict=True):
            mean = sum(sum(found) / len(found) for found in own.values()) / len(own)
            assert cell.startswith(f"{mean:.3f} [")
            assert cell.endswith(f" ({len(own)})")
    with pytest.raises(SystemExit, match="no row 'Unet_nothing'"):
        means(runs, "Unet_nothing")


def test_the_page_states_what_few_annotated_scans_give():
    page = (ALL_RESULTS.parent / "explanation" / "claim.md").read_text(encoding="utf-8")
    few = read_runs([ALL_RESULTS / "matrix_cpu2_few" / "results.tsv.xz"])
    every = read_runs([RESULTS / "results.tsv.xz"])
    for runs, learned in [(few, f"tumour, {n}") for n in (1, 5, 20)] + [(every, "tumour"), (few, "DAG + tumour")]:
        pair, fused = (means(runs, f"{name} ({learned})") for name in ("Unet_res", "SADM_res"))
        for cells in zip(pair, fused, strict=True):
            pair_cell, fused_cell = (cell.rpartition(" (")[0].replace("**", "") for cell in cells)
            assert f"{pair_cell} | {fused_cell}" in page.replace("**", ""), (learned, cells)


@pytest.mark.parametrize("run", ["matrix_cpu2_draem", "matrix_cpu2_draem_code"])
def test_the_page_states_what_more_steps_or_others_of_synthetic_anomalies_give(run):
    page = (ALL_RESULTS.parent / "explanation" / "claim.md").read_text(encoding="utf-8")
    with (ALL_RESULTS / run / "matrix.tsv").open(encoding="utf-8") as handle:
        found = {row["column"]: row for row in csv.DictReader(handle, delimiter="\t") if row["row"] == "Unet (DRAEM)"}
    for column in ("synthetic", "tumour"):
        mean, low, high = (float(found[column][name]) for name in ("auprc", "auprc_low", "auprc_high"))
        assert f"{mean:.2f} [{low:.2f}, {high:.2f}]" in page
