import pytest

from halebrain.core.errors import MissingInputError
from halebrain.data.datasets import read_source

INFO = "patient_id,age,sex,ms_type,edss,lesion_count,lesion_volume\n1,31,F,RR,2.0,10,1.0\n2,42,M,PP,3.0,5,2.0\n"
CONTRASTS = ("FLAIR", "T1W", "T1WKS", "T2W")


def laboratory(number):
    name = f"patient{number:02d}"
    files = [*CONTRASTS, "brainmask", "consensus_gt"]
    return [f"{name}/{name}_{f}.nii.gz" for f in files] + [f"{name}/raw/{name}_{c}.nii.gz" for c in CONTRASTS]


def mirror(number):
    name = f"patient{number:02d}"
    files = [*CONTRASTS, "brainmask", "consensus_gt"]
    names = [f"cross_sectional/coregistered/{name}/{f}.nii.gz" for f in files]
    names += [f"cross_sectional/raw/{name}/{f}.nii.gz" for f in (*CONTRASTS, "brainmask", "consensus_gt")]
    mni = [f"{c}_N4_noneck_reduced_winsor_regtoFLAIR_brain_N4_regtoMNI" for c in ("FLAIR", "T1", "T1POST", "T2")]
    mni += ["GOLD_STANDARD_N4_noneck_reduced_winsor_regtoFLAIR_regtoMNI"]
    return names + [f"cross_sectional/MNI/{name}/{f}.nii.gz" for f in mni]


def test_reads_the_laboratorys_archives(tree):
    root = tree(*laboratory(1), *laboratory(2))
    (root / "patient_info.csv").write_text(INFO)
    result = read_source("mslub", root)
    assert result.problems == ()
    assert len(result.manifest) == 8
    assert {r.modality for r in result.manifest} == {"FLAIR", "T1w", "T1ce", "T2w"}
    assert {(r.subject, r.age, r.sex) for r in result.manifest} == {("patient01", 31, "F"), ("patient02", 42, "M")}
    for record in result.manifest:
        assert record.image.parent == root / record.subject
        assert record.lesion == root / record.subject / f"{record.subject}_consensus_gt.nii.gz"
        assert record.brain_mask == root / record.subject / f"{record.subject}_brainmask.nii.gz"
        assert (record.pathology, record.site) == ("ms", "Ljubljana")


def test_raw_scans_have_masks_on_flair_only(tree):
    raw = read_source("mslub", tree(*laboratory(1)), {"version": "raw"})
    assert {r.modality for r in raw.manifest if r.lesion or r.brain_mask} == {"FLAIR"}
    assert all(r.image.parent.name == "raw" for r in raw.manifest)


@pytest.mark.parametrize("version", ["coregistered", "raw", "MNI"])
def test_reads_each_version_of_the_mirror(tree, version):
    result = read_source("mslub", tree(*mirror(1), *mirror(26)), {"version": version})
    assert len(result.manifest) == 8
    assert all(version in r.image.parts for r in result.manifest)
    assert all(r.lesion is None or version in r.lesion.parts for r in result.manifest)
    assert sum(r.lesion is not None for r in result.manifest) == (2 if version == "raw" else 8)


def test_longitudinal_patients_are_other_people_without_lesions(tree):
    names = [f"longitudinal/coregistered/patient01/study{s}_{c}.nii.gz" for s in (1, 2) for c in ("FLAIR", "T1W")]
    result = read_source("mslub", tree(*mirror(1), *names, "longitudinal/coregistered/patient01/gt.nii.gz"))
    assert result.manifest.subjects() == ["longpatient01", "patient01"]
    later = [r for r in result.manifest if r.subject == "longpatient01"]
    assert {r.session for r in later} == {"1", "2"}
    assert all(r.lesion is None for r in later)


def test_what_is_missing_is_named(tree):
    root = tree(*laboratory(1))
    (root / "patient01/patient01_consensus_gt.nii.gz").unlink()
    assert read_source("mslub", root).problems == ("patient01: no lesion; its scans are listed without one",)
    with pytest.raises(MissingInputError, match="the folder holds coregistered and raw, not MNI"):
        read_source("mslub", root, {"version": "MNI"})
