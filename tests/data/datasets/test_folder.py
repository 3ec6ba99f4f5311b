import pytest

from halebrain.core.errors import ConfigError, MissingInputError
from halebrain.data.datasets import SOURCES, build_source, read_source
from halebrain.data.datasets.folder import fill, to_regex

NESTED = "{site}/{subject}/ses-{session}/{modality}.nii.gz"


def test_reads_the_gaps_of_the_pattern(tree):
    root = tree("A/p_1/ses-1/t1.nii.gz", "A/p_1/ses-2/t2.nii.gz", "B/p_2/ses-1/t1.nii.gz", "B/p_2/ses-1/seg.nii.gz")
    settings = {"pattern": NESTED, "modalities": {"t1": "T1w", "t2": "T2w"}, "pathology": "ms"}
    result = read_source("folder", root, settings)
    assert [r.scan_id for r in result.manifest] == ["sub-p1_ses-1_T1w", "sub-p1_ses-2_T2w", "sub-p2_ses-1_T1w"]
    assert [r.site for r in result.manifest] == ["A", "A", "B"]
    assert {r.pathology for r in result.manifest} == {"ms"}


def test_masks_follow_the_scans_gaps_and_are_no_scans(tree):
    root = tree("01_T1w.nii.gz", "01_T1w_lesion.nii.gz", "02_T1w.nii.gz", "masks/01_brain_v2.nii.gz")
    settings = {"pattern": "{subject}_{modality}.nii.gz", "lesion": "{subject}_{modality}_lesion.nii.gz"}
    result = read_source("folder", root, settings | {"brain_mask": "masks/{subject}_{any}.nii.gz"})
    first, second = result.manifest
    assert (first.lesion, first.brain_mask) == (root / "01_T1w_lesion.nii.gz", root / "masks/01_brain_v2.nii.gz")
    assert (second.lesion, second.brain_mask) == (None, None)
    assert result.problems == (
        "02_T1w.nii.gz: no brain mask; it is listed without one",
        "02_T1w.nii.gz: no lesion; it is listed without one",
    )


@pytest.mark.parametrize(
    ("pattern", "given"),
    [("{subject}_{modality}.nii.gz", {}), ("{subject}.nii.gz", {"modality": "T1w"})],
)
def test_a_file_named_as_a_mask_is_no_scan(tree, pattern, given):
    root = tree("01_T1w.nii.gz", "01_seg.nii.gz", "02_T1w_mask.nii.gz")
    result = read_source("folder", root, {"pattern": pattern} | given)
    assert [r.image.name for r in result.manifest] == ["01_T1w.nii.gz"]
    assert result.left_out == (("01_seg.nii.gz", "named as masks"), ("02_T1w_mask.nii.gz", "named as masks"))


def test_names_of_masks_are_scans_where_the_user_says_so(tree):
    root = tree("01_brain_mask.nii.gz", "02_seg.nii.gz")
    result = read_source("folder", root, {"pattern": "{subject}_mask.nii.gz", "modality": "T1w"})
    assert [r.image.name for r in result.manifest] == ["01_brain_mask.nii.gz"]
    result = read_source("folder", root, {"pattern": "{subject}_seg{any}.nii.gz", "modality": "T1w"})
    assert [r.image.name for r in result.manifest] == ["02_seg.nii.gz"]
    result = read_source("folder", root, {"pattern": "{subject}_{modality}.nii.gz", "modalities": {"seg": "T1w"}})
    assert [r.image.name for r in result.manifest] == ["02_seg.nii.gz"]


def test_two_masks_that_fit_are_none_and_a_problem(tree):
    root = tree("01.nii.gz", "masks/01_a.nii.gz", "masks/01_b.nii.gz")
    settings = {"pattern": "{subject}.nii.gz", "modality": "T1w", "lesion": "masks/{subject}_{any}.nii.gz"}
    result = read_source("folder", root, settings)
    assert result.manifest.records[0].lesion is None
    assert "2 files could be its lesion" in result.problems[0]


def test_subjects_that_would_share_a_label_and_images_left_out_are_named(tree):
    root = tree("a_1.nii.gz", "a-1.nii.gz", "deep/b.nii.gz")
    result = read_source("folder", root, {"pattern": "{subject}.nii.gz", "modality": "T1w"})
    assert len(result.manifest) == 1
    assert "label 'a1' equals" in result.problems[0]
    assert result.left_out == (
        ("a_1.nii.gz", "of a subject without a unique label"),
        ("deep/b.nii.gz", "not named as '{subject}.nii.gz'"),
    )


@pytest.mark.parametrize(
    ("settings", "word"),
    [
        ({}, "pattern"),
        ({"pattern": "{subjct}.nii", "modality": "T1w"}, "did you mean 'subject'"),
        ({"pattern": "scan.nii", "modality": "T1w"}, "must hold {subject}"),
        ({"pattern": "{subject}.nii"}, "modality must be given"),
        ({"pattern": "{subject}_{modality}.nii", "modality": "T1w"}, "given once"),
        ({"pattern": "{site}_{subject}.nii", "modality": "T1w", "site": "A"}, "given once"),
        ({"pattern": "{subject}.nii", "modality": "T1w", "lesion": "{session}.nii"}, "placeholders of the scan"),
        ({"pattern": "{subject}.nii", "modality": "T1w", "patern": "x"}, "did you mean 'pattern'"),
        ({"pattern": "{subject}.nii", "modality": "T1w", "space": "MNI"}, "space"),
    ],
)
def test_refuses_settings_that_cannot_be_meant(settings, word):
    with pytest.raises(ConfigError) as caught:
        build_source("folder", settings)
    assert word in str(caught.value)
    assert "\n" not in str(caught.value)


def test_nothing_found_names_the_pattern(tree):
    with pytest.raises(MissingInputError, match=r"files named '\{subject\}_T1w.nii.gz'"):
        read_source("folder", tree("x.txt"), {"pattern": "{subject}_T1w.nii.gz", "modality": "T1w"})


def test_an_unknown_data_set_lists_or_offers_the_known_ones():
    with pytest.raises(ConfigError, match="did you mean 'brats'"):
        build_source("brat")
    with pytest.raises(ConfigError, match=", ".join(SOURCES.names())):
        build_source("zzzz")


def test_patterns_take_all_else_literally():
    assert to_regex("a.b{any}[{subject}]") == r"a\.b[^/]*\[(?P<subject>[^/]+)\]"
    assert fill("{subject}[x]{any}.nii", {"subject": "a+b"}) == ["a+b[x]", ".nii"]
