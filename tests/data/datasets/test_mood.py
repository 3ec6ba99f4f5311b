from halebrain.data.datasets import read_source


def test_reads_the_training_part_only(tree):
    root = tree("brain/brain_train/00000.nii.gz", "brain/brain_train/00480.nii.gz", "brain/toy/00480.nii.gz")
    result = read_source("mood", root)
    assert result.manifest.subjects() == ["MOOD00000", "MOOD00480"]
    assert all(r.is_healthy and r.modality == "T2w" for r in result.manifest)
    inside = read_source("mood", root / "brain" / "brain_train", {"modality": "T1w"})
    assert [r.scan_id for r in inside.manifest] == ["sub-MOOD00000_T1w", "sub-MOOD00480_T1w"]
