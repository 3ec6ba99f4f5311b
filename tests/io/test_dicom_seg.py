"""A mask as DICOM-SEG: written, read back by highdicom, it is the same mask at the same place."""

import io
import sys

import nibabel
import numpy as np
import pydicom
import pytest
from dicom_maker import DIAGONAL, LOUD, Maker, read_dicom

from halebrain.core.errors import DataError, UnavailableError
from halebrain.io.dicom.segmentation import SegmentationAbout, check_highdicom, segmentation_bytes

ABOUT = SegmentationAbout("1.2.3", "flair", "ab" * 32, {"threshold": "0.25"})
highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'halebrain[dicom]'")


def turned(degrees):
    """Return an affine whose axes are all oblique."""
    a, b = np.deg2rad(degrees)
    about_x = np.array([[1, 0, 0], [0, np.cos(a), -np.sin(a)], [0, np.sin(a), np.cos(a)]])
    about_z = np.array([[np.cos(b), -np.sin(b), 0], [np.sin(b), np.cos(b), 0], [0, 0, 1]])
    made = np.eye(4)
    made[:3, :3] = about_z @ about_x @ np.diag([1.1, 0.9, 2.5])
    made[:3, 3] = [-31.25, 12.5, 7.125]
    return made


SAGITTAL = np.array([[0, 0, 1.2, -20], [1.0, 0, 0, -12], [0, -1.5, 0, 30], [0, 0, 0, 1]])
GRIDS = {"axial": DIAGONAL, "oblique": turned((17, -28)), "steep": turned((50, 40)), "sagittal": SAGITTAL}


@pytest.fixture(autouse=True)
def nothing_is_said_aloud(capfd, caplog, monkeypatch):
    monkeypatch.setenv("HALEBRAIN_DICOM", "pydicom")
    yield
    printed = "".join(capfd.readouterr()) + caplog.text
    assert not [word for word in LOUD if word in printed]


@pytest.fixture
def data(rng):
    return rng.integers(1, 3000, size=(9, 10, 11), dtype=np.uint16)


def box(volume):
    """A mask without any symmetry."""
    mask = np.zeros(volume.shape, bool)
    mask[1:4, 2:8, 3:5] = True
    mask[5, 6, 7] = True
    return mask


def read_back(raw):
    """Return the mask and its affine in RAS, in the volume's order of axes, by highdicom alone."""
    segmentation = highdicom.seg.segread(io.BytesIO(raw))
    volume = segmentation.get_volume(combine_segments=False, segment_numbers=[1])
    array = np.asarray(volume.array)[..., 0]
    affine = np.diag([-1.0, -1, 1, 1]) @ volume.affine
    image = nibabel.as_closest_canonical(nibabel.Nifti1Image(array.astype(np.uint8), affine))
    return segmentation, np.asarray(image.dataobj), image.affine


@pytest.mark.slow
@pytest.mark.parametrize("grid", GRIDS, ids=list(GRIDS))
@pytest.mark.parametrize("kind", ["folder", "multi-frame"])
def test_the_same_mask_on_the_same_grid(tmp_path, data, grid, kind):
    maker = Maker(data, GRIDS[grid])
    source = maker.write(tmp_path / "s") if kind == "folder" else maker.write_multi_frame(tmp_path / "s.dcm")
    volume = read_dicom(source)
    mask = box(volume)
    segmentation, found, affine = read_back(segmentation_bytes(mask, volume.affine, source, ABOUT))
    np.testing.assert_allclose(affine, volume.affine, atol=1e-4)
    np.testing.assert_array_equal(found, mask)
    assert segmentation.FrameOfReferenceUID == maker.frame_of_reference
    assert segmentation.StudyInstanceUID == maker.study
    assert segmentation.ReferencedSeriesSequence[0].SeriesInstanceUID == maker.uid
    assert segmentation.NumberOfFrames == 11


def test_frames_in_any_order_have_their_own_part_of_the_mask(tmp_path, data):
    source = Maker(data).write_multi_frame(tmp_path / "s.dcm", tuple(np.roll(np.arange(data.shape[2]), 2).tolist()))
    volume = read_dicom(source)
    mask = box(volume)
    _, found, affine = read_back(segmentation_bytes(mask, volume.affine, source, ABOUT))
    np.testing.assert_allclose(affine, volume.affine, atol=1e-4)
    np.testing.assert_array_equal(found, mask)


def test_an_empty_mask_is_a_segmentation_too(tmp_path, data):
    source = Maker(data, GRIDS["oblique"]).write(tmp_path / "s")
    volume = read_dicom(source)
    nothing = np.zeros(volume.shape, bool)
    _, found, affine = read_back(segmentation_bytes(nothing, volume.affine, source, ABOUT))
    np.testing.assert_allclose(affine, volume.affine, atol=1e-4)
    assert found.shape == volume.shape
    assert not found.any()


def test_what_it_says_of_itself(tmp_path, data):
    maker = Maker(data)
    source = maker.write(tmp_path / "s")
    volume = read_dicom(source)
    segmentation, _, _ = read_back(segmentation_bytes(box(volume), volume.affine, source, ABOUT))
    assert segmentation.SOPClassUID == "1.2.840.10008.5.1.4.1.1.66.4"
    assert segmentation.SegmentationType == "BINARY"
    (segment,) = segmentation.SegmentSequence
    assert segment.SegmentedPropertyCategoryCodeSequence[0].CodeValue == "49755003"
    kind = segment.SegmentedPropertyTypeCodeSequence[0]
    assert (kind.CodeValue, kind.CodingSchemeDesignator) == ("52988006", "SCT")
    assert segment.SegmentAlgorithmType == "AUTOMATIC"
    algorithm = segment.SegmentationAlgorithmIdentificationSequence[0]
    assert algorithm.AlgorithmVersion == "1.2.3"
    assert algorithm.AlgorithmParameters == f"model=flair,model_sha256={'ab' * 32},threshold=0.25"
    slices = {str(pydicom.dcmread(file).SOPInstanceUID) for file in source.iterdir()}
    named = {
        group.DerivationImageSequence[0].SourceImageSequence[0].ReferencedSOPInstanceUID
        for group in segmentation.PerFrameFunctionalGroupsSequence
    }
    assert named == slices


def test_only_what_the_standard_requires_of_the_patient_is_copied(tmp_path, data):
    source = Maker(data).write(tmp_path / "s")
    volume = read_dicom(source)
    raw = segmentation_bytes(box(volume), volume.affine, source, ABOUT)
    made = pydicom.dcmread(io.BytesIO(raw))
    assert str(made.PatientName) == "LOUDNAME^ZELDA"
    assert (made.PatientID, made.AccessionNumber) == ("LOUDID4711", "LOUDACC99")
    hidden = ("LOUDHOSPITAL", "LOUDSTREET", "LOUDDOCTOR", "LOUDOPERATOR", "LOUDSTUDY", "LOUDSERIES", "LOUDPROTOCOL")
    assert not [word for word in (*hidden, "LOUDCOMMENT", "LOUDFILE") if word.encode() in raw]


def test_a_header_without_a_patient_gives_empty_fields(tmp_path, data):
    def anonymise(made, _):
        for name in ("PatientName", "PatientID", "PatientBirthDate", "AccessionNumber"):
            delattr(made, name)
        made.PatientSex = "UNKNOWN"

    source = Maker(data).write(tmp_path / "s", anonymise)
    volume = read_dicom(source)
    made = pydicom.dcmread(io.BytesIO(segmentation_bytes(box(volume), volume.affine, source, ABOUT)))
    assert [str(made[name].value or "") for name in ("PatientName", "PatientID", "PatientSex")] == ["", "", ""]


def no_frame_of_reference(made, _):
    del made.FrameOfReferenceUID


def other_studies(made, _):
    made.StudyInstanceUID = f"1.2.3.{made.InstanceNumber}"


def one_uid(made, _):
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = "1.2.3.4"


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (no_frame_of_reference, "no FrameOfReferenceUID"),
        (other_studies, "different StudyInstanceUID"),
        (one_uid, "share one SOPInstanceUID"),
    ],
)
def test_a_series_that_cannot_be_referred_to_is_refused(tmp_path, data, change, said):
    source = Maker(data).write(tmp_path / "s", change)
    volume = read_dicom(source)
    with pytest.raises(DataError, match=said) as caught:
        segmentation_bytes(box(volume), volume.affine, source, ABOUT)
    assert not [word for word in LOUD if word in str(caught.value)]


def test_a_part_of_a_multi_frame_file_is_refused(tmp_path, data):
    path = Maker(data).write_multi_frame(tmp_path / "s.dcm")
    made = pydicom.dcmread(path)
    for number, group in enumerate(made.PerFrameFunctionalGroupsSequence):
        echo = pydicom.Dataset()
        echo.EffectiveEchoTime = 10.0 if number < 9 else 90.0
        group.MREchoSequence = [echo]
    made.save_as(path)
    volume = read_dicom(path)
    assert volume.shape[2] == 9
    with pytest.raises(DataError, match="holds other images too"):
        segmentation_bytes(box(volume), volume.affine, path, ABOUT)


def test_a_mask_of_another_grid_is_refused(tmp_path, data):
    source = Maker(data).write(tmp_path / "s")
    volume = read_dicom(source)
    elsewhere = volume.affine.copy()
    elsewhere[0, 3] += 1
    for mask, affine in ((box(volume), elsewhere), (box(volume)[:-1], volume.affine)):
        with pytest.raises(DataError, match="on the grid of its series"):
            segmentation_bytes(mask, affine, source, ABOUT)


def test_without_highdicom_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "highdicom", None)
    monkeypatch.setattr("halebrain.io.dicom.segmentation.find_spec", lambda name: None)
    with pytest.raises(UnavailableError, match=r"halebrain\[dicom\]"):
        check_highdicom()
