"""What `detect` writes lies where the scan lies, for every program; and `evaluate` scores it as it was meant."""

import json

import nibabel
import numpy as np
import pytest
import SimpleITK

import halebrain
from halebrain.io.manifest import Manifest

SHIFT_MM = (10.0, -14.0, 5.0)
APART_MM = float(np.linalg.norm(SHIFT_MM))
"""17.9 mm."""
FORM_FIELDS = ("pixdim", "quatern_b", "quatern_c", "quatern_d", "qoffset_x", "qoffset_y", "qoffset_z")
FORM_FIELDS += ("srow_x", "srow_y", "srow_z", "qform_code", "sform_code")


@pytest.fixture
def record(small_cohort):
    return next(iter(Manifest.read(small_cohort([("p", "FLAIR", "test", "ms")]))))


def place_twice(path):
    """Give a scan a qform that lies elsewhere than its sform, as after a registration that changed one of them."""
    image = nibabel.load(path)
    moved = image.affine.copy()
    moved[:3, 3] += SHIFT_MM
    image.set_sform(image.affine, code=2)
    image.set_qform(moved, code=1)
    nibabel.save(nibabel.Nifti1Image(np.asarray(image.dataobj), None, image.header), path)


def same_place(path, scan):
    one, other = nibabel.load(path), nibabel.load(scan)
    for name in FORM_FIELDS:
        size = 4 if name == "pixdim" else None
        np.testing.assert_array_equal(
            one.header[name][:size] if size else one.header[name],
            other.header[name][:size] if size else other.header[name],
            err_msg=name,
        )
    np.testing.assert_array_equal(one.affine, other.affine)
    first, second = SimpleITK.ReadImage(str(path)), SimpleITK.ReadImage(str(scan))
    assert first.GetOrigin() == second.GetOrigin()
    assert first.GetDirection() == second.GetDirection()
    assert first.GetSpacing() == second.GetSpacing()


@pytest.mark.slow
def test_results_lie_where_the_scan_does_for_every_program(command, bundled, record, tmp_path):
    place_twice(record.image)
    out = tmp_path / "out"
    code, said = command("detect", "-i", record.image, "-o", out, "--threshold", 0.05, "--no-progress")
    assert code == 0
    assert f"sform and qform of its header differ by {APART_MM:.1f} mm" in said.err
    written = sorted(out.glob("*.nii.gz"))
    assert len(written) == 7
    for path in written:
        same_place(path, record.image)
    assert command("report", out, "--threshold", 0.1, "--no-progress")[0] == 0
    same_place(out / "sub-p_rec-FLAIR_desc-anomaly_mask.nii.gz", record.image)
    found = halebrain.detect(nibabel.load(record.image), threshold=0.05, device="cpu")
    assert found.qc["placements_apart_mm"] == pytest.approx(APART_MM, abs=0.01)
    nibabel.save(found.mask, tmp_path / "mask.nii.gz")
    same_place(tmp_path / "mask.nii.gz", record.image)


def test_one_placement_is_no_flag(bundled, record):
    found = halebrain.detect(record.image, threshold=0.05, device="cpu")
    assert found.qc["placements_apart_mm"] == 0
    assert not [flag for flag in found.qc["flags"] if "twice" in flag]


@pytest.mark.slow
def test_own_scores_are_evaluated_at_their_threshold(command, bundled, record, tmp_path):
    out, maps, truth = tmp_path / "out", tmp_path / "maps", tmp_path / "truth"
    assert command("detect", "-i", record.image, "-o", out, "--threshold", 0.05, "--no-progress")[0] == 0
    for folder, path in ((maps, out / "sub-p_rec-FLAIR_desc-anomaly_probseg.nii.gz"), (truth, record.lesion)):
        folder.mkdir()
        (folder / path.name).write_bytes(path.read_bytes())
    score = nibabel.load(next(maps.iterdir())).get_fdata()
    lesion = nibabel.load(record.lesion).get_fdata() > 0
    threshold = float(np.quantile(score[score > 0], 0.9))
    marked = score.astype(np.float32) >= threshold
    expected = 2 * (marked & lesion).sum() / (marked.sum() + lesion.sum())
    assert 0 < marked.sum() < (score > 0).sum()
    how = ("--predictions", maps, "--references", truth, "--no-progress")
    code, said = command("evaluate", *how, "--threshold", threshold, "-o", tmp_path / "e")
    assert code == 0
    assert "predictions are read as anomaly maps" in said.err
    summary = json.loads((tmp_path / "e" / "summary.json").read_text())
    assert summary["provenance"]["options"]["graded"] is True
    dice = next(s["mean"] for s in summary["summaries"] if (s["group"], s["metric"]) == ("all", "dice"))
    assert dice == pytest.approx(expected, abs=1e-5)
    assert "predictions are read as anomaly maps" in (tmp_path / "e" / "index.html").read_text()


@pytest.mark.slow
def test_a_brain_mask_with_ringing_is_cut_at_one_half_and_noted(command, bundled, record, tmp_path):
    from scipy import ndimage

    image = nibabel.load(record.image)
    brain = np.asarray(image.dataobj) > 0
    soft = ndimage.shift(ndimage.shift(brain.astype(float), [0.3] * 3, order=3), [-0.3] * 3, order=3)
    turned = nibabel.Nifti1Image(soft.astype(np.float32)[..., None, None], image.affine)
    nibabel.save(turned, tmp_path / "soft.nii.gz")
    out = tmp_path / "out"
    how = ("--brain-mask", tmp_path / "soft.nii.gz", "--threshold", 0.05, "--no-progress")
    code, said = command("detect", "-i", record.image, "-o", out, *how)
    assert code == 0
    assert "warning: sub-p_FLAIR: soft.nii.gz: " in said.err
    assert "hold fractions; cut at 0.5" in said.err
    used = np.asarray(nibabel.load(out / "sub-p_rec-FLAIR_desc-brain_mask.nii.gz").dataobj) > 0
    np.testing.assert_array_equal(used, brain)
    flags = json.loads((out / "sub-p_rec-FLAIR_desc-anomaly_provenance.json").read_text())["qc"]["flags"]
    assert flags[0].startswith("soft.nii.gz: ")


def test_a_brain_mask_and_a_way_to_find_one_exclude_each_other(command, record, tmp_path):
    how = ("--brain-mask", record.image, "--brain", "atlas", "-o", tmp_path / "out")
    code, said = command("detect", "-i", record.image, *how)
    assert (code, said.err.count("\n")) == (2, 1)
    assert "--brain and --brain-mask exclude each other" in said.err


@pytest.mark.slow
def test_prepared_masks_and_exported_scans_lie_where_the_scan_does(command, record, tmp_path):
    # The mask of the lesion has one placement, the sform that both share.
    place_twice(record.image)
    manifest = next(path for path in (p / "manifest.tsv" for p in record.image.parents) if path.is_file())
    small = ("--set=shape=[32,32,24]", "--set=spacing_mm=6.0", "--set=registration=none", "--no-progress")
    code, said = command("prepare", "-i", manifest, "-o", tmp_path / "set", *small)
    assert code == 0, said.err
    assert f"differ by {APART_MM:.1f} mm" in said.err
    (brain,) = (path for path in (tmp_path / "set").rglob("*desc-brain_mask.nii.gz") if "space-" not in path.name)
    same_place(brain, record.image)
    how = ("--grid", "native", "--dataset-id", 1, "--name", "X", "--no-progress")
    code, said = command("export-nnunet", "--manifest", manifest, "-o", tmp_path / "nnunet", *how)
    assert code == 0, said.err
    written = sorted((tmp_path / "nnunet").rglob("*.nii.gz"))
    assert len(written) == 2
    for path in written:
        same_place(path, record.image)
