"""`halebrain detect --dicom-seg`: the mask of a DICOM scan, as DICOM on its series."""

import io
import json

import nibabel
import numpy as np
import pytest
from dicom_maker import LOUD, Maker
from pydicom.uid import generate_uid

highdicom = pytest.importorskip("highdicom", reason="highdicom is not installed: pip install 'halebrain[dicom]'")
SHAPE = (36, 44, 34)


def head():
    """An ellipsoid of noise with a bright cube, and its oblique affine in template space."""
    tilt = np.deg2rad(8)
    axes = np.array([[1, 0, 0], [0, np.cos(tilt), -np.sin(tilt)], [0, np.sin(tilt), np.cos(tilt)]])
    affine = np.eye(4)
    affine[:3, :3] = axes * 5
    affine[:3, 3] = np.array([0, -18, 8]) - affine[:3, :3] @ ((np.array(SHAPE) - 1) / 2)
    index = np.stack(np.meshgrid(*[np.arange(n) - (n - 1) / 2 for n in SHAPE], indexing="ij"), -1)
    inside = ((index * 5 / (65, 80, 60)) ** 2).sum(axis=-1) < 1
    data = np.where(inside, 100 + 30 * np.random.default_rng(0).random(SHAPE), 0)
    data[14:20, 18:24, 14:19] += 60
    return data.astype(np.uint16), affine


@pytest.fixture
def detect(command, small_model, tmp_path):
    def run(source, *arguments):
        settings = ("-m", small_model, "--threshold", 0.2, "--no-progress", "--dicom-seg")
        return command("detect", "-i", source, "-o", tmp_path / "out", *settings, *arguments)

    return run


@pytest.mark.slow
@pytest.mark.parametrize("kind", ["folder", "multi-frame"])
def test_it_holds_the_mask_and_names_nobody_elsewhere(detect, tmp_path, kind):
    maker = Maker(*head())
    source = maker.write(tmp_path / "scan") if kind == "folder" else maker.write_multi_frame(tmp_path / "scan.dcm")
    code, said = detect(source)
    assert code == 0, said.err
    mask = nibabel.load(tmp_path / "out" / "scan_desc-anomaly_mask.nii.gz")
    assert np.asarray(mask.dataobj).any()
    raw = (tmp_path / "out" / "scan_desc-anomaly_seg.dcm").read_bytes()
    made = highdicom.seg.segread(io.BytesIO(raw))
    volume = made.get_volume(combine_segments=False, segment_numbers=[1])
    read = nibabel.Nifti1Image(
        np.asarray(volume.array)[..., 0].astype(np.uint8), np.diag([-1, -1, 1, 1]) @ volume.affine
    )
    read = nibabel.as_closest_canonical(read)
    np.testing.assert_allclose(read.affine, mask.affine, atol=1e-3)
    np.testing.assert_array_equal(np.asarray(read.dataobj), np.asarray(mask.dataobj))
    assert made.FrameOfReferenceUID == maker.frame_of_reference
    others = [path.read_bytes() for path in (tmp_path / "out").iterdir() if path.suffix != ".dcm"]
    everything = b"\n".join([*others, said.out.encode(), said.err.encode()])
    assert len(others) == 21
    assert not [word for word in LOUD if word.encode() in everything]
    stamp = (tmp_path / "out" / "scan_desc-anomaly_seg.dcm").stat().st_mtime_ns
    assert detect(source)[0] == 0
    assert (tmp_path / "out" / "scan_desc-anomaly_seg.dcm").stat().st_mtime_ns == stamp


@pytest.mark.slow
def test_that_of_an_exam_lies_on_the_series_of_its_reference(command, small_model, tmp_path):
    data, affine = head()
    study, makers = generate_uid(), []
    for number in (3, 4):
        makers.append(Maker(data + np.uint16(number) * (data > 0), affine, number=number, study=study))
        makers[-1].write(tmp_path / "study")
    settings = ("-m", small_model, "--threshold", 0.2, "--no-progress", "--dicom-seg", "--exam", "--json")
    code, said = command("detect", "-i", tmp_path / "study", "-o", tmp_path / "out", *settings)
    assert code == 0, said.err
    (exam,) = json.loads(said.out)["exams"]
    assert exam["exam"] == "study"
    assert set(exam["contrasts"]) == {"study_3", "study_4"}
    (segmentation,) = (tmp_path / "out").glob("*_desc-exam_seg.dcm")
    assert segmentation.name.startswith(exam["reference"])
    made = highdicom.seg.segread(io.BytesIO(segmentation.read_bytes()))
    reference = next(maker for maker in makers if exam["reference"].endswith(str(maker.number)))
    assert made.FrameOfReferenceUID == reference.frame_of_reference
    mask = np.asarray(nibabel.load(exam["masks"][exam["reference"]]).dataobj)
    assert mask.any()
    assert made.get_volume(combine_segments=False, segment_numbers=[1]).array.sum() == mask.sum()
    everything = b"\n".join(path.read_bytes() for path in (tmp_path / "out").iterdir() if path != segmentation)
    assert not [word for word in LOUD if word.encode() in everything]


@pytest.mark.slow
def test_a_run_without_it_leaves_no_old_one(detect, command, small_model, tmp_path):
    source = Maker(*head()).write(tmp_path / "scan")
    assert detect(source)[0] == 0
    settings = ("-m", small_model, "--threshold", 0.4, "--no-progress", "--overwrite")
    assert command("detect", "-i", source, "-o", tmp_path / "out", *settings)[0] == 0
    assert not list((tmp_path / "out").glob("*.dcm"))


def test_it_is_refused_before_any_work(detect, tmp_path, monkeypatch):
    data, affine = head()
    nibabel.save(nibabel.Nifti1Image(data.astype(np.float32), affine), tmp_path / "scan.nii.gz")
    code, said = detect(tmp_path / "scan.nii.gz")
    assert code == 2
    assert "--dicom-seg needs DICOM scans, got scan.nii.gz" in said.err

    def no_frame_of_reference(made, _):
        del made.FrameOfReferenceUID

    monkeypatch.setattr("halebrain.inference.predictor.Predictor.predict_working", None)
    code, said = detect(Maker(data, affine).write(tmp_path / "bad", no_frame_of_reference))
    assert code == 65
    assert "no FrameOfReferenceUID" in said.err
    assert len(said.err.strip().splitlines()) == 1

    monkeypatch.setattr("halebrain.io.dicom.segmentation.find_spec", lambda name: None)
    code, said = detect(tmp_path / "bad")
    assert code == 69
    assert "pip install 'halebrain[dicom]'" in said.err


@pytest.mark.slow
def test_another_threshold_leaves_no_segmentation_of_the_former_mask(detect, command, tmp_path):
    source, out = Maker(*head()).write(tmp_path / "scan"), tmp_path / "out"
    assert detect(source)[0] == 0
    assert (out / "scan_desc-anomaly_seg.dcm").is_file()
    assert command("report", out, "--no-progress")[0] == 0
    assert (out / "scan_desc-anomaly_seg.dcm").is_file()
    code, said = command("report", out, "--threshold", 0.3, "--no-progress")
    assert code == 0, said.err
    assert "--dicom-seg" in said.err
    assert not (out / "scan_desc-anomaly_seg.dcm").exists()
    assert "dicom_seg" not in json.loads((out / "scan_desc-anomaly_provenance.json").read_text())
