from halebrain.core.types import TEMPLATE_SPACE
from halebrain.data.datasets import read_source


def case(part, cohort, subject, *, mask=True):
    stem = f"{part}/{cohort}/sub-{subject}/ses-1/anat/sub-{subject}_ses-1_space-MNI152NLin2009aSym"
    return [f"{stem}_T1w.nii.gz"] + [f"{stem}_label-L_desc-T1lesion_mask.nii.gz"] * mask


def test_reads_training_and_testing(tree):
    names = case("Training", "R001", "r001s001") + case("Testing", "R002", "r002s003", mask=False)
    result = read_source("atlas2", tree(*names, "20220425_ATLAS_2.0_MetaData.csv"))
    assert result.problems == ()
    first, second = result.manifest
    assert (first.subject, first.session, first.site, first.space) == ("r001s001", "1", "R001", TEMPLATE_SPACE)
    assert first.scan_id == "sub-r001s001_ses-1_T1w"
    assert first.lesion is not None
    assert second.lesion is None
    assert {r.pathology for r in result.manifest} == {"stroke"}


def test_a_training_scan_without_its_mask_is_named(tree):
    names = case("Training", "R001", "r001s001") + case("Training", "R001", "r001s002", mask=False)
    result = read_source("atlas2", tree(*names))
    assert len(result.manifest) == 2
    assert len(result.problems) == 1
    assert "r001s002" in result.problems[0]
