"""Anyone's files: how they are matched, read, turned and refused."""

import nibabel
import numpy as np
import pytest

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.failures import Failures
from halebrain.evaluation.folders import (
    FolderOptions,
    evaluate_files,
    look_at_files,
    match_files,
    parse_labels,
    read_case,
    unused_images,
)
from halebrain.evaluation.metrics import METRICS
from halebrain.evaluation.parts import Scoring
from halebrain.io.nifti import write_volume

AFFINE = np.diag([1.0, 1.5, 2.0, 1.0])
SHAPE = (12, 14, 10)


@pytest.fixture
def folders(tmp_path, rng):
    for name in ("maps", "truth"):
        (tmp_path / name).mkdir()
    for subject in ("01", "02", "03"):
        truth = np.zeros(SHAPE, np.uint8)
        truth[3:6, 3:7, 4:6] = subject != "03"
        write(tmp_path / "truth" / f"sub-{subject}_dseg.nii.gz", truth)
        score = np.clip(0.5 * truth + rng.random(SHAPE) * 0.6, 0, 1).astype(np.float32)
        write(tmp_path / "maps" / f"sub-{subject}_rec-x_probseg.nii.gz", score)
    return tmp_path


def write(path, data, affine=AFFINE):
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, code=1)
    image.set_qform(affine, code=1)
    nibabel.save(image, path)
    return image


def pairs_of(folder):
    return match_files(folder / "maps", folder / "truth")


def test_files_are_matched_by_subject_and_session(folders):
    pairs = pairs_of(folders)
    assert [p.scan_id for p in pairs] == ["sub-01", "sub-02", "sub-03"]
    assert [p.subject for p in pairs] == ["01", "02", "03"]
    for pair in pairs:
        assert pair.prediction.name.startswith(pair.scan_id)


def test_files_without_entities_are_matched_by_name(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        write(tmp_path / name / "case7.nii", np.zeros(SHAPE, np.uint8))
    (pair,) = match_files(tmp_path / "a", tmp_path / "b")
    assert (pair.scan_id, pair.subject) == ("case7", "case7")


def test_a_name_of_a_subject_alone_ends_before_its_suffix(tmp_path):
    for name, suffix in (("a", ".nii"), ("b", ".nii.gz")):
        (tmp_path / name).mkdir()
        write(tmp_path / name / f"sub-7{suffix}", np.zeros(SHAPE, np.uint8))
    (pair,) = match_files(tmp_path / "a", tmp_path / "b")
    assert (pair.scan_id, pair.subject) == ("sub-7", "7")


def test_a_file_without_partner_is_named(folders):
    (folders / "truth" / "sub-02_dseg.nii.gz").unlink()
    with pytest.raises(MissingInputError, match=r"every scan needs a reference.*1 without: sub-02.*truth"):
        pairs_of(folders)


def test_a_scan_without_brain_mask_is_named_with_the_folder_of_masks(folders):
    masks = files(folders / "masks", "sub-02_mask.nii.gz")
    with pytest.raises(MissingInputError, match=r"every scan needs a brain mask.*2 without: sub-01, sub-03.*masks"):
        match_files(folders / "maps", folders / "truth", masks)


def test_two_files_of_one_scan_are_refused(folders):
    write(folders / "maps" / "sub-01_rec-y_probseg.nii.gz", np.zeros(SHAPE, np.float32))
    with pytest.raises(DataError, match="one file per scan"):
        pairs_of(folders)


def files(folder, *names):
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).touch()
    return folder


@pytest.mark.parametrize(
    ("maps", "truth", "scans"),
    [
        # The same names on both sides, several of one subject.
        (
            ("sub-01_run-1_T1w.nii.gz", "sub-01_run-2_T1w.nii.gz", "sub-02_T1w.nii.gz"),
            ("sub-01_run-1_T1w.nii.gz", "sub-01_run-2_T1w.nii.gz", "sub-02_T1w.nii.gz"),
            {"sub-01_run-1": "01", "sub-01_run-2": "01", "sub-02": "02"},
        ),
        # What was made of a scan is named in other ways than its truth.
        (
            (
                "sub-01_acq-a_run-1_rec-FLAIR_desc-anomaly_probseg.nii",
                "sub-01_run-2_rec-FLAIR_desc-anomaly_probseg.nii",
            ),
            ("sub-01_run-2_label-L_mask.nii", "sub-01_run-1_acq-a_label-L_mask.nii"),
            {"sub-01_acq-a_run-1": "01", "sub-01_run-2": "01"},
        ),
        # Contrasts of one session.
        (
            ("sub-01_T1w.nii", "sub-01_FLAIR.nii"),
            ("sub-01_T1w.nii", "sub-01_FLAIR.nii"),
            {"sub-01_FLAIR": "01", "sub-01_T1w": "01"},
        ),
        # A folder a case, one name in all of them, in any case of the ending.
        (
            ("p1/map.NII.GZ", "p2/map.nii"),
            ("p1/map.nii.gz", "p2/map.nii.gz"),
            {"p1/map": "p1/map", "p2/map": "p2/map"},
        ),
        (("deep/er/a.NII", "._a.nii"), ("a.mgz",), {"a": "a"}),
    ],
)
def test_several_files_of_one_key_are_matched_by_what_they_share(tmp_path, maps, truth, scans):
    pairs = match_files(files(tmp_path / "maps", *maps), files(tmp_path / "truth", *truth))
    assert {pair.scan_id: pair.subject for pair in pairs} == scans
    sides = [[(path.name.count("run-1"), path.parent.name) for path in (p.prediction, p.reference)] for p in pairs]
    assert all(prediction[0] == reference[0] for prediction, reference in sides)
    assert all(prediction[1] == reference[1] for prediction, reference in sides if prediction[1].startswith("p"))


def test_brain_masks_go_with_runs_and_those_of_others_are_counted(tmp_path):
    names = ("sub-01_run-1_x.nii", "sub-01_run-2_x.nii")
    maps, truth = files(tmp_path / "a", *names, "s.dcm"), files(tmp_path / "b", *names)
    masks = files(tmp_path / "c", *names, "sub-09_x.nii")
    pairs = match_files(maps, truth, masks)
    assert [pair.brain_mask for pair in pairs] == [masks / name for name in names]
    assert unused_images(pairs, maps, truth, masks) == [
        ("s.dcm", "DICOM or archives"),
        ("sub-09_x.nii", "brain masks of other scans"),
    ]
    (masks / names[1]).unlink()
    with pytest.raises(DataError, match="one file per scan"):
        match_files(maps, truth, masks)


def test_empty_and_missing_folders_are_said(tmp_path):
    with pytest.raises(MissingInputError, match="must exist"):
        match_files(tmp_path / "no", tmp_path)
    with pytest.raises(MissingInputError, match="must hold NIfTI"):
        match_files(tmp_path, tmp_path)


def test_the_same_place_in_another_orientation_is_turned_and_said(folders):
    path = folders / "maps" / "sub-01_rec-x_probseg.nii.gz"
    before, _ = read_case(pairs_of(folders)[0], FolderOptions())
    image = nibabel.load(path)
    image = nibabel.Nifti1Image(np.asarray(image.dataobj), image.affine)
    wanted = nibabel.orientations.axcodes2ornt("PSR")
    turned = image.as_reoriented(nibabel.orientations.ornt_transform(nibabel.io_orientation(image.affine), wanted))
    write(path, np.asarray(turned.dataobj), turned.affine)
    after, notes = read_case(pairs_of(folders)[0], FolderOptions())
    np.testing.assert_array_equal(after.score, before.score)
    assert notes == ["sub-01_rec-x_probseg.nii.gz: reoriented to match sub-01_dseg.nii.gz"]


@pytest.mark.parametrize("change", ["shift", "shape", "spacing"])
def test_another_place_is_refused(folders, change):
    affine, data = AFFINE.copy(), np.zeros(SHAPE, np.float32)
    if change == "shift":
        affine[0, 3] = 1.0
    elif change == "spacing":
        affine[2, 2] = 2.1
    else:
        data = data[:-1]
    write(folders / "maps" / "sub-01_rec-x_probseg.nii.gz", data, affine)
    with pytest.raises(DataError, match="grid of its reference"):
        read_case(pairs_of(folders)[0], FolderOptions())


def test_several_labels_must_be_named(folders):
    truth = np.zeros(SHAPE, np.uint8)
    truth[2], truth[5], truth[8] = 1, 2, 4
    write(folders / "truth" / "sub-01_dseg.nii.gz", truth)
    pair = pairs_of(folders)[0]
    with pytest.raises(DataError, match=r"got 1, 2, 4 .*--labels"):
        read_case(pair, FolderOptions())
    counts = {
        labels: int(read_case(pair, FolderOptions(labels=labels))[0].reference.sum())
        for labels in ("all", (1,), (2, 4))
    }
    layer = SHAPE[1] * SHAPE[2]
    assert counts == {"all": 3 * layer, (1,): layer, (2, 4): 2 * layer}


def test_labels_are_parsed():
    assert (parse_labels(None), parse_labels("all"), parse_labels("1,4")) == (None, "all", (1, 4))
    with pytest.raises(UsageError, match="'core'"):
        parse_labels("core")


def test_maps_that_are_not_finite_are_refused(folders):
    data = np.zeros(SHAPE, np.float32)
    data[0, 0, 0] = np.inf
    write(folders / "maps" / "sub-01_rec-x_probseg.nii.gz", data)
    with pytest.raises(DataError, match="finite"):
        read_case(pairs_of(folders)[0], FolderOptions())


def test_scores_that_are_no_probabilities_are_said(folders):
    for path in (folders / "maps").iterdir():
        write(path, 10 * np.asarray(nibabel.load(path).dataobj) - 3)
    found, notes = evaluate_files(
        pairs_of(folders), FolderOptions(), method="mine", seed=0, scoring=Scoring(Failures(None))
    )
    assert notes[0] == "predictions are read as anomaly maps (sub-01_rec-x_probseg.nii.gz)"
    assert len(notes) == 4
    assert "not probabilities" in notes[1]
    assert found.provenance.notes == notes
    assert not found.reliability
    assert "micro_auprc" in {v.metric for v in found.set_values}


def test_one_scan_outside_of_0_to_1_leaves_the_calibration_error_out(folders):
    path = sorted((folders / "maps").iterdir())[0]
    write(path, 3 * np.asarray(nibabel.load(path).dataobj))
    found, notes = evaluate_files(
        pairs_of(folders), FolderOptions(), method="mine", seed=0, scoring=Scoring(Failures(None))
    )
    assert len([note for note in notes if "calibration error left out" in note]) == 1
    assert not found.reliability
    assert "expected_calibration_error" not in {value.metric for value in found.set_values}


def test_maps_and_masks_are_told_apart_for_the_whole_folder(folders):
    assert look_at_files(pairs_of(folders), FolderOptions())[0].graded
    found, _ = evaluate_files(
        pairs_of(folders), FolderOptions(), method="mine", seed=0, scoring=Scoring(Failures(None))
    )
    assert {r.metric for r in found.rows} == {n for n in METRICS if METRICS.get(n).needs == "score"}
    found, _ = evaluate_files(
        pairs_of(folders), FolderOptions(threshold=0.55), method="mine", seed=0, scoring=Scoring(Failures(None))
    )
    assert {r.metric for r in found.rows} == set(METRICS)
    assert 0 < found.mean("dice", method="mine").mean < 1
    for path in (folders / "maps").iterdir():
        write(path, (np.asarray(nibabel.load(path).dataobj) > 0.55).astype(np.uint8))
    chosen, notes = look_at_files(pairs_of(folders), FolderOptions())
    assert not chosen.graded
    assert notes == ["predictions are read as masks (values beside 0: 1)"]
    masks, _ = evaluate_files(
        pairs_of(folders), FolderOptions(), method="mine", seed=0, scoring=Scoring(Failures(None))
    )
    assert masks.mean("dice", method="mine") == found.mean("dice", method="mine")
    assert {r.metric for r in masks.rows} == {n for n in METRICS if METRICS.get(n).needs == "mask"}


def test_brain_masks_say_where_voxels_count(folders):
    (folders / "brains").mkdir()
    brain = np.zeros(SHAPE, np.uint8)
    brain[:, :, :5] = 1
    for subject in ("01", "02", "03"):
        write(folders / "brains" / f"sub-{subject}_mask.nii.gz", brain)
    pair = match_files(folders / "maps", folders / "truth", folders / "brains")[0]
    case, _ = read_case(pair, FolderOptions())
    np.testing.assert_array_equal(case.region, (brain > 0) | case.reference)
    assert case.has_reference


@pytest.mark.parametrize("subject", ["01", "03"])
def test_an_empty_brain_mask_is_refused(folders, subject):
    # With the lesion alone as region, every score would be perfect; a healthy scan would have no voxel.
    (folders / "brains").mkdir()
    for name in ("01", "02", "03"):
        write(folders / "brains" / f"sub-{name}_mask.nii.gz", np.full(SHAPE, name != subject, np.uint8))
    pairs = match_files(folders / "maps", folders / "truth", folders / "brains")
    (pair,) = (pair for pair in pairs if pair.subject == subject)
    with pytest.raises(DataError, match="a brain mask must mark a voxel, got an empty mask"):
        read_case(pair, FolderOptions())


def test_provenance_names_every_file(folders):
    found, _ = evaluate_files(
        pairs_of(folders), FolderOptions(), method="mine", seed=3, scoring=Scoring(Failures(None))
    )
    assert [p["name"] for p in found.provenance.references] == [f"sub-0{i}_dseg.nii.gz" for i in (1, 2, 3)]
    assert all(len(p["sha256"]) == 64 for p in found.provenance.predictions)
    assert found.provenance.seed == 3


@pytest.fixture
def labelled(folders):
    """Predictions that are the references, with labels 1, 2 and 4 in layers; nearly whole numbers in one of them."""
    for subject in ("01", "02", "03"):
        truth = np.zeros(SHAPE, np.float32)
        truth[2], truth[5], truth[8] = 1, 2, 4
        write(folders / "truth" / f"sub-{subject}_dseg.nii.gz", truth)
        write(folders / "maps" / f"sub-{subject}_rec-x_probseg.nii.gz", truth * np.float32(0.99999))
    return folders


@pytest.mark.parametrize("labels", ["all", (4,), (1, 2), (1, 2, 4)])
def test_identical_labels_have_a_dice_of_one(labelled, labels):
    found, _ = evaluate_files(
        pairs_of(labelled), FolderOptions(labels=labels), method="mine", seed=0, scoring=Scoring(Failures(None))
    )
    assert found.mean("dice", method="mine").mean == 1


def test_labels_of_predictions_must_be_named_too(labelled):
    for path in (labelled / "truth").iterdir():
        write(path, (np.asarray(nibabel.load(path).dataobj) == 4).astype(np.uint8))
    with pytest.raises(DataError, match=r"got 1, 2, 4 in '.*_probseg.nii.gz'; give --labels"):
        evaluate_files(pairs_of(labelled), FolderOptions(), method="mine", seed=0, scoring=Scoring(Failures(None)))


def test_a_mask_of_one_label_is_one_whatever_labels_are_named(labelled):
    for path in (labelled / "maps").iterdir():
        write(path, (np.asarray(nibabel.load(path).dataobj) > 3).astype(np.uint8))
    found, notes = evaluate_files(
        pairs_of(labelled), FolderOptions(labels=(4,)), method="mine", seed=0, scoring=Scoring(Failures(None))
    )
    assert found.mean("dice", method="mine").mean == 1
    assert "values beside 0: 1" in notes[0]


def test_a_label_that_is_in_no_reference_is_refused(labelled):
    with pytest.raises(DataError, match=r"got 7, in no reference; they hold 1, 2, 4 in .*truth"):
        evaluate_files(
            pairs_of(labelled), FolderOptions(labels=(4, 7)), method="mine", seed=0, scoring=Scoring(Failures(None))
        )


def test_interpolated_labels_are_refused_with_the_share_of_fractions(labelled):
    path = labelled / "truth" / "sub-02_dseg.nii.gz"
    truth = np.asarray(nibabel.load(path).dataobj)
    write(path, (truth + np.roll(truth, 1, axis=0)) / 2)  # layers of 0.5, 0.5, 1, 1, 2 and 2
    with pytest.raises(DataError, match=r"values from 0 to 2, 33 % of the voxels other than 0 are fractions"):
        read_case(pairs_of(labelled)[1], FolderOptions(labels=(4,)))


def test_a_threshold_for_masks_is_refused(folders):
    for path in (folders / "maps").iterdir():
        write(path, (np.asarray(nibabel.load(path).dataobj) > 0.55).astype(np.float32))
    with pytest.raises(UsageError, match="--threshold needs anomaly maps"):
        evaluate_files(
            pairs_of(folders), FolderOptions(threshold=0.5), method="mine", seed=0, scoring=Scoring(Failures(None))
        )


def test_maps_of_whole_numbers_are_maps(folders, rng):
    for path in (folders / "maps").iterdir():
        write(path, rng.integers(0, 200, SHAPE).astype(np.uint8))
    assert look_at_files(pairs_of(folders), FolderOptions())[0].graded


def test_scores_that_are_stored_as_scaled_integers_are_maps_at_their_threshold(folders):
    for pair in pairs_of(folders):
        score = np.asarray(nibabel.load(pair.prediction).dataobj)
        write_volume(pair.prediction, score, AFFINE, dtype=np.uint16, scale=1 / 65535)
    found, _ = evaluate_files(
        pairs_of(folders), FolderOptions(threshold=0.55), method="mine", seed=0, scoring=Scoring(Failures(None))
    )
    values = []
    for pair in pairs_of(folders)[:2]:
        stored, truth = (nibabel.load(path).get_fdata() for path in (pair.prediction, pair.reference))
        values.append(2 * ((stored >= 0.55) & (truth > 0)).sum() / ((stored >= 0.55).sum() + truth.sum()))
    assert found.mean("dice", method="mine").mean == pytest.approx(np.mean(values))


def test_rounded_affines_are_the_same_place_and_others_are_told_in_mm(folders):
    path = folders / "maps" / "sub-01_rec-x_probseg.nii.gz"
    data, affine = np.asarray(nibabel.load(path).dataobj), AFFINE.copy()
    affine[:3] += 0.0025  # up to 0.09 mm at the far corner: less than a tenth of a voxel
    write(path, data, affine)
    read_case(pairs_of(folders)[0], FolderOptions())
    affine[0, 3] += 0.5
    write(path, data, affine)
    with pytest.raises(DataError, match=r"with another affine: 0\.\d+ mm \(0\.\d+ voxels\) apart"):
        read_case(pairs_of(folders)[0], FolderOptions())
