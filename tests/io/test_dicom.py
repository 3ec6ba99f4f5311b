"""DICOM series in: the grid, the values, and everything that keeps a series from being a scan."""

import io
import os
import shutil
import stat
import sys
import tarfile
import zipfile

import numpy as np
import pydicom
import pytest
from dicom_maker import DIAGONAL, LOUD, Maker, list_series, read_dicom, write_report
from hypothesis import given, settings
from hypothesis import strategies as st

from halebrain.core.errors import ConfigError, DataError, MissingInputError, UnavailableError
from halebrain.inference.scans import find_scans
from halebrain.io.checksum import scan_sha256
from halebrain.io.files import is_dicom
from halebrain.io.volume import read_mask, read_volume, stem_of


@pytest.fixture(autouse=True)
def without_a_converter(monkeypatch):
    monkeypatch.setenv("HALEBRAIN_DICOM", "pydicom")


@pytest.fixture(autouse=True)
def nothing_is_said_aloud(capfd, caplog):
    """Whatever happens, no name reaches the terminal or a log."""
    yield
    printed = "".join(capfd.readouterr()) + caplog.text
    assert not [word for word in LOUD if word in printed]


@pytest.fixture
def data(rng):
    return rng.integers(0, 3000, size=(9, 10, 11), dtype=np.uint16)


@pytest.fixture
def large(rng):
    return rng.integers(0, 3000, size=(64, 72, 8), dtype=np.uint16)


def same_scan(volume, data, affine):
    """Compare in world space: the value at each place, whatever the order of the axes."""
    index = np.indices(data.shape).reshape(3, -1)
    world = affine[:3, :3] @ index + affine[:3, 3:]
    own = np.linalg.inv(volume.affine) @ np.vstack([world, np.ones(world.shape[1])])
    rounded = np.rint(own[:3]).astype(int)
    np.testing.assert_allclose(own[:3], rounded, atol=1e-3)
    np.testing.assert_allclose(volume.data[tuple(rounded)], data.reshape(-1), rtol=1e-5, atol=1e-3)


def refuses(path, *words, kind=DataError, series=None):
    with pytest.raises(kind) as caught:
        read_dicom(path, series)
    message = str(caught.value)
    for word in words:
        assert word in message
    silent(message)
    error = caught.value
    while (error := error.__cause__) is not None:
        silent(str(error))
    return message


def silent(text):
    assert not [word for word in LOUD if word in text], text
    assert "\n" not in text


@pytest.mark.parametrize("kind", ["folder", "multi-frame"])
def test_each_slice_has_its_own_scale_wherever_it_is_stored(tmp_path, data, kind):
    count = data.shape[2]
    slopes, order = tuple(1 + 0.5 * n for n in range(count)), tuple(np.roll(np.arange(count), 2).tolist())

    def scaled(made, number):
        made.RescaleSlope, made.RescaleIntercept = str(slopes[number]), "0"

    maker = Maker(data)
    if kind == "folder":
        source = maker.write(tmp_path / "s", change=scaled)
    else:
        source = maker.write_multi_frame(tmp_path / "s.dcm", order, slopes)
    np.testing.assert_allclose(read_dicom(source).data, data * np.array(slopes))


def test_a_series_lies_where_its_headers_say(tmp_path, data, capfd):
    volume = read_dicom(Maker(data, slope=0.5, intercept=-7).write(tmp_path / "s"))
    same_scan(volume, data * 0.5 - 7, DIAGONAL)
    assert volume.spacing_mm == pytest.approx((5.0, 7.5, 10.0))
    assert volume.name == str(tmp_path / "s")
    assert np.allclose(volume.affine, np.diag(np.diag(volume.affine)) + np.pad(volume.affine[:3, 3:], ((0, 1), (3, 0))))
    assert capfd.readouterr() == ("", "")


def rotation(angles):
    (cx, cy, cz), (sx, sy, sz) = np.cos(angles), np.sin(angles)
    return (
        np.array([[1, 0, 0], [0, cx, -sx], [0, sx, cx]])
        @ np.array([[cy, 0, sy], [0, 1, 0], [-sy, 0, cy]])
        @ np.array([[cz, -sz, 0], [sz, cz, 0], [0, 0, 1]])
    )


@pytest.mark.slow
@settings(max_examples=12, deadline=None)
@given(
    angles=st.tuples(*[st.floats(-3.1, 3.1)] * 3),
    spacing=st.tuples(*[st.floats(0.3, 6)] * 3),
    origin=st.tuples(*[st.floats(-300, 300)] * 3),
    tilt=st.floats(-0.4, 0.4),
    mirrored=st.booleans(),
)
def test_the_affine_is_the_one_that_made_the_series(tmp_path_factory, angles, spacing, origin, tilt, mirrored):
    affine = np.eye(4)
    affine[:3, :3] = rotation(np.array(angles)) * spacing
    if mirrored:
        affine[:3, 2] *= -1
    affine[:3, 2] += tilt * affine[:3, 1]
    affine[:3, 3] = origin
    data = np.random.default_rng(2).integers(0, 999, size=(8, 9, 10), dtype=np.uint16)
    same_scan(read_dicom(Maker(data, affine).write(tmp_path_factory.mktemp("d"))), data, affine)


def test_a_tilted_gantry_is_noted(tmp_path, data):
    affine = DIAGONAL.copy()
    affine[1, 2] = 0.3
    assert "tilted gantry" in read_dicom(Maker(data, affine).write(tmp_path / "t")).notes[0]
    assert read_dicom(Maker(data).write(tmp_path / "s")).notes == ()


def test_slices_that_share_a_uid_are_all_kept(tmp_path, data):
    folder = Maker(data).write(tmp_path / "s", change=lambda made, _: setattr(made, "SOPInstanceUID", "1.2.3"))
    assert read_dicom(folder).shape == data.shape


def test_two_series_that_share_a_uid_are_not_one(tmp_path, data):
    def shared(made, _):
        made.SOPInstanceUID = "1.2.3"

    for number in (4, 5):
        Maker(data, number=number).write(tmp_path / "s" / str(number), change=shared)
    refuses(tmp_path / "s", "2 series: 4 (")


def test_a_multi_frame_file_is_the_same_scan(tmp_path, data):
    maker = Maker(data, slope=2.0, intercept=1)
    single = read_dicom(maker.write_multi_frame(tmp_path / "scan.dcm"))
    many = read_dicom(maker.write(tmp_path / "s"))
    np.testing.assert_allclose(single.affine, many.affine, atol=1e-6)
    np.testing.assert_array_equal(single.data, many.data)
    shutil.move(tmp_path / "scan.dcm", tmp_path / "IM0001")
    assert read_volume(tmp_path / "IM0001").shape == data.shape


@pytest.mark.parametrize("ending", [".zip", ".tar.gz", ".tgz"])
def test_an_archive_is_its_folder(tmp_path, data, ending):
    folder = Maker(data).write(tmp_path / "s" / "deeper")
    path = tmp_path / f"scan{ending}"
    if ending == ".zip":
        shutil.make_archive(str(tmp_path / "scan"), "zip", tmp_path / "s")
    else:
        with tarfile.open(path, "w:gz") as archive:
            archive.add(tmp_path / "s", "s")
    packed, loose = read_volume(path), read_volume(folder)
    np.testing.assert_array_equal(packed.data, loose.data)
    assert packed.name == str(path)
    assert stem_of(path) == "scan"


def bad_tar(path, name, kind=tarfile.REGTYPE):
    with tarfile.open(path, "w:gz") as archive:
        member = tarfile.TarInfo(name)
        member.type, member.linkname, member.size = kind, "/etc/passwd", 0
        archive.addfile(member, io.BytesIO())
    return path


@pytest.mark.parametrize("name", ["../LOUD", "/LOUD", "a/../../LOUD", "C:/LOUD", "..\\LOUD"])
def test_an_archive_that_leaves_its_folder_is_refused(tmp_path, name):
    refuses(bad_tar(tmp_path / "a.tar.gz", name), "outside the folder", "member 1")
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(name, b"x")
    refuses(tmp_path / "a.zip", "outside the folder")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["a.tar.gz", "a.zip"]


@pytest.mark.parametrize("kind", [tarfile.SYMTYPE, tarfile.LNKTYPE, tarfile.FIFOTYPE])
def test_an_archive_with_a_link_is_refused(tmp_path, kind):
    refuses(bad_tar(tmp_path / "a.tar.gz", "x", kind), "a link")


def test_a_zip_with_a_link_or_without_a_scan_is_refused(tmp_path):
    link = zipfile.ZipInfo("x")
    link.external_attr = (stat.S_IFLNK | 0o777) << 16
    with zipfile.ZipFile(tmp_path / "a.zip", "w") as archive:
        archive.writestr(link, "/etc/passwd")
    refuses(tmp_path / "a.zip", "a link")
    with zipfile.ZipFile(tmp_path / "b.zip", "w") as archive:
        archive.writestr("notes.txt", "nothing")
    refuses(tmp_path / "b.zip", "must hold DICOM files", kind=MissingInputError)
    (tmp_path / "c.zip").write_bytes((tmp_path / "b.zip").read_bytes()[:20])
    refuses(tmp_path / "c.zip", "an archive must be readable")
    (tmp_path / "d.tar.gz").write_bytes(b"\x1f\x8b nothing")
    refuses(tmp_path / "d.tar.gz", "an archive must be readable")


def test_scouts_reports_and_copies_are_left_aside(tmp_path, data):
    folder = Maker(data).write(tmp_path / "s")
    Maker(data[:, :, :3], number=1).write(folder / "few")
    Maker(data, number=2, image_type=("ORIGINAL", "PRIMARY", "LOCALIZER")).write(folder / "scout")
    Maker(data, number=3, modality="CT").write(folder / "ct")
    for modality in ("SR", "PR", "KO", "RTSTRUCT"):
        write_report(folder / f"LOUD{modality}", modality)
    (folder / "README.txt").write_text("LOUD")
    first = sorted(folder.glob("LOUDFILE4*"))[0]
    shutil.copy(first, folder / "LOUDCOPY")
    same_scan(read_dicom(folder), data, DIAGONAL)
    assert [(s.number, s.slices, s.eligible) for s in list_series(folder)] == [
        (1, 3, False),
        (2, 11, False),
        (3, 11, False),
        (4, 11, True),
    ]


def test_a_three_plane_scout_in_one_series_is_no_scan(tmp_path, data):
    folder = Maker(data).write(tmp_path / "s")
    uid = Maker(data).uid
    for turn in ([0, 1, 2], [1, 2, 0], [2, 0, 1]):
        affine = DIAGONAL.copy()
        affine[:3, :3] = affine[:3, :3][:, turn]
        Maker(data[:, :, :4], affine, number=1, uid=uid).write(folder / f"p{turn[0]}")
    same_scan(read_dicom(folder), data, DIAGONAL)


def test_several_series_are_listed_and_one_can_be_chosen(tmp_path, data):
    folder = Maker(data, number=4).write(tmp_path / "s" / "a").parent
    other = data[::-1].copy()
    Maker(other, number=7).write(folder / "b")
    message = refuses(folder, "one series, got 2 series: 4 (MR, 11 slices, key ", "7 (MR", "choose one", "'s#4'")
    key = list_series(folder)[1].key
    assert key in message
    for volume in (read_dicom(folder, 7), read_dicom(folder, key), read_volume(tmp_path / "s#7")):
        same_scan(volume, other, DIAGONAL)
    assert stem_of(tmp_path / "s#7") == "s-series7"
    assert scan_sha256(tmp_path / "s#7") != scan_sha256(folder)
    refuses(folder, "chosen series must exist", "'5'", "7 (MR", series=5)


def test_echoes_under_one_number_are_told_apart_by_key(tmp_path, data):
    maker = Maker(data)
    folder = maker.write(tmp_path / "s" / "a").parent
    maker.write(folder / "b", change=lambda made, _: setattr(made, "EchoTime", "80"))
    refuses(folder, "2 series: 4 (", series=4)
    first, second = list_series(folder)
    assert f"#{first.key}" in refuses(folder, "2 series: 4 (")
    assert read_dicom(folder, second.key).shape == data.shape


def test_a_time_series_beside_a_scan_is_not_taken_for_one(tmp_path, data):
    folder = Maker(data).write(tmp_path / "s" / "a").parent
    moving = Maker(data, number=5)
    for time in range(2):
        moving.write(folder / f"t{time}")
    same_scan(read_dicom(folder), data, DIAGONAL)
    refuses(folder, "one slice at each position, got 22 slices at 11 positions", series=5)


@pytest.mark.parametrize("modality", ["CT", "PT", "US"])
def test_another_modality_is_refused(tmp_path, data, modality):
    folder = Maker(data, modality=modality).write(tmp_path / "s")
    refuses(folder, "a scan must be MR", f"modality {modality}")
    refuses(folder, "a scan must be MR", series=4)


def test_a_modality_that_is_none_is_not_repeated(tmp_path, data):
    folder = Maker(data).write(tmp_path / "s", change=lambda made, _: setattr(made, "Modality", "LOUDNAME"))
    refuses(folder, "modality unknown")


def test_missing_slices_are_counted_and_placed(tmp_path, data):
    folder = Maker(data).write(tmp_path / "s", skip=(3, 6, 7))
    refuses(folder, "3 missing of 11 slices (1 after slice 3, 2 after slice 5)")


def _uneven(made, index):
    if index == 5:
        x, y, z = made.ImagePositionPatient
        made.ImagePositionPatient = [x, y, str(float(z) + 3.5)]


def _beside(made, index):
    if index == 5:
        x, y, z = made.ImagePositionPatient
        made.ImagePositionPatient = [str(float(x) + 3), y, z]


def _smaller(made, index):
    if index == 5:
        made.Rows, made.PixelData = 9, made.PixelData[: 9 * 9 * 2]


def _finer(made, index):
    if index == 5:
        made.PixelSpacing = ["0.5", "0.5"]


def _cut(made, index):
    if index == 5:
        made.PixelData = made.PixelData[:20]


def _no_pixels(made, index):
    if index == 5:
        del made.PixelData


def _unplaced(made, index):
    del made.ImagePositionPatient


def _compressed(made, index):
    from pydicom.uid import JPEGLSLossless

    made.file_meta.TransferSyntaxUID = JPEGLSLossless
    made["PixelData"].is_undefined_length = True
    made.PixelData = b"\xfe\xff\x00\xe0\x00\x00\x00\x00\xfe\xff\x00\xe0\x04\x00\x00\x00LOUD\xfe\xff\xdd\xe0\0\0\0\0"


FAILURES = {
    _uneven: "evenly spaced",
    _beside: "on one line",
    _smaller: "one matrix size, got 9 × 9 and 10 × 9",
    _finer: "one pixel size",
    _cut: "missing or truncated",
    _no_pixels: "missing or truncated",
    _unplaced: "position in space",
}


@pytest.mark.parametrize("spoil", FAILURES, ids=lambda f: f.__name__)
def test_a_spoilt_series_is_refused_without_naming_anybody(tmp_path, data, spoil, capfd, caplog):
    refuses(Maker(data).write(tmp_path / "s", change=spoil), FAILURES[spoil])
    assert capfd.readouterr() == ("", "")
    assert not caplog.records


def test_a_damaged_header_is_counted(tmp_path, data):
    folder = Maker(data).write(tmp_path / "s")
    first, second, *_ = sorted(folder.iterdir())
    first.write_bytes(b"\0" * 128 + b"DICM" + b"LOUD" * 40)
    second.write_bytes(second.read_bytes()[:900])
    refuses(folder, "every DICOM header must be readable, got 2 of 11")


def test_one_slice_or_nothing_is_refused(tmp_path, data):
    folder = Maker(data).write(tmp_path / "s")
    shutil.copy(sorted(folder.iterdir())[0], tmp_path / "one.dcm")
    refuses(tmp_path / "one.dcm", "several slices")
    refuses(tmp_path / "no", "must exist", kind=MissingInputError)
    refuses(write_report(tmp_path / "r" / "LOUD").parent, "must hold images", "1 other objects")
    (tmp_path / "text.dcm").write_text("LOUD")
    refuses(tmp_path / "text.dcm", "header must be readable")


def test_pixels_that_nothing_decodes_name_the_syntax_and_the_extra(tmp_path, data, monkeypatch):
    from pydicom.pixels.decoders import JPEGLSLosslessDecoder

    monkeypatch.setattr(JPEGLSLosslessDecoder, "_available", {})
    folder = Maker(data).write(tmp_path / "s", change=_compressed)
    refuses(folder, "JPEG-LS Lossless", "halebrain[dicom]", kind=UnavailableError)


def test_compressed_pixels_are_decoded_where_a_decoder_is_there(tmp_path, large):
    pytest.importorskip("openjpeg", reason="JPEG 2000 needs pylibjpeg-openjpeg (halebrain[dicom])")
    from pydicom.uid import JPEG2000Lossless

    folder = Maker(large).write(tmp_path / "s", change=lambda made, _: made.compress(JPEG2000Lossless))
    same_scan(read_dicom(folder), large, DIAGONAL)


def test_rle_needs_nothing_else(tmp_path, data):
    from pydicom.uid import RLELossless

    folder = Maker(data).write(tmp_path / "s", change=lambda made, _: made.compress(RLELossless))
    same_scan(read_dicom(folder), data, DIAGONAL)


@pytest.mark.parametrize(
    ("target", "kind", "said"),
    [
        ("nowhere", MissingInputError, "a broken link"),
        (".git/annex/objects/x", MissingInputError, "git annex get"),
        ("outside", DataError, "a link must stay inside"),
    ],
)
def test_a_link_that_leaves_the_folder_is_refused(tmp_path, data, target, kind, said):
    folder = Maker(data).write(tmp_path / "s")
    (tmp_path / "outside").write_bytes(b"x")
    (folder / "link").symlink_to(tmp_path / target)
    with pytest.raises(kind, match=said) as caught:
        read_dicom(folder)
    assert "link'" in str(caught.value)


def test_a_mask_may_be_a_series(tmp_path, data):
    scan = read_volume(Maker(data).write(tmp_path / "s"))
    mask = read_mask(Maker((data > 900).astype(np.uint16)).write(tmp_path / "m"), scan)
    np.testing.assert_array_equal(mask, scan.data > 900)


def test_the_fingerprint_is_of_the_content(tmp_path, data):
    folder = Maker(data).write(tmp_path / "s")
    before = scan_sha256(folder)
    (folder / "notes.txt").write_text("later")
    sorted(folder.glob("LOUD*"))[0].rename(folder / "another")
    assert scan_sha256(folder) == before
    (folder / "another").unlink()
    assert scan_sha256(folder) != before


STAND_IN = """#!{python}
import sys, pathlib, shutil
arguments = sys.argv[1:]
out = pathlib.Path(arguments[arguments.index("-o") + 1])
print("LOUDNAME", file=sys.stderr); print("LOUDNAME")
assert arguments[arguments.index("-b") + 1] == "n"
assert not [p for p in pathlib.Path(arguments[-1]).iterdir() if "LOUD" in p.name]
{act}
"""


@pytest.fixture
def stand_in(tmp_path, monkeypatch):
    """Put a script called dcm2niix on the PATH."""

    def make(act):
        place = tmp_path / "bin"
        place.mkdir()
        program = place / "dcm2niix"
        program.write_text(STAND_IN.format(python=sys.executable, act=act))
        program.chmod(0o755)
        monkeypatch.setenv("PATH", f"{place}{os.pathsep}{os.environ['PATH']}")

    return make


def converted(tmp_path, data, affine):
    """Write what dcm2niix would, rows from bottom to top; a note of its use is left."""
    import nibabel

    flipped = affine @ np.array([[1, 0, 0, 0], [0, -1, 0, data.shape[1] - 1], [0, 0, 1, 0], [0, 0, 0, 1.0]])
    nibabel.save(nibabel.Nifti1Image(data[:, ::-1].astype(np.float32), flipped), tmp_path / "c.nii")
    note = f"pathlib.Path({str(tmp_path / 'used')!r}).touch()"
    return f"shutil.copy({str(tmp_path / 'c.nii')!r}, out / 'scan.nii'); {note}"


def test_the_converter_is_used_where_it_agrees(tmp_path, data, stand_in, monkeypatch, capfd):
    stand_in(converted(tmp_path, data, DIAGONAL))
    folder = Maker(data).write(tmp_path / "s")
    for choice, used in (("auto", True), ("dcm2niix", True), ("pydicom", False)):
        (tmp_path / "used").unlink(missing_ok=True)
        monkeypatch.setenv("HALEBRAIN_DICOM", choice)
        same_scan(read_dicom(folder), data, DIAGONAL)
        assert (tmp_path / "used").exists() == used
    assert capfd.readouterr() == ("", "")


@pytest.mark.parametrize("act", ["sys.exit(3)", "pass", "moved", "two", "shuffled"])
def test_a_converter_that_fails_or_disagrees_is_not_believed(tmp_path, data, stand_in, monkeypatch, act):
    moved = DIAGONAL.copy()
    moved[0, 3] += 1
    if act == "moved":
        act = converted(tmp_path, data, moved)
    elif act == "shuffled":
        act = converted(tmp_path, data[:, :, ::-1], DIAGONAL)
    elif act == "two":
        act = converted(tmp_path, data, DIAGONAL) + "\nshutil.copy(out / 'scan.nii', out / 'scana.nii')"
    stand_in(act)
    folder = Maker(data).write(tmp_path / "s")
    monkeypatch.setenv("HALEBRAIN_DICOM", "auto")
    same_scan(read_dicom(folder), data, DIAGONAL)
    monkeypatch.setenv("HALEBRAIN_DICOM", "dcm2niix")
    refuses(folder, "dcm2niix must convert", kind=UnavailableError)


def test_the_choice_of_a_converter_is_checked(tmp_path, data, monkeypatch):
    folder = Maker(data).write(tmp_path / "s")
    monkeypatch.setenv("HALEBRAIN_DICOM", "magic")
    refuses(folder, "'magic'", kind=ConfigError)
    monkeypatch.setenv("HALEBRAIN_DICOM", "dcm2niix")
    monkeypatch.setenv("PATH", str(tmp_path))
    refuses(folder, "must be on the PATH", kind=UnavailableError)


@pytest.mark.parametrize("turn", [(0, 0, 0), (0.3, -0.2, 0.1), (1.4, 0.2, -0.1), (0.1, 1.5, 0.3), (2.9, 0, 0)])
def test_dcm2niix_itself_gives_the_same_scan(tmp_path, large, monkeypatch, turn):
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not on the PATH")
    affine = DIAGONAL.copy()
    affine[:3, :3] = rotation(np.array(turn)) @ affine[:3, :3]
    folder = Maker(large, affine, slope=2.0, intercept=-5).write(tmp_path / "s")
    monkeypatch.setenv("HALEBRAIN_DICOM", "dcm2niix")
    same_scan(read_dicom(folder), large * 2.0 - 5, affine)


def test_dcm2niix_itself_gives_the_same_multi_frame_scan(tmp_path, large, monkeypatch):
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not on the PATH")
    path = Maker(large).write_multi_frame(tmp_path / "s.dcm")
    monkeypatch.setenv("HALEBRAIN_DICOM", "auto")
    same_scan(read_dicom(path), large, DIAGONAL)


@pytest.mark.slow
@pytest.mark.real_data
def test_a_real_series_is_the_same_through_dcm2niix(real_data, monkeypatch):
    path = real_data / "dicom_studyforrest_T1w" / "dicoms.tar.gz"
    if not path.exists():
        pytest.skip(f"no DICOM series at {path}")
    own = read_volume(path)
    assert own.shape == (274, 384, 384)
    assert own.spacing_mm == pytest.approx((0.7, 0.6667, 0.6667), abs=1e-3)
    if shutil.which("dcm2niix") is None:
        pytest.skip("dcm2niix is not on the PATH")
    monkeypatch.setenv("HALEBRAIN_DICOM", "dcm2niix")
    other = read_volume(path)
    np.testing.assert_array_equal(own.data, other.data)
    np.testing.assert_allclose(own.affine, other.affine, atol=1e-5)


def without_preamble(folder, *, meta=False, implicit=False):
    """Rewrite every file of a folder as some archives export them: no 128 bytes, no mark, and no file group either."""
    for path in folder.iterdir():
        made = pydicom.dcmread(path)
        kept = made.file_meta
        raw = io.BytesIO()
        if meta:
            made.save_as(raw, enforce_file_format=True)
            path.write_bytes(raw.getvalue()[132:])
            continue
        made.preamble = None
        made.file_meta = pydicom.dataset.FileMetaDataset()
        assert kept.TransferSyntaxUID
        pydicom.dcmwrite(raw, made, implicit_vr=implicit, little_endian=True, enforce_file_format=False)
        path.write_bytes(raw.getvalue())
        assert raw.getvalue()[128:132] != b"DICM"
    return folder


@pytest.mark.parametrize("how", [{}, {"meta": True}, {"implicit": True}])
@pytest.mark.parametrize("ending", ["", ".dcm", ".IMA"])
def test_files_without_preamble_are_one_series(tmp_path, data, how, ending):
    folder = without_preamble(Maker(data, slope=0.5, intercept=-7).write(tmp_path / "in" / "p"), **how)
    for path in sorted(folder.iterdir()):
        path.rename(path.with_name(path.name + ending))
    same_scan(read_dicom(folder), data * 0.5 - 7, DIAGONAL)
    for source in (folder, tmp_path / "in"):
        (scan,) = find_scans(source)
        assert scan.image == source
        assert scan_sha256(scan.image) == scan_sha256(folder)


@pytest.mark.parametrize(
    "raw",
    [
        b"\x08\x00" + b"\xff" * 400,
        b"\x08\x00\x05\x00CS\x0a\x00ISO_IR 100" * 30,
        b"\x02\x00\x00\x00UL\x04\x00\x00\x00\x00\x00" * 30,
        b"\x08\x00" + bytes(400),
        b"\x08\x00",
    ],
)
def test_what_only_begins_as_a_header_is_no_dicom(tmp_path, raw):
    (tmp_path / "x").write_bytes(raw)
    assert not is_dicom(tmp_path / "x")


def test_files_that_are_dicom_by_name_only_are_one_line(tmp_path):
    for number in range(92):
        (tmp_path / f"LOUD{number:02d}.dcm").write_bytes(b"not at all" * 30)
    with pytest.raises(MissingInputError, match=r"92 images are left out: not DICOM, despite the name \(first LOUD00"):
        find_scans(tmp_path)


def phase_of(maker, data, **change):
    return Maker(data[::-1].copy(), number=maker.number, uid=maker.uid, **change)


def phase_by_component(made, _):
    made.ComplexImageComponent = "PHASE"


def phase_of_ge(made, _):
    made.add_new(0x00430010, "LO", "GEMS_PARM_01")
    made.add_new(0x0043102F, "SS", 1)


PHASES = {
    "Siemens": ({"image_type": ("ORIGINAL", "PRIMARY", "P", "ND")}, None),
    "Philips": ({"image_type": ("ORIGINAL", "PRIMARY", "PHASE MAP", "P", "FFE")}, None),
    "component": ({}, phase_by_component),
    "GE": ({}, phase_of_ge),
}


@pytest.mark.parametrize("maker_of", PHASES)
def test_of_magnitude_and_phase_the_magnitude_is_taken_and_said(tmp_path, data, maker_of):
    settings, change = PHASES[maker_of]
    maker = Maker(data)
    folder = maker.write(tmp_path / "s" / "a").parent
    phase_of(maker, data, **settings).write(folder / "b", change=change)
    note = "the series holds phase images too; its magnitude images are used"
    for series in (None, "4"):
        volume = read_dicom(folder, series)
        same_scan(volume, data, DIAGONAL)
        assert volume.notes == (note,)
    assert [info.part for info in list_series(folder)].count("phase") == 1
    phase = next(info for info in list_series(folder) if info.part == "phase")
    assert str(phase) == f"4 (MR, phase, 11 slices, key {phase.key})"
    refuses(folder, "must be a magnitude image", "phase images only", "give the magnitude", series=phase.key)


@pytest.mark.parametrize("maker_of", PHASES)
def test_phase_alone_is_said_to_be_phase(tmp_path, data, maker_of):
    settings, change = PHASES[maker_of]
    folder = Maker(data, **settings).write(tmp_path / "s", change=change)
    refuses(folder, "must be a magnitude image", "got phase images only, 1 series: 4 (MR, phase, 11 slices")


def test_a_real_image_alone_is_a_scan(tmp_path, data):
    # As phase-sensitive inversion recovery is exported.
    folder = Maker(data, image_type=("ORIGINAL", "PRIMARY", "R", "PSIR")).write(tmp_path / "s")
    same_scan(read_dicom(folder), data, DIAGONAL)
