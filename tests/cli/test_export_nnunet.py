"""`halebrain export-nnunet`: the tree that nnU-Net v2 reads, and nothing half-written."""

import json

import nibabel
import numpy as np
import pytest

from halebrain.core.errors import DataError
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.workflows.export_nnunet import find_cases

ROWS = [
    *[("a", modality, "train", "ms") for modality in ("T1w", "FLAIR")],
    *[("b", modality, "val", "healthy") for modality in ("T1w", "FLAIR")],
    *[("c", modality, "test", "ms") for modality in ("T1w", "FLAIR")],
]
TREE = {
    "dataset.json",
    "splits_final.json",
    *[f"images{end}/sub-{case}_000{c}.nii.gz" for end, case in (("Tr", "a"), ("Tr", "b"), ("Ts", "c")) for c in (0, 1)],
    *[f"labels{end}/sub-{case}.nii.gz" for end, case in (("Tr", "a"), ("Tr", "b"), ("Ts", "c"))],
}


@pytest.fixture
def export(command, small_cohort, tmp_path, small_model):
    def call(rows, *more, where="raw"):
        manifest = tmp_path / "cohort" / "manifest.tsv"
        manifest = manifest if manifest.exists() else small_cohort(rows)
        code, said = command(
            "export-nnunet", "--manifest", manifest, "-o", tmp_path / where, "--dataset-id", 7, "--name", "Hale",
            "--no-progress", *more,
        )  # fmt: skip
        return code, said, tmp_path / where / "Dataset007_Hale"

    return call


def files(folder):
    return {str(p.relative_to(folder)) for p in folder.rglob("*") if p.is_file()}


def read(path):
    image = nibabel.load(path)
    return np.asarray(image.dataobj), image.affine


@pytest.mark.slow
def test_the_tree_on_the_working_grid(export, small_model):
    code, said, folder = export(ROWS, "--model", small_model)
    assert code == 0, said.err
    assert said.out.strip() == str(folder)
    assert files(folder) == TREE
    assert json.loads((folder / "dataset.json").read_text()) == {
        "channel_names": {"0": "FLAIR", "1": "T1w"},
        "labels": {"background": 0, "lesion": 1},
        "numTraining": 2,
        "file_ending": ".nii.gz",
    }
    assert json.loads((folder / "splits_final.json").read_text()) == [{"train": ["sub-a"], "val": ["sub-b"]}]
    image, affine = read(folder / "imagesTr" / "sub-a_0001.nii.gz")
    label, of_label = read(folder / "labelsTr" / "sub-a.nii.gz")
    assert image.shape == label.shape == (32, 32, 24)
    assert 0 <= image.min() < image.max() <= 1
    np.testing.assert_allclose(affine, of_label)
    assert sorted(np.unique(label)) == [0, 1]
    assert image[label > 0].mean() > image[(label == 0) & (image > 0)].mean()
    assert not read(folder / "labelsTr" / "sub-b.nii.gz")[0].any()


def test_the_native_grid_keeps_the_voxels(export, tmp_path):
    code, said, folder = export(ROWS, "--grid", "native", "--modality", "T1w", "--split", "train")
    assert code == 0, said.err
    assert files(folder) == {
        "dataset.json",
        "imagesTr/sub-a_0000.nii.gz",
        "labelsTr/sub-a.nii.gz",
    }
    source = tmp_path / "cohort"
    for written, original in (("imagesTr/sub-a_0000", "sub-a_T1w"), ("labelsTr/sub-a", "sub-a_T1w_mask")):
        found, affine = read(folder / f"{written}.nii.gz")
        expected, of_original = read(source / f"{original}.nii.gz")
        np.testing.assert_allclose(found, expected)
        np.testing.assert_allclose(affine, of_original)


def test_a_modality_that_no_scan_has_is_refused(export):
    for split in ((), ("--split", "train")):
        code, said, folder = export(ROWS, "--modality", "FLAIRR", *split)
        assert (code, folder.exists()) == (2, False)
        assert "--modality must be in the manifest, got 'FLAIRR'" in said.err
        assert "did you mean 'FLAIR'?" in said.err


def test_a_lacking_modality_is_named(export):
    code, said, folder = export(ROWS[:-1], "--grid", "native")
    assert code == 65
    assert "first sub-c without FLAIR" in said.err
    assert "--modality" in said.err
    assert not folder.exists()
    assert export(ROWS[:-1], "--grid", "native", "--modality", "T1w")[0] == 0


def test_scans_without_a_mask_are_named(tmp_path, caplog):
    images = {name: tmp_path / f"{name}.nii.gz" for name in ("FLAIR", "T1w")}
    rows = (
        ScanRecord("a", images["FLAIR"], "FLAIR", split="test", pathology="ms", lesion=tmp_path / "mask.nii.gz"),
        ScanRecord("a", images["T1w"], "T1w", split="test", pathology="ms"),
    )
    channels, cases = find_cases(Manifest(rows))
    assert (channels, len(cases)) == (("FLAIR",), 1)
    assert "1 scan without a mask and not healthy left out (T1w)" in caplog.text


def test_words_for_one_contrast_are_one_channel(tmp_path):
    def rows(*words):
        records = (ScanRecord("a", tmp_path / "a.nii", word, split="train", pathology="healthy") for word in words)
        return Manifest(tuple(records))

    channels, (case,) = find_cases(rows("t1", "FLAIR"), ("T1w",))
    assert channels == ("T1w",)
    assert (case.name, [record.modality for record in case.channels]) == ("sub-a", ["t1"])
    with pytest.raises(DataError, match="sub-a_t1 and sub-a_T1w"):
        find_cases(rows("t1", "T1w"))


def test_refusals_leave_nothing(export, tmp_path):
    code, _, folder = export(ROWS, "--grid", "native")
    assert code == 0
    before = files(folder)
    code, said, _ = export(ROWS, "--grid", "native")
    assert code == 73
    assert "must not exist yet" in said.err
    assert files(folder) == before
    assert export(ROWS, "--split", "dev", where="other")[0] == 2
    assert export(ROWS, "--name", "a/b", where="other")[0] == 2
    assert export(ROWS, "--dataset-id", 1000, where="other")[0] == 2
    (tmp_path / "cohort" / "sub-c_T1w.nii.gz").write_bytes(b"nothing")
    assert export(ROWS, "--grid", "native", where="other")[0] == 65
    assert not any((tmp_path / "other").iterdir())


def test_a_lesion_with_ringing_is_exported_at_its_true_volume(export, small_cohort, caplog):
    """8 ml of lesion after a shift by cubic splines and back; what is above 0 of it would be many times that."""
    from scipy import ndimage

    manifest = small_cohort([("a", "FLAIR", "train", "ms")])
    path = manifest.parent / "sub-a_FLAIR_mask.nii.gz"
    image = nibabel.load(path)
    truth = np.zeros(image.shape)
    truth[14:18, 18:22, 14:18] = 1  # 4 voxels of 5 mm along each axis
    soft = ndimage.shift(ndimage.shift(truth, [1 / 3] * 3, order=3), [-1 / 3] * 3, order=3).astype(np.float32)
    assert (soft > 0).sum() * 0.125 > 50
    nibabel.save(nibabel.Nifti1Image(soft, image.affine), path)
    code, said, folder = export((), "--grid", "native")
    assert code == 0, said.err
    label, _ = read(folder / "labelsTr" / "sub-a.nii.gz")
    assert label.sum() * 0.125 == 8
    np.testing.assert_array_equal(label, truth)
    assert "sub-a_FLAIR_mask.nii.gz: " in caplog.text
    assert "hold fractions; cut at 0.5" in caplog.text
