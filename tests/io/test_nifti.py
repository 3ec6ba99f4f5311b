import gzip

import nibabel
import numpy as np
import pytest

from halebrain.core.errors import DataError, MissingInputError
from halebrain.io import nifti
from halebrain.io.nifti import write_volume
from halebrain.io.volume import read_array, read_healthy, read_mask, read_volume

AFFINE = np.array([[-5.0, 1.0, 0, 5], [0.5, 10.0, 0, -7], [0, 0, 15.0, 9], [0, 0, 0, 1]])


def image(tmp_path, data, affine=AFFINE, name="scan.nii.gz", codes=(1, 1)):
    path = tmp_path / name
    made = nibabel.Nifti1Image(data, affine)
    made.set_sform(affine, codes[0])
    made.set_qform(None, codes[1])
    nibabel.save(made, path)
    return path


@pytest.fixture
def data(rng):
    return rng.normal(100, 20, size=(9, 10, 11)).astype(np.float32)


@pytest.mark.parametrize("ending", [".nii", ".nii.gz"])
def test_a_volume_survives_the_round_trip(tmp_path, data, ending):
    path = tmp_path / f"a{ending}"
    write_volume(path, data, AFFINE)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data)
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.spacing_mm == pytest.approx(np.linalg.norm(AFFINE[:3, :3], axis=0))


def test_scaled_integers_come_back_within_half_a_step(tmp_path, rng):
    score = rng.uniform(0, 1, size=(9, 9, 9)).astype(np.float32)
    write_volume(tmp_path / "p.nii.gz", score, np.eye(4), dtype=np.uint16, scale=1 / 65535)
    stored = nibabel.load(tmp_path / "p.nii.gz")
    assert stored.get_data_dtype() == np.uint16
    np.testing.assert_allclose(stored.get_fdata(), score, atol=0.51 / 65535)


def test_the_same_content_gives_the_same_bytes(tmp_path, data):
    write_volume(tmp_path / "a.nii.gz", data, AFFINE)
    write_volume(tmp_path / "b.nii.gz", data, AFFINE)
    assert (tmp_path / "a.nii.gz").read_bytes() == (tmp_path / "b.nii.gz").read_bytes()


@pytest.mark.parametrize(("dtype", "scale"), [(np.uint16, 1 / 65535), (np.float32, 1.0), (np.uint8, 1.0)])
def test_a_file_holds_its_header_and_then_all_voxels_with_the_first_axis_fastest(tmp_path, rng, dtype, scale):
    values = np.zeros((12, 14, 19), dtype=np.float32)
    values[3:9, 2:5, 4:18] = rng.uniform(0, 1, size=(6, 3, 14))
    values[5, 3, 6] = 0
    write_volume(tmp_path / "a.nii.gz", values, np.eye(4), dtype=dtype, scale=scale)
    write_volume(tmp_path / "a.nii", values, np.eye(4), dtype=dtype, scale=scale)
    raw = (tmp_path / "a.nii").read_bytes()
    assert gzip.decompress((tmp_path / "a.nii.gz").read_bytes()) == raw
    expected = values.astype(np.float64) / scale
    stored = (expected if dtype is np.float32 else np.rint(expected)).astype(dtype)
    assert raw[352:] == stored.tobytes(order="F")
    write_volume(tmp_path / "b.nii", np.zeros_like(values), np.eye(4), dtype=dtype, scale=scale)
    assert not any((tmp_path / "b.nii").read_bytes()[352:])


def test_the_header_says_which_space(tmp_path, data):
    write_volume(tmp_path / "a.nii.gz", data, AFFINE, space="MNI152NLin2009aSym")
    assert int(nibabel.load(tmp_path / "a.nii.gz").header["sform_code"]) == 4
    write_volume(tmp_path / "b.nii.gz", data, AFFINE)
    assert int(nibabel.load(tmp_path / "b.nii.gz").header["sform_code"]) == 1


def test_a_failed_write_leaves_nothing(tmp_path, data, monkeypatch):
    monkeypatch.setattr(nifti.zlib, "compressobj", lambda *_, **__: 1 / 0)
    with pytest.raises(ZeroDivisionError):
        write_volume(tmp_path / "a.nii.gz", data, AFFINE)
    assert list(tmp_path.iterdir()) == []


def test_a_single_fourth_dimension_is_dropped(tmp_path, data):
    assert read_volume(image(tmp_path, data[..., None])).shape == data.shape


def refuses(path, word, reader=read_volume, kind=DataError):
    with pytest.raises(kind) as caught:
        reader(path)
    message = str(caught.value)
    assert word in message
    assert path.name in message
    assert "\n" not in message


def test_refuses_a_missing_file(tmp_path):
    refuses(tmp_path / "no.nii.gz", "must exist", kind=MissingInputError)


def test_refuses_what_is_no_nifti(tmp_path):
    path = tmp_path / "text.nii.gz"
    path.write_text("hello")
    refuses(path, "readable NIfTI")


def test_refuses_another_ending(tmp_path):
    path = tmp_path / "scan.png"
    path.write_bytes(b"x")
    refuses(path, ".nii")


def test_refuses_a_truncated_gzip(tmp_path, rng):
    path = image(tmp_path, rng.normal(size=(20, 20, 20)).astype(np.float32))
    path.write_bytes(path.read_bytes()[:4000])
    refuses(path, "damaged")


def test_refuses_a_truncated_nifti(tmp_path, data):
    path = image(tmp_path, data, name="scan.nii")
    path.write_bytes(path.read_bytes()[:1000])
    refuses(path, "damaged")


def test_refuses_gzip_of_something_else(tmp_path):
    path = tmp_path / "scan.nii.gz"
    path.write_bytes(gzip.compress(b"nothing like a header" * 100))
    refuses(path, "readable NIfTI")


def test_refuses_four_dimensions(tmp_path, data):
    refuses(image(tmp_path, np.stack([data, data], axis=-1)), "three dimensions")


def test_refuses_an_empty_scan(tmp_path, data):
    refuses(image(tmp_path, np.zeros_like(data)), "empty")


def test_refuses_a_constant_scan(tmp_path, data):
    refuses(image(tmp_path, np.full_like(data, 7)), "constant (7)")


@pytest.mark.parametrize("bad", [np.nan, np.inf, -np.inf])
def test_refuses_voxels_that_are_not_finite(tmp_path, data, bad):
    data[1, 2, 3] = bad
    refuses(image(tmp_path, data), "1 NaN or infinite")


def test_refuses_too_few_voxels(tmp_path, data):
    refuses(image(tmp_path, data[:, :, :2]), "at least 8 voxels")


def test_refuses_a_singular_affine(tmp_path, data):
    path = image(tmp_path, data, name="scan.nii")
    raw = bytearray(path.read_bytes())
    raw[280:296] = raw[296:312]  # srow_x becomes srow_y
    path.write_bytes(bytes(raw))
    refuses(path, "invertible")


def test_an_infinite_matrix_is_refused_and_an_infinite_second_placement_is_noted(tmp_path, data):
    """Without a warning of numpy's, which are errors here."""
    path = image(tmp_path, data, name="scan.nii")
    raw = bytearray(path.read_bytes())
    second = raw.copy()
    second[268:272] = np.float32(np.inf).tobytes()  # qoffset_x
    path.write_bytes(bytes(second))
    volume = read_volume(path)
    assert volume.placement.qform is None
    assert any("qform" in note for note in volume.notes)
    raw[280:284] = np.float32(np.inf).tobytes()  # srow_x
    path.write_bytes(bytes(raw))
    refuses(path, "invertible")


def test_refuses_an_image_without_voxels(tmp_path):
    path = image(tmp_path, np.zeros((4, 4, 4), np.uint8), name="map.nii")
    raw = bytearray(path.read_bytes())
    raw[42:44] = np.int16(0).tobytes()  # dim[1]
    path.write_bytes(bytes(raw))
    refuses(path, "must have voxels", reader=read_array)


def test_refuses_a_missing_affine(tmp_path, data):
    refuses(image(tmp_path, data, codes=(0, 0)), "needs an affine")


def test_refuses_a_mask_on_another_grid(tmp_path, data):
    volume = read_volume(image(tmp_path, data))
    other = image(tmp_path, np.ones((9, 10, 12), np.uint8), name="mask.nii.gz")
    refuses(other, "(9, 10, 12)", reader=lambda path: read_mask(path, volume))
    moved = AFFINE.copy()
    moved[0, 3] += 1
    other = image(tmp_path, np.ones((9, 10, 11), np.uint8), moved, name="moved.nii.gz")
    refuses(other, "another affine", reader=lambda path: read_mask(path, volume))


def test_reads_a_mask_as_bool(tmp_path, data):
    volume = read_volume(image(tmp_path, data))
    labels = (data > 100).astype(np.int16) * 4
    np.testing.assert_array_equal(read_mask(image(tmp_path, labels, name="m.nii.gz"), volume), data > 100)


def test_a_healthy_image_lies_where_its_scan_does(tmp_path, data):
    volume, turned = read_volume(image(tmp_path, data)), AFFINE @ np.diag([-1, 1, 1, 1])
    turned[:3, 3] = (AFFINE @ [data.shape[0] - 1, 0, 0, 1])[:3]
    notes: list[str] = []
    path = image(tmp_path, data[::-1], turned, name="healthy.nii.gz")
    np.testing.assert_array_equal(read_healthy(path, volume, notes), volume.data)
    assert "reoriented to match" in notes[0]
    moved = AFFINE.copy()
    moved[0, 3] += 1
    other = image(tmp_path, data, moved, name="moved.nii.gz")
    refuses(other, "another affine", reader=lambda path: read_healthy(path, volume))
    spoilt = image(tmp_path, np.where(data > 100, np.nan, data).astype(np.float32), name="nan.nii.gz")
    refuses(spoilt, "must be finite", reader=lambda path: read_healthy(path, volume))


@pytest.mark.parametrize("kind", ["rgb", "complex"])
def test_refuses_voxels_that_are_no_numbers(tmp_path, kind):
    dtype = np.dtype([("R", "u1"), ("G", "u1"), ("B", "u1")]) if kind == "rgb" else np.complex64
    nibabel.save(nibabel.Nifti1Image(np.zeros((9, 9, 9), dtype), np.eye(4)), tmp_path / "x.nii")
    with pytest.raises(DataError, match="one real number"):
        read_volume(tmp_path / "x.nii")
