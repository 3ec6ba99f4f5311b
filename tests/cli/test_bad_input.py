"""Every kind of bad input, through the command line: one clear line, the documented exit code, nothing half-written."""

import gzip
import os
import shutil
import sys

import nibabel
import numpy as np
import pytest
from dicom_maker import Maker

import halebrain
from halebrain.cli.main import main
from halebrain.core.errors import CannotWriteError
from halebrain.models.bundle_files import store_calibration

UNET = {"channels": [8, 8], "blocks_per_level": 1, "patch": 4, "norm_groups": 4, "attention_head_channels": 0}
AFFINE = np.diag([4.0, 4.0, 4.0, 1.0])


@pytest.fixture
def model(untrained_model):
    return untrained_model


@pytest.fixture
def run(monkeypatch, capsys):
    """Run the command line; return its exit code and what it printed to stderr."""

    def call(*arguments):
        monkeypatch.setattr(sys, "argv", ["halebrain", *map(str, arguments)])
        with pytest.raises(SystemExit) as caught:
            main()
        return int(caught.value.code or 0), capsys.readouterr().err

    return call


def ball(shape=(48, 48, 48)):
    index = np.indices(shape)
    radius = np.sqrt(sum(((x - (n - 1) / 2) * 4.0) ** 2 for x, n in zip(index, shape, strict=True)))
    return np.where(radius < 70, 100 + 0.5 * radius, 0).astype(np.float32)


def save(path, data, affine=AFFINE, code=1):
    image = nibabel.Nifti1Image(data, affine)
    image.set_sform(affine, code=code)
    image.set_qform(affine if code else None, code=code)
    nibabel.save(image, path)
    return path


def one_line(message, *words):
    lines = [line for line in message.splitlines() if line.strip()]
    assert len(lines) == 1, message
    assert lines[0].startswith("halebrain: ")
    for word in words:
        assert word in lines[0], message


def not_a_nifti(folder):
    path = folder / "scan.nii.gz"
    path.write_bytes(b"PK\x03\x04 something else")
    return path


def wrong_suffix(folder):
    path = folder / "scan.png"
    path.write_bytes(b"\x89PNG")
    return path


def truncated(folder):
    whole = save(folder / "whole.nii", np.random.default_rng(0).random((32, 32, 32), np.float32))
    path = folder / "scan.nii.gz"
    packed = gzip.compress(whole.read_bytes())
    whole.unlink()
    path.write_bytes(packed[: len(packed) // 2])
    return path


def four_dimensional(folder):
    return save(folder / "scan.nii.gz", np.repeat(ball()[..., None], 3, axis=3))


def empty(folder):
    return save(folder / "scan.nii.gz", np.zeros((48, 48, 48), np.float32))


def constant(folder):
    return save(folder / "scan.nii.gz", np.full((48, 48, 48), 7, np.float32))


def nan(folder):
    data = ball()
    data[24, 24, 24] = np.nan
    return save(folder / "scan.nii.gz", data)


def infinite(folder):
    data = ball()
    data[24, 24, 20:24] = np.inf
    return save(folder / "scan.nii.gz", data)


def singular(folder):
    path = save(folder / "scan.nii", ball())
    image = nibabel.load(path)
    raw = bytearray(path.read_bytes())
    header = image.header.copy()
    header["srow_y"] = header["srow_x"]
    header["qform_code"] = 0
    raw[:348] = header.binaryblock
    path.write_bytes(bytes(raw))
    return path


def no_affine(folder):
    return save(folder / "scan.nii.gz", ball(), code=0)


def half_a_pair(folder):
    nibabel.save(nibabel.Nifti1Pair(ball(), AFFINE), folder / "scan.hdr")
    (folder / "scan.img").unlink()
    return folder / "scan.hdr"


def no_mgh(folder):
    path = folder / "scan.mgz"
    path.write_bytes(gzip.compress(b"something else"))
    return path


def no_archive(folder):
    path = folder / "scan.zip"
    path.write_bytes(b"PK\x03\x04 something else")
    return path


def computed_tomography(folder):
    return Maker(ball()[..., :9].astype(np.uint16), AFFINE, modality="CT").write(folder / "scan")


def incomplete_series(folder):
    return Maker(ball()[..., :12].astype(np.uint16), AFFINE).write(folder / "scan", skip=(3, 4))


def ball_in_noise(folder):
    head = np.abs(np.random.default_rng(0).normal(0, 3, (72, 72, 72))).astype(np.float32)
    index = np.indices(head.shape) - 35.5
    head += 100 * (np.sqrt((index**2).sum(axis=0)) < 32)
    return save(folder / "scan.nii.gz", head)


SCANS = {
    not_a_nifti: (65, "readable NIfTI"),
    wrong_suffix: (65, "NIfTI"),
    truncated: (65, "readable NIfTI"),
    four_dimensional: (65, "three dimensions"),
    empty: (65, "all zero"),
    constant: (65, "constant (7)"),
    nan: (65, "1 NaN or infinite"),
    infinite: (65, "4 NaN or infinite"),
    singular: (65, "invertible"),
    no_affine: (65, "needs an affine"),
    half_a_pair: (66, "image in the same folder"),
    no_mgh: (65, "readable MGH"),
    no_archive: (65, "archive must be readable"),
    computed_tomography: (65, "a scan must be MR, got modality CT"),
    incomplete_series: (65, "2 missing of 12 slices (2 after slice 3)"),
    ball_in_noise: (65, "brain must be found"),
}


@pytest.mark.parametrize(
    "make",
    # A search for a brain where there is none takes half a minute; tests of the extractor make it too.
    [pytest.param(make, marks=pytest.mark.sweep) if make is ball_in_noise else make for make in SCANS],
    ids=lambda make: make.__name__,
)
def test_a_bad_scan(make, run, model, tmp_path):
    code, word = SCANS[make]
    scan, out = make(tmp_path), tmp_path / "out"
    found, message = run("detect", "-i", scan, "-o", out, "-m", model, "--threshold", 0.3, "--no-progress")
    assert found == code
    one_line(message, word, scan.name)
    assert not out.exists()


def test_a_scan_that_is_not_there(run, model, tmp_path):
    code, message = run("detect", "-i", tmp_path / "no.nii.gz", "-o", tmp_path / "out", "-m", model)
    assert code == 66
    one_line(message, "no.nii.gz")


def test_a_mask_on_another_grid(run, model, tmp_path):
    scan = save(tmp_path / "scan.nii.gz", ball())
    shifted = AFFINE.copy()
    shifted[0, 3] = 4.0
    mask = save(tmp_path / "mask.nii.gz", (ball() > 0).astype(np.uint8), shifted)
    arguments = ("-i", scan, "-o", tmp_path / "out", "-m", model, "--brain-mask", mask, "--no-progress")
    code, message = run("detect", *arguments, "--threshold", 0.3)
    assert code == 65
    one_line(message, "grid of its scan", "another affine", "mask.nii.gz")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize(
    ("setting", "word"), [("loop.stepz=5", "did you mean 'steps'"), ("loop.steps=soon", "'soon'"), ("loop.lr=-1", "lr")]
)
def test_a_wrong_key_or_type_in_a_config(run, tmp_path, setting, word):
    arguments = ("-c", "tiny", "--manifest", tmp_path / "m.tsv", "-o", tmp_path / "out", "--set", setting)
    code, message = run("train", "reconstructor", *arguments)
    assert code == 78
    one_line(message, word)
    assert not (tmp_path / "out").exists()


def test_a_config_that_is_no_yaml(run, tmp_path):
    path = tmp_path / "broken.yaml"
    path.write_text("loop: [steps: 3\n")
    code, message = run("train", "reconstructor", "-c", path, "-o", tmp_path / "out")
    assert code == 78
    one_line(message, "broken.yaml")


def test_a_seed_that_deals_nothing(run, tmp_path):
    (tmp_path / "raw").mkdir()
    code, message = run("prepare", "-i", tmp_path / "raw", "-o", tmp_path / "out", "--seed", "3")
    assert code == 2
    one_line(message, "--seed", "--split")
    assert not (tmp_path / "out").exists()


def test_a_subject_in_two_splits(run, tmp_path):
    for name in ("a", "b"):
        save(tmp_path / f"{name}.nii.gz", ball())
    rows = "subject\tsession\timage\tmodality\tsplit\tpathology\n"
    rows += "s1\tone\ta.nii.gz\tFLAIR\ttrain\thealthy\ns1\ttwo\tb.nii.gz\tFLAIR\tval\thealthy\n"
    (tmp_path / "manifest.tsv").write_text(rows)
    arguments = ("-c", "tiny", "--manifest", tmp_path / "manifest.tsv", "-o", tmp_path / "out")
    code, message = run("train", "reconstructor", *arguments)
    assert code == 65
    one_line(message, "s1", "manifest.tsv")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("name", ["model.safetensors", "config.yaml"])
def test_a_bundle_with_a_changed_byte(run, model, tmp_path, name):
    changed = tmp_path / "model"
    shutil.copytree(model, changed)
    raw = bytearray((changed / name).read_bytes())
    raw[-1] ^= 1
    (changed / name).write_bytes(bytes(raw))
    scan = save(tmp_path / "scan.nii.gz", ball())
    code, message = run("detect", "-i", scan, "-o", tmp_path / "out", "-m", changed, "--threshold", 0.3)
    assert code == 65
    one_line(message, name)
    assert not (tmp_path / "out").exists()


def test_a_model_that_is_not_there(run, tmp_path):
    scan = save(tmp_path / "scan.nii.gz", ball())
    code, message = run("detect", "-i", scan, "-o", tmp_path / "out", "-m", tmp_path / "nowhere")
    assert code == 66
    one_line(message, "nowhere")


@pytest.mark.parametrize(
    ("calibrated", "wanted", "words"),
    [(False, "auto", ["not calibrated"]), (True, "fpr:0.5", ["'fpr:0.5'", "stored: dice"]), (True, "hi", ["'hi'"])],
)
def test_a_threshold_that_the_model_does_not_have(run, model, tmp_path, calibrated, wanted, words):
    own = tmp_path / "model"
    shutil.copytree(model, own)
    if calibrated:
        about = {"value": 0.5, "method": "m", "split": "val", "manifest_sha256": "0", "n_scans": 1, "achieved": 0.1}
        store_calibration(own, {"default": "dice", "thresholds": {"dice": about}, "subjects": ["s1"]})
    scan = save(tmp_path / "scan.nii.gz", ball())
    code, message = run("detect", "-i", scan, "-o", tmp_path / "out", "-m", own, "--threshold", wanted)
    assert code == 2
    one_line(message, *words)
    assert not (tmp_path / "out").exists()


def test_a_device_that_is_none(run, model, tmp_path):
    scan = save(tmp_path / "scan.nii.gz", ball())
    code, message = run(
        "detect", "-i", scan, "-o", tmp_path / "out", "-m", model, "--threshold", "0.3", "--device", "gpu"
    )
    assert code == 2
    one_line(message, "'gpu'")


def test_a_folder_with_bad_scans_lists_them_and_keeps_none_of_them(run, model, tmp_path):
    folder = tmp_path / "in"
    folder.mkdir()
    empty(folder).rename(folder / "one.nii.gz")
    not_a_nifti(folder).rename(folder / "two.nii.gz")
    code, message = run(
        "detect", "-i", folder, "-o", tmp_path / "out", "-m", model, "--threshold", "0.3", "--no-progress"
    )
    assert code == 3
    last = message.strip().splitlines()[-1]
    assert "2 of 2" in last
    assert "one" in last
    assert "two" in last
    assert not list(tmp_path.glob("out/*/*"))


@pytest.mark.parametrize(
    "words",
    [
        ("cohort", "--subjects", 1, "--patients", 0),
        ("detect", "-i", "scan.nii.gz"),
        ("detect", "--exam", "--fill", "-i", "scan.nii.gz"),
        ("prepare", "-i", "scan.nii.gz"),
        ("evaluate", "model", "--manifest", "manifest.tsv"),
        ("calibrate", "model", "--manifest", "manifest.tsv"),
        ("train", "reconstructor", "-c", "tiny"),
        ("benchmark", "-c", "tiny"),
        ("models", "join", "one", "two"),
    ],
    ids=lambda words: " ".join(map(str, words[:2])),
)
def test_an_output_that_cannot_be_written_is_refused_before_anything_is_read(run, tmp_path, monkeypatch, words):
    monkeypatch.chdir(tmp_path)
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    code, message = run(*words, "-o", "file/below/it")
    assert code == 73, message
    one_line(message, "the output folder must be writable, got Not a directory in 'file'; choose another folder")
    monkeypatch.setattr(os, "access", lambda path, mode: not mode & os.W_OK)
    code, message = run(*words, "-o", tmp_path)
    assert code == 73, message
    one_line(message, "the output folder must be writable, got Permission denied", "choose another folder")
    assert list(tmp_path.iterdir()) == [blocked]


def test_the_output_of_the_bids_app_and_of_python_is_looked_at_first(run, tmp_path):
    blocked = tmp_path / "file"
    blocked.write_text("in the way")
    code, message = run("bids", tmp_path / "nothing", blocked / "out", "participant")
    assert code == 73, message
    one_line(message, "the output folder must be writable, got Not a directory in")
    save(tmp_path / "scan.nii.gz", ball())
    with pytest.raises(CannotWriteError, match="the output folder must be writable"):
        halebrain.detect_many(tmp_path / "scan.nii.gz", blocked, model=tmp_path / "no model")


@pytest.mark.parametrize(
    ("words", "rule"),
    [
        (("detect", "-i", "", "-o", "out"), "-i takes a path"),
        (("report", ""), "an argument must not be empty"),
        (("report", "--json", "", "--threshold", "0.5"), "an argument must not be empty"),
        (("view", ""), "an argument must not be empty"),
        (("bids", "", "out", "participant"), "an argument must not be empty"),
        (("evaluate", "", "--manifest", "m.tsv", "-o", "out"), "an argument must not be empty"),
    ],
)
def test_an_empty_path_is_not_the_working_directory(run, tmp_path, monkeypatch, words, rule):
    monkeypatch.chdir(tmp_path)
    (tmp_path / "a_desc-anomaly_provenance.json").write_text("{}")
    code, message = run(*words)
    assert code == 2
    one_line(message, f"{rule}, got an empty word; a shell variable may have no value")
    assert [path.name for path in tmp_path.iterdir()] == ["a_desc-anomaly_provenance.json"]
    code, message = run("calibrate", "model", "--manifest", "m.tsv", "--name", "")
    assert "an empty word" not in message, "it may be empty where it is no path"
