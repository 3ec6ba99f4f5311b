"""Prepared scans: taken as they are, refused where they are not what is asked for."""

import numpy as np
import pytest

from halebrain.core.errors import DataError
from halebrain.io.manifest import ScanRecord
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_volume
from halebrain.preprocessing.pipeline import PreprocessingConfig, Preprocessor
from halebrain.preprocessing.prepared import as_prepared, open_scan, prepared_files, read_sidecar, write_prepared

CONFIG = PreprocessingConfig(shape=(24, 28, 24), spacing_mm=8.0, registration="none", bias_correction="none")


@pytest.fixture
def scan(tmp_path):
    i, j, k = np.meshgrid(*(np.linspace(-1, 1, n) for n in (40, 48, 40)), indexing="ij")
    inside = i**2 + j**2 + k**2 < 0.8
    data = np.where(inside, 100 + 40 * i + 10 * np.sin(9 * j), 0).astype(np.float32)
    affine = np.diag([4.0, 4.0, 4.0, 1.0])
    affine[:3, 3] = [-80, -110, -75]
    path = tmp_path / "raw.nii.gz"
    write_volume(path, data, affine)
    return path


def prepare(scan, folder, **about):
    working = Preprocessor(CONFIG).run(read_volume(scan))
    files = prepared_files(folder, ScanRecord(subject="01", image=scan, modality="T1w"))
    write_prepared(files, working, config=CONFIG, lesion=working.image > 0.9, about=about)
    return files, working


@pytest.mark.slow
def test_what_is_read_is_what_was_written(scan, tmp_path):
    files, working = prepare(scan, tmp_path / "set", source="raw")
    assert files.image.name == "sub-01_space-MNI152NLin2009aSym_desc-preproc_T1w.nii.gz"
    again = open_scan(Preprocessor(CONFIG), read_volume(files.image), files.image, brain_mask=files.brain_mask)
    np.testing.assert_array_equal(again.image, working.image)
    np.testing.assert_array_equal(again.brain_mask, working.brain_mask)
    np.testing.assert_allclose(again.grid.affine, working.grid.affine)
    assert again.content == working.content, "noise is seeded by it, so maps are those of the raw scan"
    assert again.qc == working.qc
    np.testing.assert_array_equal(again.to_native(again.image), working.image)
    assert read_sidecar(files.image)["source"] == "raw"


@pytest.mark.parametrize(
    ("session", "entities", "image", "mask"),
    [
        (None, None, "sub-01", "sub-01_rec-FLAIR"),
        ("a", "acq-3d_run-2", "sub-01_ses-a_acq-3d_run-2", "sub-01_ses-a_acq-3d_run-2_rec-FLAIR"),
        (None, "space-T1w", "sub-01_rec-spaceT1w", "sub-01_rec-spaceT1wFLAIR"),
        (None, "rec-norm_run-1", "sub-01_rec-norm_run-1", "sub-01_rec-normFLAIR_run-1"),
        (None, "rec-norm_space-orig_desc-x", "sub-01_rec-normspaceorigdescx", "sub-01_rec-normspaceorigdescxFLAIR"),
    ],
)
def test_no_entity_stands_twice_in_a_name(scan, tmp_path, session, entities, image, mask):
    record = ScanRecord(subject="01", image=scan, modality="FLAIR", session=session, entities=entities)
    files = prepared_files(tmp_path, record, "atlas")
    assert files.image.name == f"{image}_space-atlas_desc-preproc_FLAIR.nii.gz"
    assert files.healthy.name == f"{image}_space-atlas_desc-healthy_FLAIR.nii.gz"
    assert files.brain_mask.name == f"{mask}_space-atlas_desc-brain_mask.nii.gz"
    assert files.lesion.name == f"{mask}_space-atlas_label-lesion_mask.nii.gz"
    assert files.native_brain_mask.name == f"{mask}_desc-brain_mask.nii.gz"
    for path in vars(files).values():
        keys = [part.partition("-")[0] for part in path.name.split("_")[:-1]]
        assert len(keys) == len(set(keys)), path.name


def test_the_same_scan_gives_the_same_bytes(scan, tmp_path):
    one, _ = prepare(scan, tmp_path / "a")
    other, _ = prepare(scan, tmp_path / "b")
    for name in ("image", "brain_mask", "lesion", "native_brain_mask", "sidecar"):
        assert getattr(one, name).read_bytes() == getattr(other, name).read_bytes(), name


def test_other_settings_are_refused_by_name(scan, tmp_path):
    files, _ = prepare(scan, tmp_path / "set")
    other = CONFIG.model_copy(update={"high_percentile": 98.0, "brain": "atlas"})
    with pytest.raises(DataError, match=r"high_percentile 99\.0 instead of 98\.0") as caught:
        as_prepared(read_volume(files.image), files.image, files.brain_mask, other)
    assert "brain" not in caught.value.received, "how the brain was found is done with"
    with pytest.raises(DataError, match="needs its brain mask"):
        as_prepared(read_volume(files.image), files.image, None, CONFIG)


def test_a_mask_of_another_grid_is_refused(scan, tmp_path):
    files, _ = prepare(scan, tmp_path / "set")
    with pytest.raises(DataError, match="a mask must lie on the grid of its scan"):
        as_prepared(read_volume(files.image), files.image, files.native_brain_mask, CONFIG)


@pytest.mark.parametrize("text", ["{}", "no json", '["a list"]', '{"HaleBrainPrepared": 99}'])
def test_another_sidecar_does_not_make_a_scan_prepared(scan, text):
    scan.with_name("raw.json").write_text(text, encoding="utf-8")
    assert as_prepared(read_volume(scan), scan, None, CONFIG) is None
