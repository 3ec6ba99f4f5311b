import numpy as np
import pytest
import torch

from halebrain.core.errors import DataError, MissingInputError, UsageError
from halebrain.core.random import make_generator
from halebrain.data.anomalies import AnomalySpec, build_anomaly
from halebrain.data.anomalies.cohort import mask_library
from halebrain.io.nifti import write_volume
from halebrain.preprocessing.geometry import working_grid

GRID = working_grid((96, 96, 80), 2.0)


def write_mask(folder, name, *, affine=GRID.affine, values=(1,)):
    data = np.zeros(GRID.shape, dtype=np.uint8)
    for number, value in enumerate(values):
        data[30 + 9 * number : 38 + 9 * number, 40:52, 40:46] = value
    write_volume(folder / name, data, affine, dtype=np.uint8)


def test_slices_of_a_mask_lie_where_the_mask_does(tmp_path):
    write_mask(tmp_path, "a_lesion.nii.gz")
    library = mask_library(tmp_path)
    assert library.shape == (3, 2, 96, 96)  # every second of six slices
    wet = library[:, 0].amax(dim=0) > 0.3
    rows, columns = wet.any(dim=1).nonzero().flatten(), wet.any(dim=0).nonzero().flatten()
    assert abs(int(rows[0]) - 30) <= 1
    assert abs(int(rows[-1]) - 37) <= 1
    assert abs(int(columns[0]) - 40) <= 1
    assert abs(int(columns[-1]) - 51) <= 1


def test_a_mask_too_small_for_a_shape_is_named(tmp_path, caplog):
    write_mask(tmp_path, "large.nii.gz")
    alone = mask_library(tmp_path)
    mask_library.cache_clear()
    data = np.zeros(GRID.shape, dtype=np.uint8)
    data[30:33, 40:43, 40:46] = 1
    write_volume(tmp_path / "small.nii.gz", data, GRID.affine, dtype=np.uint8)
    assert torch.equal(mask_library(tmp_path), alone)
    assert "small.nii.gz: left out, no slice of it has 12 pixels of 2 mm" in caplog.text


def test_a_data_set_of_scans_and_masks_is_no_folder_of_lesion_masks(tmp_path):
    (tmp_path / "dataset_description.json").write_text('{"Name": "mine", "DatasetType": "derivative"}')
    write_mask(tmp_path, "sub-1_label-lesion_mask.nii.gz")
    with pytest.raises(UsageError, match="got a BIDS data set"):
        mask_library(tmp_path)


def test_an_atlas_of_regions_is_no_lesion_and_is_named(tmp_path, caplog):
    write_mask(tmp_path, "atlas.nii.gz", values=(1, 2))
    with pytest.raises(MissingInputError, match="a lesion mask"):
        mask_library(tmp_path)
    assert "atlas.nii.gz: left out" in caplog.text


def test_a_mask_elsewhere_is_named(tmp_path):
    far = GRID.affine.copy()
    far[:3, 3] += 1000
    write_mask(tmp_path, "far.nii.gz", affine=far)
    with pytest.raises(DataError, match="template space"):
        mask_library(tmp_path)


@pytest.mark.slow
def test_masks_and_simulated_lesions_are_drawn_as_often(tmp_path):
    write_mask(tmp_path, "a.nii.gz")
    settings = {"probability": 1.0, "patients": 1, "diseases": ["wmh"], "sign": "both"}
    with_masks = build_anomaly(AnomalySpec(name="cohort", settings=settings | {"masks": str(tmp_path)}))
    without = build_anomaly(AnomalySpec(name="cohort", settings=settings))
    image = torch.full((40, 1, 96, 96), 0.5)
    brain_mask = torch.ones_like(image, dtype=torch.bool)
    params = with_masks.sample_params(40, generator=make_generator(0))
    first, second = (a.apply(image, brain_mask, params)[1].flatten(1) for a in (with_masks, without))
    differ = (first != second).any(dim=1)
    from_masks = torch.tensor([p["slice"] >= 0.5 for p in params])
    assert differ[from_masks].all()
    assert 10 < int(from_masks.sum()) < 30
