from halebrain.data.datasets import read_source

OLD = [f"BraTS2021_00000/BraTS2021_00000_{c}.nii.gz" for c in ("flair", "t1", "t1ce", "t2", "seg")]
NEW = [
    f"BraTS-GLI-00005-{s}/BraTS-GLI-00005-{s}-{c}.nii.gz"
    for s in ("100", "101")
    for c in ("t1n", "t1c", "t2w", "t2f", "seg")
]


def test_reads_the_layout_of_2021(tree):
    result = read_source("brats", tree(*OLD))
    assert result.problems == ()
    assert {r.modality: r.image.name for r in result.manifest} == {
        "FLAIR": "BraTS2021_00000_flair.nii.gz",
        "T1w": "BraTS2021_00000_t1.nii.gz",
        "T1ce": "BraTS2021_00000_t1ce.nii.gz",
        "T2w": "BraTS2021_00000_t2.nii.gz",
    }
    record = result.manifest.records[0]
    assert (record.subject, record.session, record.pathology) == ("BraTS202100000", None, "tumour")
    assert record.lesion is not None
    assert record.lesion.name == "BraTS2021_00000_seg.nii.gz"


def test_time_points_of_2023_are_sessions_of_one_subject(tree):
    result = read_source("brats", tree(*NEW))
    assert result.manifest.subjects() == ["BraTSGLI00005"]
    assert {r.session for r in result.manifest} == {"100", "101"}
    assert len(result.manifest) == 8
    assert all(r.lesion and r.lesion.parent == r.image.parent for r in result.manifest)


def test_a_case_without_a_time_point_has_no_session(tree):
    names = [f"BraTS-GoAT-00017/BraTS-GoAT-00017-{c}.nii.gz" for c in ("t1n", "t1c", "t2w", "t2f", "seg")]
    result = read_source("brats", tree(*names))
    assert result.problems == ()
    assert {(r.subject, r.session, r.lesion is not None) for r in result.manifest} == {("BraTSGoAT00017", None, True)}


def test_what_a_case_lacks_is_named_and_the_others_stay(tree):
    root = tree(*OLD, *NEW)
    (root / OLD[1]).unlink()
    (root / NEW[4]).unlink()
    result = read_source("brats", root)
    assert result.problems == (
        "BraTS2021_00000: no T1w",
        "BraTS-GLI-00005-100: no segmentation; its scans are listed without a lesion",
    )
    assert len(result.manifest) == 11


def test_a_set_without_any_segmentation_is_one_problem(tree):
    result = read_source("brats", tree(*OLD[:4], *NEW[:4]))
    assert len(result.problems) == 1
    assert all(record.lesion is None for record in result.manifest)
