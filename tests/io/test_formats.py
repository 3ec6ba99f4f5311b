"""NIfTI pairs, Analyze and MGH: dtype, scaling and orientation survive, and what is wrong is told."""

import gzip
import shutil
import struct
from pathlib import Path

import nibabel
import numpy as np
import pytest
import scipy.io
from hypothesis import given, settings
from hypothesis import strategies as st

from halebrain.core.errors import DataError, MissingInputError
from halebrain.io.checksum import file_sha256, scan_sha256
from halebrain.io.files import split_selection
from halebrain.io.formats import FORMATS
from halebrain.io.formats.hdr_img import ASSUMED_ORIENTATION, STATED_ORIENTATION
from halebrain.io.volume import MAP_SUFFIXES, SUFFIXES, read_array, read_mask, read_volume, stem_of

AFFINE = np.array([[-5.0, 1.0, 0, 5], [0.5, 10.0, 0, -7], [0, 0, 15.0, 9], [0, 0, 0, 1]])


@pytest.fixture
def data(rng):
    return rng.normal(100, 20, size=(9, 10, 11)).astype(np.float32)


def pair(folder, data, affine=AFFINE, kind=nibabel.Nifti1Pair, stem="scan"):
    image = kind(data, affine)
    image.set_sform(affine, 1)
    nibabel.save(image, folder / f"{stem}.hdr")
    return folder / f"{stem}.hdr"


def analyze(folder, data, stem="scan", spacing=(5.0, 10.0, 15.0)):
    image = nibabel.AnalyzeImage(data, None)
    image.header.set_zooms(spacing)
    nibabel.save(image, folder / f"{stem}.img")
    return folder / f"{stem}.hdr"


def packed(path):
    target = path.with_name(path.name + ".gz")
    target.write_bytes(gzip.compress(path.read_bytes()))
    path.unlink()
    return target


@pytest.mark.parametrize("kind", [nibabel.Nifti1Pair, nibabel.Nifti2Pair])
@pytest.mark.parametrize("gz", ["", "hdr", "img", "hdr img"])
def test_a_pair_is_read_by_either_file(tmp_path, data, kind, gz):
    header, image = pair(tmp_path, data, kind=kind), tmp_path / "scan.img"
    header = packed(header) if "hdr" in gz else header
    image = packed(image) if "img" in gz else image
    for path in (header, image):
        volume = read_volume(path)
        np.testing.assert_array_equal(volume.data, data)
        np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
        assert volume.notes == ()


ORIENTED = st.tuples(st.permutations([0, 1, 2]), st.tuples(*[st.sampled_from([-1, 1])] * 3), st.floats(-0.6, 0.6))
DTYPES = st.sampled_from([np.uint8, np.int16, np.int32, np.float32])


def oriented(axes, signs, angle, spacing):
    turn = np.array([[np.cos(angle), -np.sin(angle), 0], [np.sin(angle), np.cos(angle), 0], [0, 0, 1]])
    affine = np.eye(4)
    affine[:3, :3] = turn @ (np.eye(3)[:, axes] * signs) * spacing
    affine[:3, 3] = [-80, 100, -70.5]
    return affine


@settings(max_examples=15, deadline=None)
@given(
    turned=ORIENTED,
    dtype=DTYPES,
    # From 5 mm a side of ten voxels is 50 mm, the least of a head, and a rotation rounds it to either side.
    spacing=st.tuples(*[st.floats(5.1, 20)] * 3),
    slope=st.sampled_from([1.0, 0.25, 3.0]),
    ending=st.sampled_from([".nii", ".nii.gz", ".hdr", ".mgz", ".mgh"]),
)
def test_type_scaling_and_orientation_survive(tmp_path_factory, turned, dtype, spacing, slope, ending):
    folder = tmp_path_factory.mktemp("f")
    affine = oriented(*turned, spacing)
    stored = np.random.default_rng(3).integers(0, 200, size=(8, 9, 10)).astype(dtype)
    path = folder / f"scan{ending}"
    if ending in (".mgz", ".mgh"):
        nibabel.save(nibabel.MGHImage(stored, affine), path)
        slope = 1.0
    else:
        image = (nibabel.Nifti1Pair if ending == ".hdr" else nibabel.Nifti1Image)(stored, affine)
        image.set_sform(affine, 1)
        nibabel.save(image, path)
        _set_slope(path, slope)
    volume = read_volume(path)
    np.testing.assert_allclose(volume.data, stored.astype(np.float64) * slope, rtol=1e-6)
    np.testing.assert_allclose(volume.affine, affine, atol=1e-3)


def _set_slope(path, slope):
    """Write a scaling into a header as it stands, so that the writer has no say in it."""
    raw = bytearray(gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes())
    raw[112:120] = struct.pack("<ff", slope, 0)
    path.write_bytes(gzip.compress(bytes(raw)) if path.suffix == ".gz" else bytes(raw))


def test_analyze_is_read_with_its_assumption_stated(tmp_path, data):
    volume = read_volume(analyze(tmp_path, data))
    np.testing.assert_array_equal(volume.data, data)
    assert volume.spacing_mm == pytest.approx((5, 10, 15))
    assert nibabel.aff2axcodes(volume.affine) == ("L", "A", "S")
    assert volume.notes == (ASSUMED_ORIENTATION,)


def test_analyze_takes_its_axes_from_a_mat_file(tmp_path, data):
    image = nibabel.Spm99AnalyzeImage(data, AFFINE)
    nibabel.save(image, tmp_path / "scan.img")
    volume = read_volume(tmp_path / "scan.hdr")
    np.testing.assert_allclose(volume.affine, AFFINE, atol=1e-5)
    assert volume.notes == (STATED_ORIENTATION,)


def test_analyze_with_turned_slices_is_refused(tmp_path, data):
    path = analyze(tmp_path, data)
    raw = bytearray(path.read_bytes())
    raw[252] = 2
    path.write_bytes(bytes(raw))
    refuses(path, "axial, unflipped slices, got orientation code 2")


def refuses(path, word, kind=DataError):
    with pytest.raises(kind) as caught:
        read_volume(path)
    message = str(caught.value)
    assert word in message
    assert path.name in message
    assert "\n" not in message


def test_half_a_pair_is_refused(tmp_path, data):
    pair(tmp_path, data)
    shutil.copy(tmp_path / "scan.hdr", tmp_path / "head.hdr")
    shutil.copy(tmp_path / "scan.img", tmp_path / "body.img")
    refuses(tmp_path / "head.hdr", "needs its image in the same folder", kind=MissingInputError)
    refuses(tmp_path / "body.img", "needs its header in the same folder", kind=MissingInputError)


def test_damaged_pairs_are_refused(tmp_path, data):
    header = pair(tmp_path, data)
    (tmp_path / "scan.img").write_bytes(b"short")
    refuses(header, "readable NIfTI")
    header.write_bytes(b"neither")
    refuses(header, "readable Analyze or NIfTI")
    header.write_bytes(b"")
    refuses(header, "readable Analyze or NIfTI")


def test_a_pair_without_an_affine_is_refused(tmp_path, data):
    image = nibabel.Nifti1Pair(data, None)
    image.set_sform(None, 0)
    image.set_qform(None, 0)
    nibabel.save(image, tmp_path / "scan.hdr")
    refuses(tmp_path / "scan.hdr", "needs an affine")


@pytest.mark.parametrize("ending", [".mgh", ".mgz"])
def test_mgh_is_read_and_checked(tmp_path, data, ending):
    path = tmp_path / f"scan{ending}"
    nibabel.save(nibabel.MGHImage(data, AFFINE), path)
    volume = read_volume(path)
    np.testing.assert_array_equal(volume.data, data)
    raw = gzip.decompress(path.read_bytes()) if ending == ".mgz" else path.read_bytes()
    blind = raw[:28] + b"\0\0" + raw[30:]
    path.write_bytes(gzip.compress(blind) if ending == ".mgz" else blind)
    refuses(path, "goodRASFlag")
    path.write_bytes(raw[:400])
    refuses(path, "readable MGH")
    path.write_bytes(b"")
    refuses(path, "readable MGH")


def test_the_same_is_asked_of_every_format(tmp_path, data):
    stacked = np.stack([data, data], axis=-1)
    nibabel.save(nibabel.MGHImage(stacked, AFFINE), tmp_path / "four.mgz")
    refuses(tmp_path / "four.mgz", "three dimensions")
    assert read_volume(pair(tmp_path, data[..., None])).shape == data.shape
    refuses(pair(tmp_path, np.full_like(data, 7)), "constant (7)")
    data[0, 0, 0] = np.nan
    refuses(pair(tmp_path, data), "1 NaN")


def test_a_mask_may_have_another_format_than_its_scan(tmp_path, data):
    scan = read_volume(pair(tmp_path, data))
    nibabel.save(nibabel.MGHImage((data > 100).astype(np.uint8), AFFINE), tmp_path / "m.mgz")
    np.testing.assert_array_equal(read_mask(tmp_path / "m.mgz", scan), data > 100)
    assert read_array(tmp_path / "m.mgz")[0].max() == 1


@pytest.mark.parametrize(
    ("name", "stem"),
    [
        *(("a.b.nii", "a.b"), ("a.nii.gz", "a"), ("a.hdr", "a"), ("a.img.gz", "a"), ("a.mgz", "a"), ("A.NII", "A")),
        *(("a.zip", "a"), ("a.tar.gz", "a"), ("a.tgz", "a"), ("a.dcm", "a"), ("a.v2", "a.v2"), ("a#4", "a-series4")),
        *(("sub-1 “x”.nii", "sub-1 “x”"), ("ünï\ncode.mgz", "ünï\ncode"), ("a.zip#7", "a-series7")),
    ],
)
def test_names(tmp_path, name, stem):
    assert stem_of(tmp_path / name) == stem


def test_the_name_of_a_folder_is_kept_whole(tmp_path, monkeypatch):
    folder = tmp_path / "scan.nii"
    folder.mkdir()
    assert stem_of(folder) == "scan.nii"
    monkeypatch.chdir(folder)
    assert stem_of(type(folder)(".")) == "scan.nii"


def test_a_path_that_exists_is_never_split(tmp_path):
    path = tmp_path / "a#4"
    path.touch()
    assert split_selection(path) == (path, None)
    assert split_selection(tmp_path / "b#4") == (tmp_path / "b", "4")
    assert split_selection(tmp_path / "#4") == (tmp_path / "#4", None)


def test_every_ending_belongs_to_one_format():
    endings = [s for name in FORMATS for s in FORMATS.get(name).suffixes + FORMATS.get(name).companions]
    assert len(set(endings)) == len(endings)
    assert set(MAP_SUFFIXES) < set(SUFFIXES)
    assert not {".img", ".img.gz"} & set(SUFFIXES)


def test_a_name_with_odd_letters_is_read(tmp_path, data):
    for stem in ("a b", 'it\'s "q"', "line\nbreak", "äöü→"):
        path = pair(tmp_path, data, stem=stem)
        np.testing.assert_array_equal(read_volume(path).data, data)
    refuses_line = tmp_path / "line\nbreak.img"
    refuses_line.write_bytes(b"")
    with pytest.raises(DataError) as caught:
        read_volume(tmp_path / "line\nbreak.hdr")
    assert "\n" not in str(caught.value)


def test_a_fingerprint_covers_both_files_of_a_pair(tmp_path, data):
    header = pair(tmp_path, data)
    assert scan_sha256(header) == scan_sha256(tmp_path / "scan.img")
    before = scan_sha256(header)
    pair(tmp_path, data + 1)
    assert scan_sha256(header) != before
    nibabel.save(nibabel.Nifti1Image(data, AFFINE), tmp_path / "x.nii")
    assert scan_sha256(tmp_path / "x.nii") == file_sha256(tmp_path / "x.nii")


def test_a_fingerprint_covers_what_places_an_analyze_pair(tmp_path, data):
    nibabel.save(nibabel.Spm99AnalyzeImage(data, AFFINE), tmp_path / "scan.img")  # and scan.mat
    before = scan_sha256(tmp_path / "scan.img")
    moved = AFFINE.copy()
    moved[0, 3] += 3
    scipy.io.savemat(tmp_path / "scan.mat", {"mat": moved, "M": moved}, format="4")
    assert scan_sha256(tmp_path / "scan.img") != before
    pair(tmp_path, data, stem="nifti")
    before = scan_sha256(tmp_path / "nifti.hdr")
    (tmp_path / "nifti.mat").write_bytes(b"of something else")
    assert scan_sha256(tmp_path / "nifti.hdr") == before


@pytest.mark.parametrize("name", ["scan.img", "scan.hdr"])
def test_a_nifti_of_one_file_that_is_named_as_a_pair_has_a_fingerprint(tmp_path, data, name):
    (tmp_path / name).write_bytes(nibabel.Nifti1Image(data, AFFINE).to_bytes())
    assert read_volume(tmp_path / name).shape == data.shape
    assert scan_sha256(tmp_path / name) == file_sha256(tmp_path / name)


def test_a_name_that_no_file_can_have_is_a_file_that_is_not_there():
    path = Path("x" * 300 + ".nii.gz")
    assert split_selection(path) == (path, None)
    assert split_selection(Path("y" * 300 + "#3")) == (Path("y" * 300), "3")
    assert stem_of(path) == "x" * 300


@pytest.mark.parametrize(
    "content", [b"no .mat", pytest.param(np.eye(4) * 1j, id="complex"), pytest.param(np.eye(4) * 1e200, id="too large")]
)
def test_a_damaged_transform_beside_an_spm_image_is_one_line(tmp_path, data, content):
    """Without a warning of numpy's or scipy's, which are errors here."""
    image = nibabel.Spm99AnalyzeImage(data, None)
    image.header.set_zooms((5.0, 10.0, 15.0))
    nibabel.save(image, tmp_path / "scan.img")
    if isinstance(content, bytes):
        (tmp_path / "scan.mat").write_bytes(content)
    else:
        scipy.io.savemat(tmp_path / "scan.mat", {"M": content})
    with pytest.raises(DataError, match="scan"):
        read_volume(tmp_path / "scan.hdr")
