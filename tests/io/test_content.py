"""What a file is, is read off its content; how large a head can be, off its header, before memory is taken."""

import bz2
import gzip
import struct
import tracemalloc

import nibabel
import numpy as np
import pytest

from halebrain.core.errors import DataError
from halebrain.core.types import Volume
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_array, read_map, read_mask, read_on_grid, read_volume

AFFINE = np.diag([-8.0, 9.0, 10.0, 1.0])
SHAPE = (10, 11, 12)


@pytest.fixture
def data(rng):
    return rng.integers(0, 900, size=SHAPE).astype(np.int16)


def saved(path, data, affine=AFFINE, units="mm", kind=nibabel.Nifti1Image):
    image = kind(data, affine)
    image.set_sform(affine, 1)
    image.set_qform(affine, 1)
    image.header.set_xyzt_units(units)
    nibabel.save(image, path)
    return path


def renamed(path, name, packed):
    raw = path.read_bytes()
    raw = gzip.decompress(raw) if raw[:2] == b"\x1f\x8b" else raw
    target = path.with_name(name)
    target.write_bytes(gzip.compress(raw) if packed else raw)
    return target


NAMES = ["a.nii", "a.nii.gz", "a.NII.GZ", "a.mgz", "a.mgh", "a.hdr", "a.img", "a.dcm", "a.v2"]


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("kind", [nibabel.Nifti1Image, nibabel.Nifti2Image])
def test_a_nifti_is_read_under_any_name(tmp_path, data, kind, name, packed):
    path = renamed(saved(tmp_path / "original.nii", data, kind=kind), name, packed)
    for read in (read_volume, read_map):
        np.testing.assert_array_equal(read(path).data, data)


@pytest.mark.parametrize("packed", [False, True])
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz", "a.mgh"])
def test_an_mgh_is_read_under_any_name(tmp_path, data, name, packed):
    nibabel.save(nibabel.MGHImage(data.astype(np.int32), AFFINE), tmp_path / "original.mgz")
    np.testing.assert_array_equal(read_volume(renamed(tmp_path / "original.mgz", name, packed)).data, data)


def test_a_pair_is_packed_or_not_whatever_its_names(tmp_path, data):
    saved(tmp_path / "p.hdr", data, kind=nibabel.Nifti1Pair)
    (tmp_path / "p.img").write_bytes(gzip.compress((tmp_path / "p.img").read_bytes()))
    np.testing.assert_array_equal(read_volume(tmp_path / "p.hdr").data, data)


@pytest.mark.slow
@pytest.mark.parametrize(
    ("raw", "said"),
    [
        (b"\x28\xb5\x2f\xfd" + bytes(600), "compressed with zstd; unpack"),
        (bz2.compress(bytes(600)), "compressed with bzip2; unpack"),
        (b"\x89HDF\r\n" + bytes(600), "HDF5"),
        (b"NRRD0004\n", "NRRD"),
        (b"nothing of the kind", ""),
        (b"", ""),
        (gzip.compress(b"nothing of the kind" * 50), ""),
        (gzip.compress(bytes(600))[:40], ""),
    ],
    ids=["zstd", "bzip2", "hdf5", "nrrd", "text", "empty", "packed text", "cut off"],
)
@pytest.mark.parametrize("name", ["a.nii", "a.nii.gz", "a.mgz", "a.hdr", "a.nii.zst", "a.nii.bz2", "a"])
def test_anything_else_is_one_line(tmp_path, raw, said, name):
    path = tmp_path / name
    path.write_bytes(raw)
    if name.endswith("hdr"):
        path.with_suffix(".img").write_bytes(bytes(100))
    scan = Volume(np.ones(SHAPE, np.float32), AFFINE)
    readers = (read_volume, read_map, read_array, lambda p: read_mask(p, scan), lambda p: read_on_grid(p, scan, "x"))
    for read in readers:
        with pytest.raises(DataError) as caught:
            read(path)
        message = str(caught.value)
        assert "\n" not in message
        assert str(path) in message
        assert said.split(";")[0] in message


@pytest.mark.parametrize("extra", [(1,), (1, 1), (1, 1, 1, 1)])
def test_further_axes_of_length_one_are_dropped(tmp_path, data, extra):
    path = saved(tmp_path / "a.nii.gz", data.reshape(*SHAPE, *extra))
    scan = read_volume(path)
    np.testing.assert_array_equal(scan.data, data)
    np.testing.assert_array_equal(read_on_grid(path, scan, "x"), data)
    mask = saved(tmp_path / "m.nii.gz", (data > 400).astype(np.uint8).reshape(*SHAPE, *extra))
    np.testing.assert_array_equal(read_mask(mask, scan), data > 400)


def test_several_volumes_are_refused(tmp_path, data):
    path = saved(tmp_path / "a.nii.gz", np.stack([data, data], axis=-1)[:, :, :, None])
    for read in (read_volume, read_map):
        with pytest.raises(DataError, match="three dimensions, got shape"):
            read(path)


@pytest.mark.parametrize(("units", "factor", "name"), [("meter", 1000, "metres"), ("micron", 0.001, "micrometres")])
def test_units_are_converted_and_noted(tmp_path, data, units, factor, name):
    small = np.diag([*(np.diag(AFFINE)[:3] / factor), 1.0])
    small[:3, 3] = np.array([40.0, -50, 60]) / factor
    path = saved(tmp_path / "a.nii.gz", data, small, units)
    expected = small.copy()
    expected[:3] *= factor
    for volume in (read_volume(path), read_volume(nibabel.load(path)), read_map(path)):
        np.testing.assert_allclose(volume.affine, expected, rtol=1e-6)
        assert volume.spacing_mm == pytest.approx((8, 9, 10))
        assert volume.notes == (f"its header gives {name}: taken as such and converted to mm",)
    mask = saved(tmp_path / "m.nii.gz", (data > 400).astype(np.uint8), expected)
    np.testing.assert_array_equal(read_mask(mask, read_volume(path)), data > 400)


@pytest.mark.parametrize(("units", "factor"), [("meter", 1000), ("mm", 1), ("micron", 0.001)])
def test_a_map_lies_where_its_scan_does_by_both_placements_whatever_the_unit(tmp_path, data, units, factor):
    placements = {"sform": AFFINE.copy(), "qform": AFFINE.copy()}
    placements["sform"][:3, 3], placements["qform"][:3, 3] = (40.0, -50, 60), (43.0, -46, 60)  # 5 mm apart
    image = nibabel.Nifti1Image(data, None)
    for name, affine in placements.items():
        getattr(image, f"set_{name}")(np.diag([*[1 / factor] * 3, 1.0]) @ affine, 2)
    image.header.set_xyzt_units(units)
    nibabel.save(image, tmp_path / "a.nii.gz")
    scan = read_volume(tmp_path / "a.nii.gz")
    assert scan.placement is not None
    assert scan.placement.distance_mm(SHAPE) == pytest.approx(5, abs=1e-4)
    write_volume(tmp_path / "map.nii.gz", scan.data, scan.affine, placement=scan.placement)
    written = nibabel.load(tmp_path / "map.nii.gz")
    assert written.header.get_xyzt_units()[0] == "mm"
    assert written.header.get_zooms() == pytest.approx((8, 9, 10))
    np.testing.assert_allclose(written.affine, placements["sform"], atol=1e-4)
    np.testing.assert_allclose(written.get_qform(), placements["qform"], atol=1e-4)


@pytest.mark.parametrize("units", ["unknown", "mm"])
def test_other_units_are_mm_without_a_note(tmp_path, data, units):
    volume = read_volume(saved(tmp_path / "a.nii.gz", data, units=units))
    assert volume.spacing_mm == pytest.approx((8, 9, 10))
    assert volume.notes == ()


IMPOSSIBLE = {
    "metres without a unit": (0.001, "mm", "0.08 x 0.099 x 0.12 mm", "seems to hold m:"),
    "micrometres without a unit": (1000.0, "mm", "8e+04 x 9.9e+04 x 1.2e+05 mm", "seems to hold µm:"),
    "mm called metres": (1.0, "meter", "8e+04 x 9.9e+04 x 1.2e+05 mm", "seems to hold µm:"),
    "mm called micrometres": (1.0, "micron", "0.08 x 0.099 x 0.12 mm", "seems to hold m:"),
    "a mouse": (0.2, "mm", "16 x 19.8 x 24 mm", "check the voxel size"),
    "a house": (20.0, "mm", "1.6e+03 x 1.98e+03 x 2.4e+03 mm", "check the voxel size"),
}


@pytest.mark.parametrize("case", IMPOSSIBLE, ids=lambda name: name.replace(" ", "_"))
def test_a_field_of_view_that_no_head_has_is_refused(tmp_path, data, case):
    scale, units, size, advice = IMPOSSIBLE[case]
    path = saved(tmp_path / "a.nii.gz", data, np.diag([*(scale * np.diag(AFFINE)[:3]), 1.0]), units)
    for read in (lambda: read_volume(path), lambda: read_volume(nibabel.load(path))):
        with pytest.raises(DataError) as caught:
            read()
        assert f"a head is 50 to 800 mm long, got {size}" in str(caught.value)
        assert advice in str(caught.value)


@pytest.mark.parametrize(
    ("shape", "spacing"),
    [
        ((512, 512, 8), (0.94, 0.94, 1.0)),  # a thin slab in a padded matrix
        ((320, 320, 20), (1.1, 1.1, 5.0)),
        ((64, 64, 40), (1.0, 1.0, 1.0)),  # a preterm infant, cut to the brain
        ((8, 300, 300), (5.0, 1.2, 1.2)),
    ],
)
def test_fields_of_view_of_heads_are_taken(shape, spacing):
    data = np.zeros(shape, np.uint8)
    data[0] = 1
    assert read_volume(nibabel.Nifti1Image(data, np.diag([*spacing, 1.0]))).shape == shape


@pytest.mark.parametrize("packed", [False, True])
def test_a_header_that_promises_more_than_there_is_takes_no_memory(tmp_path, data, packed):
    raw = bytearray(saved(tmp_path / "a.nii", data).read_bytes())
    raw[42:48] = struct.pack("<3h", 3000, 3000, 3000)
    raw[80:92] = struct.pack("<3f", 0.1, 0.1, 0.1)
    for row, place in enumerate((280, 296, 312)):
        raw[place : place + 16] = struct.pack("<4f", *(0.1 * (row == column) for column in range(4)))
    path = tmp_path / "a.nii.gz"
    path.write_bytes(gzip.compress(bytes(raw)) if packed else bytes(raw))
    tracemalloc.start()
    try:
        with pytest.raises(DataError, match="54000000000 bytes of voxels according to the header"):
            read_volume(path)
        assert tracemalloc.get_traced_memory()[1] < 50e6
    finally:
        tracemalloc.stop()


def test_size_is_asked_before_voxels_are_read(tmp_path, monkeypatch):
    saved(tmp_path / "a.nii.gz", np.zeros((10, 10, 10), np.uint8), np.diag([0.001, 0.001, 0.001, 1]))
    monkeypatch.setattr(nibabel.arrayproxy.ArrayProxy, "__array__", lambda *_, **__: 1 / 0)
    with pytest.raises(DataError, match="a head is"):
        read_volume(tmp_path / "a.nii.gz")
    scan = Volume(np.ones(SHAPE, np.float32), AFFINE)
    with pytest.raises(DataError, match="grid"):
        read_mask(tmp_path / "a.nii.gz", scan)


@pytest.mark.slow
def test_ordinary_scans_are_read_as_ever(real_data):
    paths = sorted(real_data.rglob("*.nii*"))
    chosen = [p for p in paths if "labelmaps" not in str(p)][:: max(1, len(paths) // 8)]
    assert len(chosen) >= 4
    for path in chosen:
        image, found = nibabel.load(path), read_map(path)
        np.testing.assert_array_equal(found.data, np.asanyarray(image.dataobj, dtype=np.float32).reshape(found.shape))
        np.testing.assert_array_equal(found.affine, image.affine)
