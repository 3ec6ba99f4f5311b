"""Whatever lies below an input is used or counted, and every way into it uses the same scans."""

import os

import pytest

from halebrain.core.errors import HalebrainError, MissingInputError, UsageError
from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data.datasets import SOURCES, read_source
from halebrain.inference.exams import contrast_by_name
from halebrain.inference.scans import find_scans
from halebrain.io.bids_query import BidsQuery, select_scans
from halebrain.io.manifest import Manifest, ScanRecord
from halebrain.io.tree import LeftOut, summed_left_out
from halebrain.io.volume import read_volume
from halebrain.workflows.prepare import read_raw, split_subjects, with_pathology
from halebrain.workflows.selection import chosen_scans


def touch(root, *names):
    for name in names:
        (root / name).parent.mkdir(parents=True, exist_ok=True)
        (root / name).touch()
    return root


BIDS_SCANS = {
    "sub-01/anat/sub-01_T1w.nii.gz": "sub-01_T1w",
    "sub-01/anat/sub-01_acq-t1_3d_run-1_t1w.nii.gz": "sub-01_acq-t13d_run-1_T1w",
    "sub-AB_12/ses-1-a/anat/sub-AB_12_ses-1-a_flair.nii.gz": "sub-AB12_ses-1a_FLAIR",
    "sub-C+D/anat/sub-C+D_what-9_T2w.NII.GZ": "sub-C+D_what-9_T2w",
    "sub-02_inplaneT2.nii": "sub-02_inplaneT2",
}
BIDS_OTHERS = {
    "derivatives/fmriprep/sub-01/anat/sub-01_desc-preproc_T1w.nii.gz": "in derivatives",
    "derivatives/halebrain-2/sub-01_T1w.nii.gz": "results of HaleBrain",
    "sourcedata/scan.dcm": "in sourcedata",
    "sub-01/anat/sub-01_T1map.nii.gz": "with a suffix that is not processed",
    "sub-01/anat/sub-01_T2starw.nii.gz": "with a suffix that is not processed",
    "sub-01/anat/sub-01_PDw.nii.gz": "with a suffix that is not processed",
    "sub-01/anat/sub-01_part-phase_T1w.nii.gz": "the phase, the real or the imaginary part of an image",
    "sub-01/anat/sub-01_desc-defaced_T1w.nii.gz": "named as derived, in a data set that does not state "
    '"DatasetType": "derivative"',
    "sub-01/anat/sub-01_FLAIR.mgz": "not NIfTI, which BIDS requires",
    "notes/drawing.nii.gz": "without a BIDS name",
}
MASKS = (
    "derivatives/lesions/sub-01/anat/sub-01_label-lesion_roi.nii.gz",
    "derivatives/lesions/sub-AB_12/ses-1-a/anat/sub-AB_12_ses-1-a_desc-tumor_mask.nii.gz",
)


@pytest.fixture
def dataset(tmp_path):
    root = touch(tmp_path / "study", *BIDS_SCANS, *BIDS_OTHERS, *MASKS)
    touch(root, ".git/x.nii.gz", "sub-01/anat/._sub-01_T1w.nii.gz", "README")
    (root / "dataset_description.json").write_text('{"Name": "x", "BIDSVersion": "1.10.0"}')
    (root / "participants.tsv").write_text("participant_id\tage\nsub-01\t30\nsub-AB_12\t40\nsub-C+D\t50\nsub-02\t60\n")
    return root


@pytest.mark.parametrize("name", ["b_T1.nrrd", "b.MHA", "sub/b.mnc", "b_FLAIR+orig.BRIK.gz", "b.nii.bz2", "b.PAR"])
def test_images_in_other_formats_are_counted(tmp_path, name):
    touch(tmp_path / "in", "a_T1w.nii.gz", name)
    reason = "in a format that is not read: convert to NIfTI"
    assert find_scans(tmp_path / "in").left_out == (LeftOut(name, reason),)
    assert read_raw(tmp_path / "in", None, (), None).left_out == (LeftOut(name, reason),)
    settings = {"pattern": "{subject}_T1w.nii.gz", "modality": "T1w"}
    assert read_source("folder", tmp_path / "in", settings).left_out == (LeftOut(name, reason),)
    (tmp_path / "in" / "a_T1w.nii.gz").unlink()
    with pytest.raises(MissingInputError, match="in a format that is not read"):
        find_scans(tmp_path / "in")


def test_detect_bids_and_prepare_use_the_same_scans_of_a_data_set(dataset):
    detected, chosen = find_scans(dataset), select_scans(dataset, BidsQuery())
    prepared = read_raw(dataset, None, [], None)
    used = {dataset / name for name in BIDS_SCANS}
    assert {scan.image for scan in detected} == set(chosen) == {record.image for record in prepared.manifest} == used
    assert {record.scan_id for record in prepared.manifest} == set(BIDS_SCANS.values())
    others = set(BIDS_OTHERS.items())
    assert set(prepared.left_out) == others
    # Only there masks are wanted.
    assert set(detected.left_out) == set(chosen.left_out) == others | {(mask, "in derivatives") for mask in MASKS}
    assert [record.age for record in prepared.manifest] == [30, 30, 60, 40, 50]
    assert prepared.problems == ()


def test_masks_as_fmriprep_names_them_are_lesions(dataset):
    touch(dataset, "sub-02_inplaneT2_label-lesion_roi.nii")
    lesions = {r.scan_id: r.lesion for r in read_source("bids", dataset).manifest if r.lesion is not None}
    assert lesions == {
        "sub-01_T1w": dataset / MASKS[0],
        "sub-01_acq-t13d_run-1_T1w": dataset / MASKS[0],
        "sub-AB12_ses-1a_FLAIR": dataset / MASKS[1],
        "sub-02_inplaneT2": dataset / "sub-02_inplaneT2_label-lesion_roi.nii",
    }


def test_a_derivative_holds_derived_scans(tmp_path):
    names = ("sub-01/anat/sub-01_desc-preproc_T1w.nii.gz", "sub-01/anat/sub-01_desc-brain_mask.nii.gz")
    root = touch(tmp_path, *names)
    (root / "dataset_description.json").write_text('{"Name": "x", "DatasetType": "derivative"}')
    for found in (find_scans(root), read_raw(root, None, [], None)):
        images = [scan.image for scan in (found.manifest if hasattr(found, "manifest") else found)]
        assert images == [root / names[0]]


def test_what_halebrain_made_of_a_scan_is_no_scan(tmp_path):
    maps = [f"sub-01_desc-{name}_FLAIR.nii.gz" for name in ("pseudohealthy", "preprocresidual", "uncertainty")]
    scans = ("sub-01_FLAIR.nii.gz", "sub-01_desc-filled_FLAIR.nii.gz", "sub-01_label-lesion_mask.nii.gz")
    root = touch(tmp_path, *scans, *maps, "sub-01_desc-healthy_FLAIR.nii.gz")
    (root / "dataset_description.json").write_text('{"Name": "x", "DatasetType": "derivative"}')
    assert [scan.image.name for scan in find_scans(root)] == list(scans[:2])
    raw = read_raw(root, None, [], None)
    assert [record.image.name for record in raw.manifest] == list(scans[:2]), "none healthy with a lesion mask"
    expected = dict.fromkeys(maps, "results of HaleBrain")
    assert dict(raw.left_out) == expected | {
        "sub-01_desc-healthy_FLAIR.nii.gz": "true healthy images of virtual patients"
    }


def test_filled_scans_are_no_scans_beside_others(tmp_path):
    filled = ("filled/sub-01/sub-01_desc-filled_FLAIR.nii.gz", "filled/scan7/scan7_desc-filled_image.nii.gz")
    root = touch(tmp_path, *filled, "theirs_desc-filled_T1w.nii.gz")
    for name in filled:
        (root / name.replace(".nii.gz", ".json")).write_text('{"FilledVolumeMl": 1.0}')
    assert [scan.image for scan in find_scans(root / "filled")] == sorted(root / name for name in filled), "as meant"
    found = find_scans(root)
    assert [scan.image.name for scan in found] == ["theirs_desc-filled_T1w.nii.gz"]
    assert dict(found.left_out) == dict.fromkeys(filled, "results of HaleBrain")


def test_a_choice_of_people_counts_their_images_only(dataset):
    chosen = select_scans(dataset, BidsQuery(participants=("AB_12",)))
    assert [path.name for path in chosen] == ["sub-AB_12_ses-1-a_flair.nii.gz"]
    assert [name for name, _ in chosen.left_out] == [MASKS[1]]


def test_folders_are_searched_however_deep(tmp_path):
    root = touch(
        tmp_path / "in",
        *("a.nii.gz", "B.NII.GZ", "x/y/c.mgz", "p1/FLAIR.nii.gz", "p2/FLAIR.nii.gz"),
        *("p1/FLAIR_mask.nii.gz", "p2/seg.nii.gz", "p2/label-lesion_roi.nii", "notes.txt", ".a.nii.gz"),
        *("old/s_desc-anomaly_provenance.json", "old/s_desc-reconstruction_image.nii.gz"),
    )
    found = find_scans(root)
    assert [scan.name for scan in found] == ["B", "a", "p1_FLAIR", "p2_FLAIR", "c"]
    assert [scan.image for scan in found][2] == root / "p1/FLAIR.nii.gz"
    assert dict(found.left_out) == {
        "p1/FLAIR_mask.nii.gz": "named as masks",
        "p2/seg.nii.gz": "named as masks",
        "p2/label-lesion_roi.nii": "named as masks",
        "old/s_desc-reconstruction_image.nii.gz": "results of HaleBrain",
    }
    raw = read_raw(root, None, [], "T1w")
    assert {record.scan_id for record in raw.manifest} == {"sub-a_T1w", "sub-B_T1w", "sub-c_T1w"}
    assert set(raw.left_out) == {
        *found.left_out,
        ("p1/FLAIR.nii.gz", "of a contrast other than --modality T1w"),
        ("p2/FLAIR.nii.gz", "of a contrast other than --modality T1w"),
    }


def test_masks_are_known_by_many_names_and_scans_are_not_taken_for_them(tmp_path):
    masks = [
        "P1_T1w_brainmask",
        "P1_lesionMask",
        "P1_gt",
        "P1_ground-truth",
        "P1_mask_bin",
        "P1_seg_final",
        "P1_roi_auto",
    ]
    scans = ["P1_T1w", "lesion_01", "masked_T1w", "P1_mask_T1w", "roi2", "gtx", "P1_segmented_T1"]
    root = touch(tmp_path / "in", *(f"{name}.nii.gz" for name in (*masks, *scans)), "fs/mri/brainmask.mgz")
    found = find_scans(root)
    assert {scan.image.name for scan in found} == {*(f"{name}.nii.gz" for name in scans), "brainmask.mgz"}
    assert dict(found.left_out) == {f"{name}.nii.gz": "named as masks" for name in masks}


def test_one_line_counts_by_reason_and_names_the_first():
    images = [
        LeftOut("b\n_mask.nii", "named as masks"),
        LeftOut("a.dcm", "in sourcedata"),
        LeftOut("c", "named as masks"),
    ]
    assert summed_left_out(images) == (
        r"3 images are left out: 2 named as masks (first b\n_mask.nii); 1 in sourcedata (a.dcm)"
    )
    assert summed_left_out(images[1:2]) == "1 image is left out: in sourcedata (a.dcm)"
    assert summed_left_out(()) == ""


MNI = f"space-{TEMPLATE_SPACE}"
LAYOUTS = {
    "atlas2": (("R001/anat/sub-r001s001_ses-1_{MNI}_T1w.nii.gz",), {}),
    "bids": (("sub-1/anat/sub-1_T1w.nii", "sub-1/anat/sub-1_FLAIR.nii", "sub-1/anat/sub-1_ce-g_T1w.nii"), {}),
    "brats": (tuple(f"BraTS2021_1/BraTS2021_1_{c}.nii.gz" for c in ("flair", "t1", "t1ce", "t2", "seg")), {}),
    "folder": (("1_T1w.nii", "1_FLAIR.nii"), {"pattern": "'{subject}_{modality}.nii'"}),
    "ixi": (("IXI002-Guys-0828-T1.nii.gz", "IXI002-Guys-0828-T2.nii.gz"), {}),
    "mood": (("brain_train/00000.nii.gz",), {}),
    "mslub": (("patient01/patient01_FLAIR.nii.gz", "patient01/patient01_T1W.nii.gz"), {}),
    "published": (("Train/ixi/t1/IXI002-Guys-0828_t1.nii.gz", "Train/ixi/t2/IXI002-Guys-0828_t2.nii.gz"), {}),
    "table": (("a.nii", "b.nii", "scans.csv"), {}),
    "wmh": (("Utrecht/0/pre/FLAIR.nii.gz", "Utrecht/0/pre/T1.nii.gz"), {}),
}


@pytest.fixture(params=SOURCES.names())
def layout(request, tmp_path):
    names, settings = LAYOUTS[request.param]
    root = touch(tmp_path / "data", *(name.replace("{MNI}", MNI) for name in names))
    if request.param == "table":
        (root / "scans.csv").write_text("subject,image,modality\n1,a.nii,T1w\n1,b.nii,FLAIR\n")
    return request.param, root, [f"{key}={value}" for key, value in settings.items()]


def test_every_source_takes_one_contrast_and_counts_the_others(layout):
    kind, root, settings = layout
    every = read_raw(root, kind, settings, None)
    contrasts = {record.modality for record in every.manifest}
    for contrast in contrasts:
        raw = read_raw(root, kind, settings, contrast)
        kept = every.manifest.select(lambda record, contrast=contrast: record.modality == contrast)
        assert raw.manifest.records == kept.records
        assert len(raw.left_out) == len(every.left_out) + len(every.manifest) - len(kept)
    if kind == "mood":  # its publisher gives no contrast
        assert [record.modality for record in read_raw(root, kind, settings, "FLAIR").manifest] == ["FLAIR"]
        return
    with pytest.raises(MissingInputError, match=f"got .*'PET'|{'|'.join(sorted(contrasts))}"):
        read_raw(root, kind, settings, "PET")


def test_every_source_takes_a_pathology_or_refuses_it(layout):
    kind, root, settings = layout
    manifest = read_raw(root, kind, settings, None).manifest
    said = {record.pathology for record in manifest}
    if said == {None}:
        assert {record.pathology for record in with_pathology(manifest, "novel")} == {"novel"}
        return
    with pytest.raises(UsageError, match="'novel', while every scan has"):
        with_pathology(manifest, "novel")
    assert with_pathology(manifest, next(iter(said))) == manifest


def test_a_folder_of_a_time_point_is_no_contrast_of_its_files(tmp_path):
    places = ("P1/T1/FLAIR", "P1/T2/FLAIR", "T1/sub-P2_FLAIR", "T2/sub-P2_FLAIR")
    touch(tmp_path, *(f"{place}.nii.gz" for place in places))
    assert [contrast_by_name(scan) for scan in find_scans(tmp_path)] == ["FLAIR"] * 4
    assert [record.modality for record in read_raw(tmp_path, None, (), None).manifest] == ["FLAIR"] * 4


def test_the_word_for_healthy_of_a_table_may_be_given_to_commands(tmp_path):
    said = (("a", "HC"), ("b", "ms"))
    table = Manifest(tuple(ScanRecord(subject=s, image=tmp_path / s, modality="T1w", pathology=p) for s, p in said))
    assert chosen_scans(table, table=table, modalities=(), pathologies=("HC",)).subjects() == ["a"]
    assert with_pathology(Manifest(table.records[:1]), "HC").subjects() == ["a"]


def test_every_source_counts_an_image_that_it_does_not_read(layout):
    kind, root, settings = layout
    before = len(read_raw(root, kind, settings, None).left_out)
    touch(root, "elsewhere/Strange.NII.GZ")
    after = read_raw(root, kind, settings, None).left_out
    named = [name for name, _ in after]
    # A table alone says what there is.
    assert len(after) - before == (kind != "table")
    assert ("elsewhere/Strange.NII.GZ" in named) == (kind != "table")


def test_every_source_lets_a_scan_that_was_not_fetched_fail_alone(layout):
    kind, root, settings = layout
    every = read_raw(root, kind, settings, None)
    image = every.manifest.records[0].image
    image.unlink()
    image.symlink_to("../.git/annex/objects/x")
    if len(every.manifest) == 1:
        with pytest.raises(MissingInputError, match=r"1 unreadable, first .*git annex get"):
            read_raw(root, kind, settings, None)
        return
    found = read_raw(root, kind, settings, None)
    lost = [error for error in found.failed.values() if "fetch it (datalad get / git annex get)" in str(error)]
    kept = [record for record in found.manifest if record.image != image]
    assert len(kept) == len(every.manifest) - 1
    # A table is believed: its scan fails when it is read.
    assert len(lost) == (kind != "table")


def test_splits_that_are_replaced_are_said(tmp_path):
    touch(tmp_path, "a.nii", "b.nii", "c.nii")
    rows = "".join(f"{n},{n}.nii,T1w,train\n" for n in "abc")
    (tmp_path / "m.csv").write_text(f"subject,image,modality,split\n{rows}")
    raw = read_raw(tmp_path / "m.csv", None, [], None)
    told = []
    manifest, _ = split_subjects(raw.manifest, raw.origin, "0.4,0.3,0.3", 0, notify=told.append)
    assert sorted(record.split or "" for record in manifest) == ["test", "train", "val"]
    assert told == ["warning: --split replaces the splits of the input"]


def test_a_manifest_is_one_contrast_too(tmp_path):
    touch(tmp_path, "a.nii", "b.nii")
    (tmp_path / "m.csv").write_text("subject,image,modality\n1,a.nii,t1\n1,b.nii,FLAIR\n")
    raw = read_raw(tmp_path / "m.csv", None, [], "T1w")
    assert [record.image.name for record in raw.manifest] == ["a.nii"]
    assert raw.left_out == (("b.nii", "of a contrast other than --modality T1w"),)


def test_a_name_that_is_no_utf8_fails_alone(tmp_path):
    root = touch(tmp_path / "raw", "good_T1w.nii.gz")
    os.close(os.open(os.fsencode(root) + b"/b\xe9_T1w.nii.gz", os.O_CREAT))
    raw = read_raw(root, None, [], None)
    assert [record.scan_id for record in raw.manifest] == ["sub-good_T1w"]
    ((name, reason),) = raw.failed.items()
    assert "a file name must be UTF-8" in str(reason)
    f"{name}{reason}".encode()
    good, bad = sorted(find_scans(root), key=lambda scan: scan.name, reverse=True)
    good.check()
    with pytest.raises(HalebrainError, match="UTF-8"):
        bad.check()


def test_a_dicom_folder_that_was_not_fetched_fails_alone(tmp_path):
    root = touch(tmp_path / "in", "a.nii", "p1/README")
    for number in range(3):
        (root / "p1" / f"IM{number}").symlink_to("../.git/annex/objects/x")
    assert [scan.name for scan in find_scans(root)] == ["a", "p1"]
    with pytest.raises(MissingInputError, match="git annex get"):
        read_volume(root / "p1")


def test_a_file_of_which_only_a_pointer_is_there_says_so(tmp_path):
    (tmp_path / "a.nii.gz").write_text("/annex/objects/SHA256E-s1--0.nii.gz\n")
    (tmp_path / "b.nii.gz").write_text("version https://git-lfs.github.com/spec/v1\noid sha256:0\n")
    for name, remedy in (("a", "git annex get"), ("b", "git lfs pull")):
        with pytest.raises(MissingInputError, match=f"not fetched.*{remedy}"):
            read_volume(tmp_path / f"{name}.nii.gz")


def test_a_manifest_with_a_file_that_was_not_fetched_is_read(tmp_path):
    touch(tmp_path, "a.nii")
    (tmp_path / "b.nii").symlink_to(".git/annex/objects/x")
    (tmp_path / "m.tsv").write_text("subject\timage\tmodality\n1\ta.nii\tT1w\n2\tb.nii\tT1w\n")
    assert len(Manifest.read(tmp_path / "m.tsv")) == 2
    with pytest.raises(MissingInputError, match="git annex get"):
        find_scans(tmp_path / "m.tsv")[1].check()


def test_channels_and_labels_of_nnunet_are_no_people(tmp_path):
    touch(tmp_path, "imagesTr/P_001_0000.nii.gz", "imagesTr/P_002_0000.nii.gz", "labelsTr/P_001.nii.gz")
    raw = read_raw(tmp_path, None, [], "FLAIR")
    assert [record.image.name for record in raw.manifest] == ["P_001_0000.nii.gz", "P_002_0000.nii.gz"]
    assert raw.left_out == (("labelsTr/P_001.nii.gz", "in a folder that is named as one of masks"),)
    touch(tmp_path, "imagesTr/P_001_0001.nii.gz")
    with pytest.raises(UsageError, match=r"each channel .* got P_001_0000.nii.gz, P_001_0001.nii.gz .*modalities="):
        read_raw(tmp_path, None, [], "FLAIR")
    people = touch(tmp_path / "numbered", "P_0001.nii.gz", "P_0002.nii.gz")
    assert len(read_raw(people, None, [], "FLAIR").manifest) == 2
    settings = ('pattern="imagesTr/{subject}_{modality}.nii.gz"', 'modalities={"0000": T1w, "0001": FLAIR}')
    raw = read_raw(tmp_path, "folder", settings, None)
    assert [record.scan_id for record in raw.manifest] == ["sub-P001_FLAIR", "sub-P001_T1w", "sub-P002_T1w"]
