import pytest

from halebrain.core.errors import ConfigError
from halebrain.data.datasets import read_source

IXI_HEADER = ',img_name,"SEX_ID (1=m, 2=f)",HEIGHT,age,label,img_path,mask_path,seg_path,Agegroup\n'
HEADER = ",img_name,age,sex,ms_type,label,img_path,mask_path,seg_path,Agegroup\n"
SETS = {
    "Brats21": [f"BraTS2021_{n:05d}" for n in range(14)],
    "ATLAS_v2": [f"sub-r034s{n:03d}_ses-1_space-MNI152NLin2009aSym" for n in range(9)],
    "MSLUB": ["patient01", "patient02"],
    "WMH": ["Utrecht_49", "GE3T_114"],
}


def ixi(number):
    return f"IXI{number:03d}-Guys-{number + 600:04d}"


def ixi_list(root, name, numbers, folder="ixi"):
    rows = [
        f"{n},{ixi(n)}_t1.nii.gz,{1 + n % 2},170,{20 + n}.5,0,/Train/{folder}/t1/{ixi(n)}_t1.nii.gz,"
        f"/Train/{folder}/mask/{ixi(n)}_mask.nii.gz,,1.0\n"
        for n in numbers
    ]
    (root / f"splits/{name}.csv").write_text(IXI_HEADER + "".join(rows))


def set_list(root, kind, split, stems):
    rows = [
        f"{n},{s},3{n},F,RR,1,/Test/{kind}/t1/{s}_t1.nii.gz,/Test/{kind}/mask/{s}_mask.nii.gz,"
        f"/Test/{kind}/seg/{s}_seg.nii.gz,1.0\n"
        for n, s in enumerate(stems)
    ]
    (root / f"splits/{kind}_{split}.csv").write_text(HEADER + "".join(rows))


@pytest.fixture
def published(tree):
    """The shared data as unpacked: IXI 0-9 trained on, 10-11 for validation, 12-13 for test, without a leak."""
    names = [f"Train/ixi/{part}/{ixi(n)}_{part}.nii.gz" for n in range(14) for part in ("t1", "t2", "mask")]
    for kind, stems in SETS.items():
        names += [f"Test/{kind}/{part}/{stem}_{part}.nii.gz" for stem in stems for part in ("t1", "mask", "seg")]
    root = tree(*names, "splits/avail_t2.csv")
    for fold in range(5):
        ixi_list(root, f"IXI_train_fold{fold}", range(10 if fold == 0 else 9))
        ixi_list(root, f"IXI_val_fold{fold}", [10, 11] if fold == 0 else [])
    ixi_list(root, "IXI_test", [12, 13])
    for kind, stems in SETS.items():
        cut = len(stems) // 2 + (5 if kind == "Brats21" else 3 if kind == "ATLAS_v2" else 0)
        set_list(root, kind, "val", stems[:cut])
        set_list(root, kind, "test", stems[cut:])
    return root


def splits_of(result):
    return {record.subject: record.split for record in result.manifest}


def test_reads_every_data_set_under_the_names_of_its_own_source(published):
    result = read_source("published", published)
    assert result.problems == ()
    by_id = {r.scan_id: r for r in result.manifest}
    assert {r.pathology for r in result.manifest} == {"healthy", "tumour", "stroke", "ms", "wmh"}
    assert {r.split for r in result.manifest} == {None}
    scan = by_id["sub-IXI002_T2w"]
    assert (scan.age, scan.sex, scan.site) == (22.5, "M", "Guys")
    assert scan.brain_mask == published / f"Train/ixi/mask/{ixi(2)}_mask.nii.gz"
    assert scan.lesion is None
    stroke = by_id["sub-r034s003_ses-1_T1w"]
    assert (stroke.site, stroke.session, stroke.age) == ("R034", "1", 33)
    assert stroke.lesion == published / f"Test/ATLAS_v2/seg/{SETS['ATLAS_v2'][3]}_seg.nii.gz"
    assert {"sub-BraTS202100000_T1w", "sub-patient01_T1w", "sub-Utrecht49_T1w", "sub-GE3T114_T1w"} <= set(by_id)


def test_takes_the_published_split_when_asked(published):
    result = read_source("published", published, {"fold": 0})
    assert result.problems == ()
    splits = splits_of(result)
    assert [splits[f"IXI{n:03d}"] for n in (0, 9, 10, 13)] == ["train", "train", "val", "test"]
    assert [splits[s] for s in ("patient01", "patient02")] == ["val", "test"]
    assert splits_of(read_source("published", published, {"fold": 1}))["IXI009"] is None


def test_the_weak_training_lists_are_cut_as_the_published_code_cuts_them(published):
    splits = splits_of(read_source("published", published, {"fold": 0, "weak_training": True}))
    assert [splits[f"BraTS2021{n:05d}"] for n in (9, 10, 11, 12)] == ["val", "train", "train", "test"]
    assert [splits[f"r034s{n:03d}"] for n in (5, 6, 7)] == ["val", "train", "test"]
    assert splits["patient01"] == "val"


def test_leaks_are_counted_named_and_not_passed_on(published):
    # As in the published files: the same people under another path, and folds that share subjects.
    ixi_list(published, "IXI_test", [12, 13, 3, 4], folder="IXI_uniso")
    ixi_list(published, "IXI_val_fold0", [10, 11, 5])
    ixi_list(published, "IXI_val_fold1", [10])
    result = read_source("published", published, {"fold": 0})
    kept = "each is kept in test, else in validation, only"
    counts = ", ".join(f"2 of fold {k}" for k in range(5))
    assert result.problems == (
        f"IXI: test subjects are in the published training list: {counts} (IXI003, IXI004); {kept}",
        f"IXI: training and validation list share subjects: 1 of fold 0 (IXI005); {kept}",
        "IXI: validation lists share subjects: 1 of folds 0 and 1 (IXI010)",
    )
    splits = splits_of(result)
    assert (splits["IXI003"], splits["IXI004"], splits["IXI005"]) == ("test", "test", "val")
    assert read_source("published", published).problems == ()


def test_masks_may_be_packed_or_not(published):
    (published / "Test/MSLUB/seg/patient01_seg.nii.gz").rename(published / "Test/MSLUB/seg/patient01_seg.nii")
    result = read_source("published", published)
    assert result.problems == ()
    assert {r.lesion.name for r in result.manifest if r.subject == "patient01"} == {"patient01_seg.nii"}


def test_what_is_missing_is_named(published):
    (published / f"Train/ixi/t1/{ixi(0)}_t1.nii.gz").unlink()
    (published / f"Train/ixi/t2/{ixi(0)}_t2.nii.gz").unlink()
    (published / "Test/MSLUB/seg/patient01_seg.nii.gz").unlink()
    (published / "Test/WMH/mask/Utrecht_49_mask.nii.gz").unlink()
    (published / "splits/WMH_val.csv").unlink()
    (published / "Test/Brats21/t1/other_t1.nii.gz").touch()
    result = read_source("published", published, {"fold": 0})
    assert ("Test/Brats21/t1/other_t1.nii.gz", "not of the published data sets") in result.left_out
    assert result.problems == (
        "Test/MSLUB/t1/patient01_t1.nii.gz: no segmentation; it is listed without one",
        "Test/WMH/t1/Utrecht_49_t1.nii.gz: no brain mask; it is listed without one",
        "IXI: 1 of 14 listed subjects have no scan, first IXI000",
        "WMH: no splits/WMH_val.csv; its subjects are in no split",
    )


def test_a_fold_that_was_not_published_is_refused():
    with pytest.raises(ConfigError, match="fold"):
        read_source("published", None, {"fold": 5})
