"""What a user is told of scans that no model can judge: through the command line, beside the maps."""

import json

import numpy as np
import pytest
from scipy import ndimage

from halebrain.io.nifti import write_volume
from halebrain.preprocessing.geometry import working_grid
from halebrain.simulation.anatomy import template_tissues

T1 = (0.90, 0.56, 0.74, 0.12, 0.10)
FDG = (0.40, 0.90, 0.95, 0.12, 0.10)
SHAPE = (96, 96, 80)


@pytest.fixture
def detect(command, untrained_model, tmp_path):
    """Run `detect` on an image with the header of the template; return what it warned of, and the quality control."""

    def call(data, name):
        path = tmp_path / f"{name}.nii.gz"
        affine = working_grid(SHAPE, 2.0).affine
        affine[:3] *= 0.95  # people are smaller than the template
        write_volume(path, data.astype(np.float32), affine)
        options = ("-m", untrained_model, "--threshold", 0.3, "--no-progress")
        code, said = command("detect", "-i", path, "-o", tmp_path / "out", *options)
        assert code == 0, said.err
        provenance = next((tmp_path / "out").glob("*_provenance.json"))
        return said.err, json.loads(provenance.read_text())["qc"]

    return call


def paint(means, resolution_mm):
    tissues = template_tissues(SHAPE, 2.0)
    mask = tissues.sum(axis=0) > 0.5
    image = ndimage.gaussian_filter(np.tensordot(np.array(means), tissues, axes=1), resolution_mm / 2.355 / 2.0)
    return np.where(mask, 1000 * image + 1, 0)


@pytest.mark.slow
def test_a_scan_that_is_upside_down(detect):
    said, qc = detect(paint(T1, 3)[:, :, ::-1], "scan_T1w")
    assert "halebrain: warning: scan_T1w: seems to be upside down" in said
    assert qc["out_of_distribution"]
    assert all(reason in said for reason in qc["out_of_distribution_reasons"])


@pytest.mark.slow
def test_a_pet(detect):
    said, qc = detect(paint(FDG, 7), "scan_T1w")
    assert "halebrain: warning: scan_T1w: intensities unlike T1w, T2w and FLAIR" in said
    assert "as smooth as PET" in said
    assert qc["contrast"] == "unknown"
    assert qc["out_of_distribution"]


@pytest.mark.slow
def test_a_t1_that_is_called_flair(detect):
    said, qc = detect(paint(T1, 3), "scan_FLAIR")
    assert "its name says FLAIR, but the image looks like T1w" in said
    assert qc["contrast"] == "T1w"
    assert not qc["out_of_distribution"]
