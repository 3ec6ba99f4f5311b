"""What a benchmark is given: the dry run, raw scans, tables and folders that cannot be used, each in one clear line."""

import json
from dataclasses import replace
from pathlib import Path

import pytest
import yaml

from halebrain.benchmarking.config import MatrixConfig
from halebrain.benchmarking.inputs import missing_inputs, refuse_raw
from halebrain.benchmarking.plan import plan
from halebrain.core.config import merged, parse_config
from halebrain.core.errors import DataError
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data.prepare import PrepareTask, prepare_scan
from halebrain.data.prepared_set import read_entries
from halebrain.io.manifest import Manifest
from halebrain.preprocessing.pipeline import PreprocessingConfig
from small_matrix import GRID, MATRIX

ROWS = [(f"h{n}", "FLAIR", split, "healthy") for n, split in enumerate(("train", "val", "test"))]
ROWS += [(f"m{n}", "FLAIR", split, "ms") for n, split in enumerate(("train", "val", "test"))]


@pytest.fixture
def benchmark(command, tmp_path):
    """Run a benchmark of the file above with changes, and return exit code and what it said."""

    def run(*options, **changes):
        path = tmp_path / "matrix.yaml"
        path.write_text(yaml.safe_dump(merged(MATRIX, changes)))
        return command("benchmark", "-c", path, "-o", tmp_path / "out", "--no-progress", *options)

    return run


def test_a_dry_run_tells_cells_cost_and_memory_and_writes_nothing(benchmark, small_cohort, tmp_path):
    manifest = str(small_cohort(ROWS))
    code, said = benchmark("--dry-run", "--tflops", 2, manifest=manifest)
    assert code == 0, said.err
    header, *lines = [line.split("\t") for line in said.out.splitlines()]
    assert header == ["cell", "kind", "times", "done", "PFLOP each", "hours each", "GB"]
    assert [line[:4] for line in lines] == [
        ["baselines", "baseline", "1", "0"],
        ["ae", "reconstructor", "1", "0"],
        ["pair-ms", "segmenter", "1", "0"],
    ]
    assert "at 2 TFLOP/s" in said.err
    assert "missing" not in said.err
    assert not (tmp_path / "out").exists()
    found = json.loads(benchmark("--dry-run", "--tflops", 2, "--json", manifest=manifest)[1].out)
    assert found["flop"] == sum(cell["flop_training"] + cell["flop_evaluation"] for cell in found["cells"]) > 0
    assert found["hours"] == pytest.approx(found["flop"] / 2e12 / 3600)
    # Four scans of validation and test on the working grid, and the reconstruction at the one level of each.
    assert found["disk_bytes"] == 4 * 32 * 32 * 24 * (6 + 4)


def test_a_dry_run_lists_all_that_is_missing(benchmark, small_cohort, tmp_path):
    manifest = small_cohort([row for row in ROWS if row[0] not in ("m1", "h0")])
    fae = {"settings": {"reconstructor": {"name": "fae", "settings": {}}}, "row": "FAE"}
    changes = {
        "folds": [str(manifest), str(tmp_path / "no.tsv")],
        "pathologies": ["ms", "stroke"],
        "reconstructors": {"fae": fae, "ae": {"settings": {"encoder_weights": "none.safetensors"}}},
    }
    code, said = benchmark("--dry-run", **changes)
    assert code == 3
    told = [line.removeprefix("halebrain: ") for line in said.err.splitlines() if "missing: " in line]
    for words in (
        "no healthy scan of the split 'train', for the reconstructors",
        "no annotated ms scan of the split 'val'",
        "no annotated stroke scan of the split 'test', for its column",
        "no.tsv",
        "ae: the file of encoder_weights does not exist: none.safetensors",
        "fae: pretrained weights of resnet18, give --set reconstructors.fae.settings.reconstructor.settings.weights",
    ):
        assert len([line for line in told if words in line]) == 1, (words, told)
    assert len(told) == 6


def test_nothing_is_missing_of_a_virtual_cohort():
    config = parse_config(MatrixConfig, MATRIX)
    assert missing_inputs(config, plan(config), {}) == []


@pytest.mark.parametrize("dry", [True, False])
def test_raw_scans_are_refused(benchmark, small_cohort, tmp_path, dry):
    code, said = benchmark(
        *(["--dry-run"] if dry else []),
        manifest=str(small_cohort(ROWS)),
        preprocessing={"registration": "affine"},
    )
    assert code == (3 if dry else 65)
    line = said.err.splitlines()[-1]
    assert "the scans of a benchmark must be prepared first, got 6 raw of 6 scans, sub-h0_FLAIR and 5 more" in line
    assert "run halebrain prepare on it" in line
    assert not (tmp_path / "out" / "cells").exists()


def test_scans_in_template_space_with_a_brain_mask_are_not_raw(small_cohort):
    rows = Manifest.read(small_cohort(ROWS))
    config = PreprocessingConfig.model_validate({**GRID, "registration": "affine"})
    placed = replace(rows, records=tuple(replace(r, space=TEMPLATE_SPACE) for r in rows))
    with pytest.raises(DataError, match="prepared first"):
        refuse_raw(placed, config)
    masked = replace(placed, records=tuple(replace(r, brain_mask=r.image) for r in placed))
    refuse_raw(masked, config)


def test_prepared_scans_are_taken_and_those_of_other_settings_refused(small_cohort, tmp_path):
    rows, config = Manifest.read(small_cohort(ROWS[:1])), PreprocessingConfig.model_validate(GRID)
    prepare_scan(PrepareTask(rows.records[0], tmp_path / "set", config))
    prepared = Manifest(tuple(entry.working for entry in read_entries(tmp_path / "set")))
    refuse_raw(prepared, config)
    other = config.model_copy(update={"denoising_iterations": 3})
    with pytest.raises(DataError, match="denoising_iterations 0 instead of 3"):
        refuse_raw(prepared, other)


@pytest.mark.parametrize(
    ("changes", "options", "code", "words"),
    [
        ({"patologies": ["ms"]}, (), 78, "did you mean 'pathologies'"),
        ({"segmenters": {"pair": {"settings": {"regimes": "weak"}}}}, (), 78, "regime"),
        ({"modality": "T1w"}, (), 66, "a benchmark in T1w needs scans of it, got FLAIR"),
        ({}, ("--folds", "nowhere"), 66, "a folder of folds must hold fold0.tsv"),
        ({}, ("--tflops", 3), 2, "--tflops needs --dry-run"),
    ],
)
def test_what_cannot_be_used_is_one_line_before_any_training(
    benchmark, small_cohort, tmp_path, changes, options, code, words
):
    found, said = benchmark(*options, manifest=str(small_cohort(ROWS)), **changes)
    assert found == code, said.err
    (line,) = said.err.splitlines()
    assert words in line
    assert not (tmp_path / "out" / "cells").exists()


def test_a_subject_in_two_splits_is_refused(benchmark, small_cohort):
    path = small_cohort([*ROWS, ("h0", "T1w", "train", "healthy")])
    text = path.read_text()
    path.write_text(
        "".join(line.replace("\ttrain\t", "\ttest\t") if "h0_T1w" in line else line for line in text.splitlines(True))
    )
    code, said = benchmark(manifest=str(path))
    assert code == 65
    assert "a subject must be in one split only, got h0 (test, train)" in said.err
    code, said = benchmark("--dry-run", manifest=str(path))
    assert code == 3
    assert "missing: a subject must be in one split only" in said.err


def test_the_tables_of_a_folder_are_the_folds(benchmark, small_cohort, command, tmp_path):
    rows = [(f"h{n}", "FLAIR", "train", "healthy") for n in range(6)] + [
        (f"m{n}", "FLAIR", "test", "ms") for n in range(4)
    ]
    split = ("--folds", 2, "--val", 1, "--test", 2, "--weak", "ms=1:1")
    assert command("folds", "--manifest", small_cohort(rows), "-o", tmp_path / "folds", *split)[0] == 0
    code, said = benchmark("--dry-run", "--folds", tmp_path / "folds", "--json")
    assert code == 0, said.err
    assert {Path(cell["cell"]).parts[0] for cell in json.loads(said.out)["cells"]} == {"fold0", "fold1"}
    (tmp_path / "folds" / "fold0.tsv").unlink()
    code, said = benchmark("--dry-run", "--folds", tmp_path / "folds")
    assert code == 66
    assert "got fold1.tsv" in said.err
