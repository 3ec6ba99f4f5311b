"""Thresholds come from scans that the model did not learn from, or not at all."""

from dataclasses import replace
from pathlib import Path

import pytest
import torch

from halebrain.cli.calibrate import run_calibration
from halebrain.core.errors import DataError, MissingInputError
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.models.bundle import load_bundle, save_bundle


@pytest.fixture
def trained(untrained_model, tmp_path):
    stages = {"stage1": {"train_subjects": ["a"], "val_subjects": ["b"]}}
    save_bundle(replace(load_bundle(untrained_model), training=stages), tmp_path / "model", card="")
    return tmp_path / "model"


def rows(*subjects):
    return Manifest(
        tuple(ScanRecord(subject=s, image=Path(f"{s}.nii"), modality="FLAIR", split="val") for s in subjects)
    )


def test_a_subject_of_the_training_is_refused(trained):
    with pytest.raises(DataError, match=r"must not be calibrated on, got a \(stage1\)"):
        run_calibration(trained, rows("a", "c"), seed=0, device=torch.device("cpu"))


def test_a_subject_of_the_validation_may_take_part(trained):
    # It is looked for on disk, so it was not refused.
    with pytest.raises(MissingInputError, match=r"b\.nii"):
        run_calibration(trained, rows("b"), seed=0, device=torch.device("cpu"))
