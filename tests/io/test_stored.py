"""A copy of a scan with some voxels replaced, from a file or from memory."""

from pathlib import Path

import nibabel
import numpy as np
import pytest

from halebrain.io.stored import StoredScan
from halebrain.io.volume import read_volume

AFFINE = np.array([[1.9, 0.3, 0, -30], [-0.3, 1.9, 0.2, -40], [0, -0.2, 3, -20], [0, 0, 0, 1.0]])
SHAPE = (40, 41, 20)
REGION = np.zeros(SHAPE, dtype=bool)
REGION[5:9, 5:9, 5:9] = True


def scan(dtype: str, slope: float, inter: float) -> nibabel.Nifti1Image:
    raw = np.random.default_rng(0).integers(0, 200, SHAPE).astype(dtype)
    image = nibabel.Nifti1Image(raw, AFFINE)
    image.header.set_slope_inter(slope, inter)
    return image


@pytest.mark.parametrize(("dtype", "value"), [("int16", 20.0), ("uint8", 20.0), ("float32", 20.4)])
@pytest.mark.parametrize("in_memory", [False, True])
def test_only_the_region_changes(tmp_path: Path, dtype: str, value: float, *, in_memory: bool) -> None:
    path, image = tmp_path / "scan.nii.gz", scan(dtype, 1.0, 0.0)
    nibabel.save(image, path)
    stored = StoredScan.of(read_volume(image), image) if in_memory else StoredScan.of(read_volume(path), path)
    changed = stored.replaced(REGION, np.full(64, 20.4, np.float32))
    found = np.asarray(changed.image().dataobj)
    assert changed.image().get_data_dtype() == np.dtype(dtype)
    np.testing.assert_array_equal(found[~REGION], np.asarray(image.dataobj)[~REGION])
    np.testing.assert_allclose(found[REGION], value, rtol=1e-6)
    np.testing.assert_allclose(changed.image().affine, AFFINE, atol=1e-6)


def test_values_beyond_the_data_type_become_its_limits(tmp_path: Path) -> None:
    image = scan("uint8", 1.0, 0.0)
    changed = StoredScan.of(read_volume(image), image).replaced(REGION, np.full(64, 999.0, np.float32))
    assert (np.asarray(changed.image().dataobj)[REGION] == 255).all()


@pytest.mark.parametrize(("values", "dtype"), [(1.0, np.int16), (0.25, np.float32), (1000.0, np.float32)])
def test_other_formats_become_the_smaller_type_that_holds_every_value(
    tmp_path: Path, values: float, dtype: type[np.generic]
) -> None:
    data = (values * np.random.default_rng(0).integers(0, 200, SHAPE)).astype(np.float32)
    path = tmp_path / "scan.mgz"
    nibabel.save(nibabel.MGHImage(data, AFFINE.astype(np.float32)), path)
    made = StoredScan.of(read_volume(path), path).image()
    assert made.get_data_dtype() == dtype
    np.testing.assert_array_equal(np.asarray(made.dataobj), data)
    np.testing.assert_allclose(made.affine, AFFINE, atol=1e-4)


def test_the_same_scan_gives_the_same_file(tmp_path: Path) -> None:
    image = scan("int16", 1.0, 0.0)
    stored = StoredScan.of(read_volume(image), image)
    for name in ("a.nii.gz", "b.nii.gz"):
        stored.write(tmp_path / name)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes() == stored.packed()
