"""Results are those of the scans that made them: a file that holds something else later is refused."""

import shutil
from dataclasses import replace

import pytest
import torch

from halebrain.benchmarking.config import MatrixConfig
from halebrain.benchmarking.contents import check_contents, check_weights
from halebrain.benchmarking.run import run_benchmark
from halebrain.core.config import merged, parse_config
from halebrain.core.errors import DataError
from halebrain.io.manifest import Manifest
from small_matrix import AE, MATRIX


@pytest.fixture
def rows(small_cohort):
    path = small_cohort([("h0", "FLAIR", "train", "healthy"), ("ms0", "FLAIR", "test", "ms")])
    return Manifest.read(path)


def test_a_corrected_mask_is_noticed(tmp_path, rows):
    check_contents(tmp_path, 0, rows)
    check_contents(tmp_path, 0, rows)
    ill = next(row for row in rows if row.is_annotated)
    kept = tmp_path / "kept"
    shutil.copyfile(ill.lesion, kept)
    shutil.copyfile(ill.image, ill.lesion)
    with pytest.raises(DataError, match="must not change, got 1 changed, the first the lesion of sub-ms0"):
        check_contents(tmp_path, 0, rows)
    shutil.copyfile(kept, ill.lesion)
    check_contents(tmp_path, 0, rows)


def test_a_moved_data_set_is_the_same_and_a_file_that_comes_back_is_compared(tmp_path, rows):
    ill = next(row for row in rows if row.is_annotated)
    check_contents(tmp_path, 0, rows)
    lost = tmp_path / "lost"
    shutil.move(ill.lesion, lost)
    check_contents(tmp_path, 0, rows)
    shutil.copyfile(ill.image, ill.lesion)
    with pytest.raises(DataError, match="the first the lesion"):
        check_contents(tmp_path, 0, rows)


@pytest.mark.parametrize("is_added", [True, False])
def test_a_mask_that_the_table_did_not_name_before_or_names_no_more_is_noticed(tmp_path, rows, is_added):
    without = replace(rows, records=tuple(replace(row, lesion=None) for row in rows))
    first, second = (without, rows) if is_added else (rows, without)
    assert first.fingerprint() == second.fingerprint(), "results of cells would be kept"
    check_contents(tmp_path, 0, first)
    with pytest.raises(DataError, match=r"must not change, got \d changed, the first the lesion of sub-"):
        check_contents(tmp_path, 0, second)
    check_contents(tmp_path, 0, first)


def test_a_file_that_is_not_there_yet_may_come(tmp_path, rows):
    ill = next(row for row in rows if row.is_annotated)
    away = shutil.move(ill.lesion, tmp_path / "away")
    check_contents(tmp_path, 0, rows)
    shutil.move(away, ill.lesion)
    check_contents(tmp_path, 0, rows)
    shutil.copyfile(ill.image, ill.lesion)
    with pytest.raises(DataError, match="the first the lesion"):
        check_contents(tmp_path, 0, rows)


def test_folds_and_further_scans_are_apart(tmp_path, rows):
    check_contents(tmp_path, 0, rows.select(lambda row: row.is_healthy))
    check_contents(tmp_path, 1, rows)
    check_contents(tmp_path, 0, rows)
    ill = next(row for row in rows if row.is_annotated)
    shutil.copyfile(ill.image, ill.lesion)
    with pytest.raises(DataError, match="the first the lesion"):  # of a further scan
        check_contents(tmp_path, 0, rows)
    assert {path.name for path in (tmp_path / "contents").glob("*.json")} == {"fold0.json", "fold1.json"}


def test_weights_that_a_training_starts_from_are_noticed(tmp_path):
    file, model = tmp_path / "encoder.safetensors", tmp_path / "model"
    model.mkdir()
    for path in (file, model / "config.json"):
        path.write_text("before")
    check_weights(tmp_path / "out", [file, model, tmp_path / "not there"])
    check_weights(tmp_path / "out", [file, model])
    for path, named in ((file, file), (model / "config.json", model)):
        path.write_text("after")
        with pytest.raises(DataError, match=f"must not change.*{named.name}"):
            check_weights(tmp_path / "out", [file, model])
        path.write_text("before")
    check_weights(tmp_path / "out", [file, model])


def test_a_benchmark_that_starts_from_other_weights_trains_nothing(tmp_path, small_cohort):
    table = small_cohort([(f"h{n}", "FLAIR", split, "healthy") for n, split in enumerate(("train", "val", "test"))])
    file = tmp_path / "encoder.safetensors"
    file.write_text("before")
    check_weights(tmp_path / "out", [file])
    file.write_text("after")
    started = {"ae": merged(AE, {"settings": {"encoder_weights": str(file)}})}
    raw = MATRIX | {"manifest": str(table), "reconstructors": started, "segmenters": {}}
    with pytest.raises(DataError, match="the weights that a benchmark starts from must not change"):
        run_benchmark(parse_config(MatrixConfig, raw), tmp_path / "out", device=torch.device("cpu"))
    assert not (tmp_path / "out" / "cells").exists()


def test_a_benchmark_without_such_weights_keeps_no_list(tmp_path):
    check_weights(tmp_path / "out", [])
    assert not (tmp_path / "out").exists()
