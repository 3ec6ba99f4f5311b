"""What stands beside each file of a detection."""

from dataclasses import fields, replace

from halebrain.core.types import Lesion
from halebrain.inference.lesions import COLUMNS
from halebrain.inference.outputs import sidecars
from stated import provenance

FIELDS = {
    "input_in_dataset": "sub-01/anat/sub-01_FLAIR.nii.gz",
    "model": "flair",
    "model_sha256": "ab" * 32,
    "seed": 0,
    "draws": 1,
    "levels": [500],
    "threshold": {"value": 0.25, "name": "fpr:0.01", "min_lesion_mm3": 0},
    "versions": {"halebrain": "1.2.3"},
    "qc": {"brain_method": "stripped"},
}
URI = "bids:raw:sub-01/anat/sub-01_FLAIR.nii.gz"


def test_every_image_says_what_it_is_and_what_made_it():
    made = sidecars(provenance(**FIELDS))
    images = {name: about for name, about in made.items() if name[1] != "lesions"}
    assert len(images) == 7
    for about in images.values():
        assert about["Description"]
        assert about["Sources"] == [URI]
        assert about["SpatialReference"] == URI
        assert about["SoftwareVersion"] == "1.2.3"
    assert made["brain", "mask"]["Type"] == "Brain"
    assert "ModelSHA256" not in made["brain", "mask"]
    mask = made["anomaly", "mask"]
    assert mask["Type"] == "Lesion"
    assert (mask["Threshold"], mask["ThresholdMethod"], mask["MinimumLesionVolumeMm3"]) == (0.25, "fpr:0.01", 0)
    assert (mask["ModelName"], mask["ModelSHA256"], mask["ModelVersion"], mask["Seed"]) == (
        *("flair", "ab" * 32, "ab" * 6),
        0,
    )
    assert all(made[name, ""]["SkullStripped"] is True for name in ("pseudohealthy", "residual", "uncertainty"))


def test_outside_a_data_set_nothing_is_made_up():
    made = sidecars(replace(provenance(**FIELDS), input_in_dataset=None))
    assert made["anomaly", "mask"]["SpatialReference"] == "orig"
    assert not any("Sources" in about for about in made.values())


def test_every_column_of_the_lesion_table_is_described():
    assert list(COLUMNS) == [field.name for field in fields(Lesion)]
    assert set(COLUMNS) < set(sidecars(provenance())["anomaly", "lesions"])
